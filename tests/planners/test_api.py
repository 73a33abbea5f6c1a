import subprocess
import sys

import pytest

import planners
from planners import PLANNERS, PRESETS, Budget, Plan, from_json, get_planner, plan_all, to_json


def test_every_public_name_is_there():
    assert all(hasattr(planners, name) for name in planners.__all__)


def test_planning_needs_numpy_and_the_standard_library_only():
    code = (
        "import sys, numpy; before = set(sys.modules); import planners; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - {'planners', 'numpy'}; "
        "print(sorted(name for name in new if name not in sys.stdlib_module_names))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_wrong_planner_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no planner called 'full_3d'. Known: .*fullres_3d, lowres_3d, slices_2d"):
        get_planner("full_3d")


def test_a_wrong_preset_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no preset called 'xxl'. Known: classic, l, m, xl"):
        get_planner("fullres_3d", "xxl")


def test_a_budget_without_memory_is_refused(hippocampus):
    with pytest.raises(ValueError, match="gpu_memory_gb must be positive, found 0"):
        get_planner("fullres_3d").plan(hippocampus, Budget(gpu_memory_gb=0))


@pytest.mark.thorough
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_explains_every_choice_and_survives_json(name, preset, liver):
    plan = get_planner(name, preset).plan(liver)
    topics = " ".join(decision.what for decision in plan.decisions)
    for topic in ("spacing", "axis order", "patch", "network", "batch size", "normalisation of 'CT'", "mirroring"):
        assert topic in topics
    assert all(decision.chosen and decision.rule for decision in plan.decisions)
    assert plan.explain().count("because") >= len(plan.decisions)
    assert from_json(Plan, to_json(plan)) == plan
    assert (plan.name, plan.planner, plan.preset) == (name, name, preset)


@pytest.mark.thorough
def test_small_scans_get_no_lowres_plan_and_large_ones_do(hippocampus, liver):
    assert [plan.name for plan in plan_all(hippocampus)] == ["fullres_3d", "slices_2d"]
    assert [plan.name for plan in plan_all(liver)] == ["fullres_3d", "lowres_3d", "slices_2d"]
    full, low, _ = plan_all(liver)
    assert full.batch_dice
    assert not low.batch_dice


def test_2d_data_get_a_2d_plan_only(fingerprint_of):
    photographs = fingerprint_of([((999, 1, 1), (1, 700, 500), 30)], ("rgb_to_0_1",) * 3)
    assert [plan.name for plan in plan_all(photographs)] == ["slices_2d"]
    plan = get_planner("fullres_3d").plan(photographs)
    assert plan.patch_size[0] == 1
    assert any(decision.warning and "2D" in decision.what for decision in plan.decisions)


def test_a_lowres_plan_that_does_not_pay_off_says_so(hippocampus):
    plan = get_planner("lowres_3d").plan(hippocampus)
    assert any(decision.warning and decision.what == "low resolution" for decision in plan.decisions)
    assert plan.patch_size == get_planner("fullres_3d").plan(hippocampus).patch_size


def test_a_planner_of_ones_own_needs_one_line(monkeypatch, hippocampus):
    monkeypatch.setitem(PLANNERS, "mine", lambda fingerprint, budget, preset: (preset.name, len(fingerprint.cases)))
    assert get_planner("mine", "l").plan(hippocampus) == ("l", 260)
