"""What planners/cost.py says a network costs, against the network itself."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from autoseg.networks import NETWORKS, Scores, build_network
from planners import NetworkSpec, count_elements, count_operations, count_parameters
from planners.attention import add_attention
from planners.cost import POSTPONING

CUBES = NetworkSpec(
    name="unet",
    in_channels=2,
    out_channels=3,
    features=(32, 64, 128, 256),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 4,
    encoder_blocks=(1, 3, 2, 2),
    decoder_blocks=(2, 1, 1),
)
SLICES = replace(CUBES, strides=((1, 1, 1),) + ((1, 2, 2),) * 3, kernels=((1, 3, 3),) * 4)
DEEP = NetworkSpec(
    name="unet",
    in_channels=1,
    out_channels=2,
    features=(32, 64, 128, 256, 320, 320, 320),
    strides=((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    kernels=((1, 3, 3), (1, 3, 3)) + ((3, 3, 3),) * 5,
    encoder_blocks=(2,) * 7,
    decoder_blocks=(2,) * 6,
)
KINDS = {"3d": (CUBES, (40, 56, 40)), "2d": (SLICES, (1, 128, 96)), "deep": (DEEP, (16, 128, 128))}
COPIES = 2  # maps kept for an element: in front of a normalisation, and behind it
TOLERANCE = 1.15


BUILT = [(name, "plain") for name in NETWORKS] + [("self_attention_unet", "residual")]


@pytest.fixture(params=[(*names, kind) for names in BUILT for kind in KINDS], ids="-".join)
def built(request):
    """(spec, patch, network without memory for its numbers)."""
    name, backbone, kind = request.param
    spec, patch = KINDS[kind]
    spec = replace(add_attention(replace(spec, name="self_attention_unet", backbone=backbone), patch), name=name)
    with torch.device("meta"):
        return spec, patch, build_network(spec)


def kept(forward, x, network=None):
    """Numbers of float32 size that wait for the backward pass: every storage once, no weights of ``network`` (``forward``)."""
    weights = {tensor.untyped_storage()._cdata for tensor in (network or forward).state_dict().values()}
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(x)
    return sum(storage.nbytes() // 4 for address, storage in storages.items() if address not in weights)


def test_elements_are_half_of_what_waits_for_the_backward_pass(built):
    spec, patch, network = built
    x = torch.empty(1, spec.in_channels, *patch, device="meta")
    found = kept(network, x)
    expected = COPIES * count_elements(spec, patch)
    assert expected / TOLERANCE < found < expected * TOLERANCE


def test_parameters_are_counted_exactly(built):
    spec, _, network = built
    assert count_parameters(spec) == sum(parameter.numel() for parameter in network.parameters())


def test_operations_are_counted_as_torch_counts_them(built):
    spec, patch, network = built
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, spec.in_channels, *patch, device="meta"), every_scale=True)
    assert counter.get_total_flops() / 2 == pytest.approx(count_operations(spec, patch), rel=0.002)


def test_a_hundred_structures_take_no_more_than_two(built):
    spec, patch, _ = built
    many = replace(spec, out_channels=140)
    with torch.device("meta"):
        network, x = build_network(many, lazy_logits=True), torch.empty(1, spec.in_channels, *patch)
    assert isinstance(network(x), Scores) == (spec.name in POSTPONING)
    if spec.name not in POSTPONING:
        assert count_elements(many, patch) >= count_elements(spec, patch) + 137 * math.prod(patch)
        return
    found, expected = kept(network, x), COPIES * count_elements(many, patch)
    assert expected < COPIES * count_elements(spec, patch)
    assert expected / TOLERANCE < found < expected * TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_restoration_head_is_counted(kind):
    spec, patch = KINDS[kind]
    restoring = replace(spec, restoration=True)
    with torch.device("meta"):
        plain, network = build_network(spec), build_network(restoring)
    assert count_parameters(restoring) == sum(parameter.numel() for parameter in network.parameters())
    x = torch.empty(1, spec.in_channels, *patch, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, every_scale=True, restore=True)
    assert counter.get_total_flops() / 2 == pytest.approx(count_operations(restoring, patch), rel=0.002)
    added = count_elements(restoring, patch) - count_elements(spec, patch)
    found = kept(lambda x: network(x, restore=True), x, network) - kept(plain, x)
    assert COPIES * added / TOLERANCE < found < COPIES * added * TOLERANCE
