"""Costs of networks: counts that can be done on paper, and widths that meet a given cost."""

from dataclasses import replace

import pytest

from autoseg.networks import NETWORKS
from autoseg.networks.cost import match_operations, measure_cost
from planners import AttentionStage
from tests.helpers.networks import small_unet

SPEC = small_unet(
    32, 64, 128, blocks=2, out_channels=3, attention=(AttentionStage(1, "slot", 2, 32), AttentionStage(2, "full", 2))
)
PATCH = (40, 56, 40)


@pytest.mark.thorough
def test_operations_of_a_small_unet_as_counted_on_paper():
    spec = replace(
        SPEC,
        features=(4, 8),
        strides=SPEC.strides[:2],
        kernels=SPEC.kernels[:2],
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
        deep_supervision=False,
        attention=(),
    )
    fine, coarse = 8**3, 4**3
    encoder = 27 * 1 * 4 * fine + 27 * 4 * 8 * coarse
    up = 8 * 8 * 4 * coarse  # each coarse voxel gives eight fine ones
    decoder = 27 * 8 * 4 * fine + 4 * 3 * fine
    assert measure_cost(spec, (8, 8, 8)).operations == 2 * (encoder + up + decoder)


QUICK = ("unet", "self_attention_unet", "fcn")  # the others build far larger ones


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS])
def test_widths_meet_the_operations_of_another_network_within_a_tenth(name):
    wanted = measure_cost(SPEC, PATCH).operations
    matched = match_operations(replace(SPEC, name=name), PATCH, wanted)
    assert measure_cost(matched, PATCH).operations == pytest.approx(wanted, rel=0.1)
    assert all(width % 8 == 0 for width in matched.features)
    if name == "unet":
        assert matched == SPEC


@pytest.mark.parametrize("scale", [0.3, 0.53, 0.8, 1.1, 1.27])
def test_scaled_widths_can_be_shared_by_the_heads(scale):
    attention = (AttentionStage(1, "slot", 4, 32), AttentionStage(2, "full", 4))
    scaled = replace(SPEC, name="self_attention_unet", attention=attention).scaled(
        scale
    )  # a spec refuses widths that the heads cannot share
    assert measure_cost(scaled, PATCH).operations > 0
