"""Number formats follow what the machine can do without harm."""

import pytest
import torch

from autoseg.networks import build_network, machine
from planners import NetworkSpec


@pytest.mark.parametrize(
    ("strides", "patch", "thin"),
    [
        ([(1, 1, 1), (1, 2, 2)], (1, 128, 128), True),
        ([(1, 1, 1), (1, 2, 2)], (1, 64, 64), False),
        ([(1, 1, 1), (2, 2, 2)], (16, 256, 256), True),  # 8 slices of 128 x 128 below
        ([(1, 1, 1), (2, 2, 2)], (32, 128, 128), False),
        ([(1, 1, 1), (2, 2, 2)], (40, 56, 40), False),
    ],
)
def test_thin_patches_are_not_trained_in_bfloat16_where_that_writes_beyond_memory(strides, patch, thin, monkeypatch):
    n = len(strides)
    spec = NetworkSpec("unet", 1, 2, (4,) * n, tuple(strides), ((3, 3, 3),) * n, (1,) * n, (1,) * (n - 1))
    assert machine.has_thin_stage(spec, patch) == thin
    if thin:
        monkeypatch.setattr(machine, "has_amx", lambda: True)
        assert not machine.faster_in_bf16(build_network(spec), (1, *patch), torch.device("cpu"), training=True)
