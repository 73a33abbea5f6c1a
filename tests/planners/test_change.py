"""Another network in a finished plan."""

from dataclasses import replace

import pytest

from planners import Plan, count_elements, from_json, get_planner, to_json, with_network
from planners.change import CHANGED


def decisions_about(plan, what):
    return [decision for decision in plan.decisions if decision.what == what]


def decision_of(plan):
    (decision,) = decisions_about(plan, CHANGED)
    return decision


def test_the_plans_own_network_changes_nothing(hippocampus):
    plan = get_planner("fullres_3d").plan(hippocampus)
    assert with_network(plan, "self_attention_unet") == plan


def test_the_patch_stays_and_the_new_network_is_counted(hippocampus):
    plan = get_planner("fullres_3d").plan(hippocampus)
    changed = with_network(plan, "unet_plus_plus")
    assert (changed.patch_size, changed.batch_size) == (plan.patch_size, plan.batch_size)
    assert changed.memory_elements == count_elements(changed.network, plan.patch_size) > plan.memory_elements
    assert changed.network.attention == ()
    assert not decision_of(changed).warning
    assert from_json(Plan, to_json(changed)) == changed


def test_residual_networks_have_residual_depth_and_plain_ones_plain_depth(hippocampus):
    classic, residual = (get_planner("fullres_3d", preset).plan(hippocampus) for preset in ("classic", "m"))
    for name in ("residual_unet", "deeplabv3", "pspnet"):
        network = with_network(classic, name).network
        assert (network.encoder_blocks, network.decoder_blocks) == ((1, 3, 4, 6), (1, 1, 1))
    assert with_network(residual, "residual_unet").network.encoder_blocks == residual.network.encoder_blocks
    for name in ("unet", "fcn", "segnet"):
        network = with_network(residual, name).network
        assert (network.encoder_blocks, network.decoder_blocks) == ((2, 2, 2, 2), (2, 2, 2))


def test_edited_blocks_are_kept_by_a_network_of_the_same_kind(hippocampus):
    plan = get_planner("fullres_3d").plan(hippocampus)
    edited = replace(plan, network=replace(plan.network, encoder_blocks=(1, 1, 2, 3)))
    assert with_network(edited, "unet").network.encoder_blocks == (1, 1, 2, 3)


@pytest.mark.thorough
@pytest.mark.parametrize(("preset", "name"), [("classic", "unet"), ("m", "residual_unet")])
def test_there_and_back_is_where_one_was(preset, name, liver):
    plan = get_planner("fullres_3d", preset).plan(liver)
    back = with_network(with_network(plan, name), "self_attention_unet")
    assert (back.network, back.memory_elements, back.batch_size) == (plan.network, plan.memory_elements, plan.batch_size)


def test_the_decision_about_attention_goes_and_comes_with_it(hippocampus):
    plan = get_planner("fullres_3d").plan(hippocampus)
    without = with_network(plan, "unet")
    assert decisions_about(without, "self-attention") == []
    assert len(without.decisions) == len(plan.decisions)  # one left, one came
    back = with_network(without, "self_attention_unet")
    assert decisions_about(back, "self-attention") == decisions_about(plan, "self-attention") != []


def test_a_network_too_large_for_the_batch_gets_a_smaller_one_and_for_the_card_a_warning(liver):
    slices = get_planner("slices_2d").plan(liver)
    smaller = with_network(slices, "unet_plus_plus")
    assert 1 < smaller.batch_size < slices.batch_size
    assert smaller.memory_elements * smaller.batch_size <= 12 * 85e6
    assert not decision_of(smaller).warning
    plan = get_planner("fullres_3d").plan(liver)
    huge = with_network(plan, "unet_plus_plus")
    assert huge.batch_size == 1
    assert decision_of(huge).warning
    assert "--memory-gb" in decision_of(huge).rule
    assert huge.patch_size == plan.patch_size
