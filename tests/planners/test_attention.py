"""Where planned networks attend."""

import json
from dataclasses import replace

import pytest

from planners import PRESETS, AttentionStage, Budget, NetworkSpec, Plan, count_operations, from_json, get_planner, to_json
from planners.attention import add_attention


def share(plan):
    backbone = replace(plan.network, attention=())
    return count_operations(plan.network, plan.patch_size) / count_operations(backbone, plan.patch_size) - 1


def test_small_patches_attend_from_stride_2_large_ones_from_stride_4(hippocampus, liver):
    small, large = (get_planner("fullres_3d").plan(data).network for data in (hippocampus, liver))
    assert small.attention == (AttentionStage(1, "slot", 1, 32), AttentionStage(2, "slot", 2, 32), AttentionStage(3, "full", 4))
    assert [(entry.stage, entry.kind) for entry in large.attention] == [(2, "slot"), (3, "full"), (4, "full"), (5, "full")]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["fullres_3d", "slices_2d"])
def test_attention_costs_at_most_a_twenty_fifth_of_the_backbone_and_is_explained(name, preset, hippocampus, liver):
    for data in (hippocampus, liver):
        plan = get_planner(name, preset).plan(data)
        assert plan.network.name == "self_attention_unet"
        assert plan.network.backbone == ("plain" if preset == "classic" else "residual")
        assert 0 < share(plan) <= 0.04
        (decision,) = [decision for decision in plan.decisions if decision.what == "self-attention"]
        assert f"together {share(plan):.2%}" in decision.numbers
        assert decision.chosen.count("stage") == len(plan.network.attention)


@pytest.mark.parametrize("preset", PRESETS)
def test_parity_mode_plans_without_attention(preset, liver):
    network = get_planner("fullres_3d", preset).plan(liver, Budget(parity=True)).network
    assert (network.name, network.attention) == (PRESETS[preset].network, ())


def test_any_width_that_can_be_shared_among_heads_attends():
    spec = NetworkSpec("unet", 1, 2, (9, 36, 25, 70), ((1, 1, 1),) + ((2, 2, 2),) * 3, ((3, 3, 3),) * 4, (2,) * 4, (2,) * 3)
    assert [entry.stage for entry in add_attention(spec, (32, 32, 32)).attention] == [1]
    wide = add_attention(replace(spec, features=(24, 48, 72, 200)), (32, 32, 32))
    assert {width // 2 // entry.heads for width, entry in zip((48, 72, 200), wide.attention, strict=True)} == {24, 18, 20}


def test_plans_from_before_there_was_attention_load(hippocampus):
    data = json.loads(json.dumps(to_json(get_planner("fullres_3d").plan(hippocampus, Budget(parity=True)))))
    del data["network"]["attention"], data["network"]["backbone"]
    assert from_json(Plan, data).network.name == "unet"
