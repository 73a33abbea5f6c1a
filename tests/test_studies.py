"""The networks of a comparison: settled and counted as they are trained, each in a process of its own."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from autoseg.data.labels import LabelSchema
from autoseg.data.splits import Split
from autoseg.errors import PlanError, TrainingError
from autoseg.evaluation import write_report
from autoseg.evaluation.report import summarise
from autoseg.networks import build_network
from autoseg.networks.cost import measure_cost
from autoseg.options import Runtime
from autoseg.studies import comparison, process, ready
from autoseg.studies.compared_run import ComparisonSetup, compared_run
from autoseg.studies.method import is_finished
from autoseg.studies.ready import Ready
from autoseg.training.checkpoint import LoopState, save_checkpoint
from autoseg.training.length import Length
from autoseg.training.recipe import Recipe
from autoseg.workspace import Workspace
from planners import AttentionStage, ChannelStats, Fingerprint, count_elements, get_planner, with_network
from planners.records import digest

LABELS = LabelSchema(("organ",), ((1,),), False, (1,))


@pytest.fixture
def setup(tmp_path):
    """A plan that fills its card to the last element."""
    fingerprint = Fingerprint(
        dataset="phantom",
        cases=("a", "b"),
        shapes=((20, 24, 22),) * 2,
        spacings_mm=((1.0, 1.0, 1.0),) * 2,
        channels=(ChannelStats("CT", 100.0, 99.0, 20.0, 0.0, 300.0, 10.0, 210.0),),
        structures=("organ",),
        n_labels=2,
    )
    plan = get_planner("fullres_3d").plan(fingerprint)
    features = (16,) * len(plan.network.features)
    network = replace(plan.network, features=features, attention=(AttentionStage(1, "full", 2),))
    plan = replace(plan, network=network, preset="another card", batch_size=8, memory_elements=1)
    spec = SimpleNamespace(name="Abdomen", folder=tmp_path, labels=LABELS)
    return ComparisonSetup(
        ready=Ready(spec, plan, (), tmp_path / "prepared"),
        cases_digest="",
        voxels=100_000,
        fold="0",
        split=Split((), ()),
        recipe=Recipe(cpu_batch_size=None),
        recipe_words=(),
        workspace=Workspace(tmp_path / "workspace"),
        length=Length(steps=2),
        seed=0,
        device=torch.device("cpu"),
        runtime=Runtime(),
    )


def with_plan(setup, **changes):
    return replace(setup, ready=replace(setup.ready, plan=replace(setup.ready.plan, **changes)))


def test_a_process_that_crashed_is_told_from_one_with_failed_cases(setup, monkeypatch):
    def crash(words, on_line):
        for line in ("Traceback (most recent call last):", "  File 'x.py', line 1", "ValueError: it broke"):
            on_line(line)
        return 1

    monkeypatch.setattr(process, "run_command", crash)
    with pytest.raises(TrainingError, match=r"^ValueError: it broke$"):
        process.train_apart(setup, compared_run(setup, "unet"))


def test_a_network_is_trained_with_the_batch_that_fits_it(setup, monkeypatch):
    """The plan's own network keeps its batch of 8, another one takes 1."""
    calls = []
    monkeypatch.setattr(process, "run_command", lambda words, **options: calls.append(" ".join(map(str, words))) or 0)
    for name in ("self_attention_unet", "unet"):
        process.train_apart(setup, compared_run(setup, name))
    assert "--set batch_size=8" in calls[0]
    assert "--set batch_size=1" in calls[1]


def test_a_network_made_wider_to_match_has_the_batch_that_fits_it(setup):
    setup = with_plan(setup, memory_elements=2**40)  # a card on which the plan's batch has room
    planned = with_network(setup.ready.plan, "fcn")  # of which 8 fit
    plain = compared_run(setup, "fcn")
    wide = compared_run(setup, "fcn", 16 * plain.cost.operations)  # four times as wide, or twice as wide as planned
    assert wide.cost.operations == pytest.approx(16 * plain.cost.operations, rel=0.2)
    elements = count_elements(wide.training.plan.network, setup.ready.plan.patch_size)
    assert plain.training.batch_size == planned.batch_size == 8
    assert wide.training.batch_size == 8 * planned.memory_elements // elements == 4


