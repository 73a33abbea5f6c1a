"""Patches that a processor cannot train in bfloat16 without harm."""

import pytest
import torch

from autoseg.networks import machine
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
def test_thin_patches_are_told_from_sound_ones(strides, patch, thin, monkeypatch):
    n, cpu = len(strides), torch.device("cpu")
    spec = NetworkSpec("unet", 1, 2, (4,) * n, tuple(strides), ((3, 3, 3),) * n, (1,) * n, (1,) * (n - 1))
    monkeypatch.setattr(machine, "has_amx", lambda: True)
    assert machine.unsafe_in_bf16(spec, [patch], cpu) == thin
    assert machine.unsafe_in_bf16(spec, [(40, 56, 40), patch], cpu) == thin
    assert not machine.unsafe_in_bf16(spec, [patch], torch.device("cuda"))
    monkeypatch.setattr(machine, "has_amx", lambda: False)
    assert not machine.unsafe_in_bf16(spec, [patch], cpu)
