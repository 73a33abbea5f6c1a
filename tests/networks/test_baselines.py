"""What is particular to each of the rival networks, and all networks as planned; the rest is in tests/contracts."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoseg.networks import NETWORKS, build_network
from autoseg.networks.attention_gate_unet import OPEN, AttentionGate
from autoseg.networks.blocks import InstanceNorm, conv_stack
from autoseg.networks.deeplabv3 import fitting_rate
from autoseg.networks.dilated import dilated_strides
from autoseg.networks.encoder import Encoder
from autoseg.networks.fcn import finest_scored, interpolation_kernel
from autoseg.networks.pspnet import fitting_parts
from autoseg.networks.segnet import pool, unpool
from autoseg.training.losses import deep_supervision_loss, dice_cross_entropy
from planners.attention import add_attention
from planners.plan import NetworkSpec
from planners.topology import choose_topology

ONE_OUTPUT = ("fcn", "deeplabv3", "pspnet")  # of five stages; the others have four
CUBE, SLICE = ((2, 2, 2),), ((1, 2, 2),)
ONES = ((1, 1, 1),)


def make_spec(name, spacing_mm=(1.0, 1.0, 1.0), patch=(16, 16, 16), **changes):
    """A narrow network with the strides and kernels that the planner chooses."""
    topology = choose_topology(spacing_mm, patch)
    assert topology.patch == patch
    stages = len(topology.strides)
    spec = NetworkSpec(
        name=name,
        in_channels=1,
        out_channels=3,
        features=(4, 6, 8, 8, 8, 8)[:stages],
        strides=topology.strides,
        kernels=topology.kernels,
        encoder_blocks=(1, 2, 2, 2, 2, 2)[:stages],
        decoder_blocks=(1,) * (stages - 1),
    )
    spec = replace(spec, **changes)
    return add_attention(spec, patch) if name == "self_attention_unet" else spec


def make_network(*args, **keywords):
    """A network whose parameters have left their starting values."""
    torch.manual_seed(0)
    network = build_network(make_spec(*args, **keywords))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


class Unchanged(nn.Module):
    """What stands for a normalisation and its rectifier."""

    def forward(self, x, slope=1.0):
        return x


def without_norms(module):
    """The same module with instance normalisation, which makes every voxel depend on every other, taken out."""
    for name, child in module.named_children():
        if isinstance(child, InstanceNorm):
            setattr(module, name, Unchanged())
        else:
            without_norms(child)
    return module


def sources(function, patch, voxel):
    """(Z, Y, X) bool: the voxels of the input that the outputs at ``voxel`` depend on."""
    x = torch.randn(1, 1, *patch, requires_grad=True)
    function(x)[(0, slice(None), *voxel)].sum().backward()
    return x.grad[0, 0] != 0


# every network


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("spacing_mm", "patch"),
    [((1.0, 1.0, 1.0), (16, 16, 16)), ((1.0, 1.0, 1.0), (1, 64, 64)), ((5.0, 1.0, 1.0), (8, 64, 64))],
)
def test_planned_patches_train(name, spacing_mm, patch):
    network = make_network(name, spacing_mm, patch)
    scales = network(torch.randn(1, 1, *patch), every_scale=True)
    codes = torch.randint(-1, 3, (1, *patch))
    deep_supervision_loss(dice_cross_entropy, scales, codes).backward()
    assert scales[0].shape == (1, 3, *patch)
    assert bool(network.spec.attention) == (name == "self_attention_unet")
    if patch == (1, 64, 64):
        assert len(scales) == (1 if name in ONE_OUTPUT else 4)
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    # a scale of weight zero leaves its head without a gradient, nothing else
    assert {n.split(".")[-3] for n, p in network.named_parameters() if p.grad is None} <= {"heads"}


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_can_be_traced_whole(name):
    network = make_network(name).eval()
    traced = torch.compile(network, backend="eager", fullgraph=True)
    x = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(traced(x), network(x))


# FCN


@pytest.mark.parametrize(
    ("strides", "stage"),
    [(ONES + CUBE * 5, 3), (ONES + CUBE * 3, 1), (ONES + SLICE * 2 + CUBE * 3, 3), (ONES + SLICE * 7, 3), (ONES, 0)],
)
def test_fcn_scores_stride_8_or_the_three_coarsest_stages(strides, stage):
    assert finest_scored(strides) == stage


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2), (1, 4, 2)])
def test_fcn_enlarges_by_linear_interpolation_at_first(stride):
    x = torch.randn(1, 1, 4, 5, 6)
    padding = tuple(step // 2 for step in stride)
    enlarged = functional.conv_transpose3d(x, interpolation_kernel(stride)[None, None], stride=stride, padding=padding)
    expected = functional.interpolate(x, scale_factor=stride, mode="trilinear", align_corners=False)
    inside = (..., *(slice(step, -step) if step > 1 else slice(None) for step in stride))  # borders fade, as in the paper
    assert enlarged.shape == expected.shape
    torch.testing.assert_close(enlarged[inside], expected[inside])


def test_a_fresh_fcn_listens_to_its_coarsest_stage_alone():
    network = build_network(make_spec("fcn"))
    assert [score.weight.any().item() for score in network.scores] == [False, False, True]


# SegNet


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_segnet_restores_maxima_where_they_were(stride):
    x = torch.rand(2, 3, 4, 6, 8) + 1
    values, places = pool(x, stride)
    restored = unpool(values, places, stride)
    assert restored.shape == x.shape
    assert torch.equal(restored[restored != 0], x[restored != 0])
    assert (restored != 0).sum() == values.numel()
    assert torch.equal(pool(restored, stride)[0], values)
    assert torch.equal(restored, functional.max_unpool3d(values, places, stride, stride))


def test_segnet_passes_places_but_no_values_from_encoder_to_decoder():
    network = make_network("segnet", patch=(4, 4, 4)).eval()  # one pooling
    x = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        network.encoder[1][-1].norm.weight.zero_()  # the coarse features become constants
        before = network(x)
        network.encoder[0][-1].norm.weight.mul_(3)  # other values, with maxima at the same voxels
        torch.testing.assert_close(network(x), before)
        assert not torch.equal(network(x.roll(1, 4)), before)  # other voxels


# DeepLabv3 and PSPNet


def test_strides_become_dilations_beyond_8():
    strides, rates = dilated_strides(ONES + CUBE * 5)
    assert strides == ONES + CUBE * 3 + ONES * 2
    assert rates == ONES * 4 + ((2, 2, 2), (4, 4, 4))


def test_the_last_stage_of_a_shallow_network_is_dilated_along_its_halved_axes():
    assert dilated_strides(ONES + CUBE + SLICE) == (ONES + CUBE + ONES, ONES * 2 + SLICE)
    assert dilated_strides(ONES + CUBE) == (ONES + CUBE, ONES * 2)


def test_deeplab_rates_are_the_papers_where_they_fit_and_in_proportion_where_not():
    assert [fitting_rate(rate, (36, 36, 50)) for rate in (6, 12, 18)] == [(6, 6, 6), (12, 12, 12), (18, 18, 18)]
    assert [fitting_rate(rate, (1, 10, 14)) for rate in (6, 12, 18)] == [(1, 1, 2), (1, 3, 4), (1, 5, 7)]


def test_deeplab_sees_further_than_the_plain_encoder():
    spec = make_spec("deeplabv3", patch=(1, 16, 16), encoder_blocks=(1, 1, 1))
    torch.manual_seed(0)
    network = without_norms(build_network(spec))
    nn.init.zeros_(network.context.image.spread.weight)  # leaves the atrous convolutions alone
    plain = without_norms(Encoder(spec, conv_stack))
    patch = (1, 64, 64)
    seen = sources(network, patch, (0, 32, 32)).any(dim=1).sum()  # columns
    before = sources(lambda x: network.encoder(x)[-1], patch, (0, 16, 16)).any(dim=1).sum()
    assert before > sources(lambda x: plain(x)[-1], patch, (0, 8, 8)).any(dim=1).sum()
    assert seen > before + 18


def test_pspnet_knows_the_far_end_of_the_image():
    network = make_network("pspnet", patch=(1, 64, 64), encoder_blocks=(1,) * 5)
    network = without_norms(network)
    far = (0, 63, 63)
    assert sources(network, (1, 64, 64), (0, 0, 0))[far]
    assert not sources(lambda x: network.encoder(x)[1], (1, 64, 64), (0, 0, 0))[far]


def test_pspnet_divides_an_axis_into_no_more_parts_than_voxels():
    assert [fitting_parts(parts, (1, 4, 16)) for parts in (2, 3, 6)] == [(1, 2, 2), (1, 3, 3), (1, 4, 6)]


@pytest.mark.parametrize("name", ["deeplabv3", "pspnet"])
def test_normalisation_does_not_cancel_what_the_whole_image_says(name):
    network = make_network(name).eval()
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        before = network(x)
        network.context.image.spread.weight.zero_()
        change = (network(x) - before).abs().mean() / before.std()
    assert change > 0.01


# UNet++


def test_unet_plus_plus_uses_every_node():
    network = make_network("unet_plus_plus", patch=(1, 64, 64), deep_supervision=False)
    assert sum(len(row) for row in network.nodes) == 4 * 5 // 2
    network(torch.randn(1, 1, 1, 64, 64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if parameter.ndim > 1:
            assert parameter.grad.any(), name


def test_unet_plus_plus_has_a_head_on_the_image_grid_for_each_depth():
    scales = make_network("unet_plus_plus")(torch.randn(1, 1, 16, 16, 16), every_scale=True)
    assert [tuple(scale.shape[2:]) for scale in scales] == [(16, 16, 16)] * 2


# Attention U-Net


def test_gates_lie_between_zero_and_one():
    torch.manual_seed(0)
    gate = AttentionGate(4, 6, (1, 2, 2))
    skip, below = 5 * torch.randn(2, 4, 4, 8, 8), 5 * torch.randn(2, 6, 4, 4, 4)
    weights = gate.weights(skip, below)
    assert weights.shape == (2, 1, 4, 8, 8)
    assert 0 < weights.min() < weights.max() < 1
    torch.testing.assert_close(gate(skip, below), weights * skip)


def test_gates_stand_on_all_skips_but_the_finest():
    gates = build_network(make_spec("attention_gate_unet", patch=(1, 64, 64))).decoder.gates
    assert [gate.from_skip.in_channels for gate in gates] == [6, 8, 8]
    shallow = make_spec("attention_gate_unet", patch=(4, 4, 4))
    assert len(shallow.features) == 2
    assert len(build_network(shallow).decoder.gates) == 1


def test_fresh_gates_are_open_for_every_voxel():
    for gate in build_network(make_spec("attention_gate_unet")).decoder.gates:
        weights = gate.weights(torch.randn(1, 6, 8, 8, 8), torch.randn(1, 8, 4, 4, 4))
        torch.testing.assert_close(weights, torch.full_like(weights, OPEN).sigmoid())


def test_with_open_gates_it_is_the_plain_unet():
    gated, plain = make_network("attention_gate_unet").eval(), make_network("unet").eval()
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if ".gates." not in k})
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        for gate in gated.decoder.gates:
            gate.score.bias.fill_(50)
        torch.testing.assert_close(gated(x), plain(x))
        for gate in gated.decoder.gates:
            gate.score.bias.fill_(-3)
        assert not torch.allclose(gated(x), plain(x))