@pytest.mark.parametrize("name", ["unet", "fcn"])
def test_the_cost_is_that_of_the_network_that_is_trained_with_the_head_that_restores(setup, name):
    plain = compared_run(setup, name)
    restoring = compared_run(replace(setup, recipe=replace(setup.recipe, restoration_weight=0.1)), name)
    network = build_network(restoring.task.plan.network)
    head = sum(parameter.numel() for parameter in network.restoration.parameters())
    assert head > 0
    assert restoring.cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert restoring.cost.parameters == plain.cost.parameters + head
    assert restoring.cost.operations > 1.5 * plain.cost.operations
    assert measure_cost(restoring.training.plan.network, setup.ready.plan.patch_size) == restoring.cost


def test_a_run_is_finished_only_where_it_is_this_very_training(setup, tmp_path):
    run = replace(compared_run(setup, "fcn"), folder=tmp_path)
    (tmp_path / "validation").mkdir()
    write_report(summarise([], LABELS), tmp_path / "validation")
    (tmp_path / "report.html").touch()
    for identity, finished in ((digest(run.task), True), ("settled by another rule", False)):
        state = LoopState(identity=identity, steps_expected=2, bf16=False, finished=True)
        save_checkpoint(tmp_path / "checkpoint.safetensors", state, torch.nn.Linear(1, 1), {}, [])
        assert is_finished(run) is finished


def test_a_run_that_was_killed_between_its_scores_and_its_page_is_not_finished(setup, tmp_path):
    run = replace(compared_run(setup, "fcn"), folder=tmp_path)
    (tmp_path / "validation").mkdir()
    state = LoopState(identity=digest(run.task), steps_expected=2, bf16=False, finished=True)
    save_checkpoint(tmp_path / "checkpoint.safetensors", state, torch.nn.Linear(1, 1), {}, [])
    write_report(summarise([], LABELS), tmp_path / "validation")
    assert not is_finished(run)
    (tmp_path / "report.html").touch()
    assert is_finished(run)
    (tmp_path / ".writing-x").mkdir()  # else it would stay for ever
    assert not is_finished(run)


def test_a_first_training_looks_through_the_data_and_prepares_them_once(setup, tmp_path, monkeypatch):
    planned = SimpleNamespace(plan=setup.ready.plan, scans=(), failures=())
    monkeypatch.setattr(ready, "plan_and_prepare", lambda *args: planned)
    for again in ("look_through", "prepare"):
        monkeypatch.setattr(ready, again, lambda *args, **named: pytest.fail("done by the planning already"))
    found = ready.ready_to_train(setup.ready.spec, Workspace(tmp_path / "none"), None, Runtime())
    assert found.plan == setup.ready.plan


def test_networks_that_cannot_be_trained_are_told_before_the_first_is_trained(setup, monkeypatch, caplog):
    def settle(one, name, operations=None):
        if name != "unet":
            raise PlanError(f"no room for {name}")
        return compared_run(one, name, operations)

    def train(one, run):
        told.append((run.name, [f"{name}: failed: no room for {name}" in caplog.text for name in ("fcn", "segnet")]))
        raise TrainingError("stopped")

    told = []
    monkeypatch.setattr(comparison, "compared_run", settle)
    monkeypatch.setattr(comparison, "train_apart", train)
    found = comparison.train_all(setup, ["unet", "fcn", "segnet"], [0], match=False)
    assert told == [("unet", [True, True])]
    assert found.failed == {"fcn": "no room for fcn", "segnet": "no room for segnet", "unet": "stopped"}
