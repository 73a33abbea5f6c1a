"""Listeners hear of each record, the example of the documents too, and none ends a training."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoseg.records import Validation
from autoseg.training import monitor

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "follow-a-training.md"
CHECK = Validation(step=10, seconds=2.0, fraction=0.5, validation_loss=0.25, patch_dice={"liver": 0.75, "tumour": None})


def example(module: str) -> dict[str, Any]:
    """The names of a module that the documents show, by the beginning of its docstring."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (code,) = (block for block in blocks if module in block.splitlines()[0])
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page
    return names


def heard(listen: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a listener hear of two checks, the second twice, as after an interruption; it must not fail."""
    folder.mkdir(parents=True)
    monkeypatch.setattr(monitor, "LISTENERS", {"tracker": listen})
    silent: set[str] = set()
    later = replace(CHECK, step=20, fraction=1.0, train_loss=0.125, patch_dice={"liver": 0.875, "tumour": 0.25})
    for check in (replace(CHECK, train_loss=0.5), later, later):
        monitor.tell_listeners(folder, check, silent)
    assert not silent


@pytest.mark.filterwarnings("ignore")  # of packages that are not ours
def test_the_example_of_tensorboard_draws_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: the example is for those who have it")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "runs" / "Abdomen" / "one" / "fold_0"
    heard(example("my_tensorboard.py")["listen"], folder, monkeypatch)
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in found.Scalars("Dice/liver")][:2] == [(10, 0.75), (20, 0.875)]
    assert [(one.step, one.value) for one in found.Scalars("Dice/tumour")][:1] == [(20, 0.25)]
    losses = EventAccumulator(str(folder / "tensorboard" / "loss_training")).Reload()
    assert [one.value for one in losses.Scalars("loss")][:2] == [0.5, 0.125]


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_mlflow_keeps_one_run_for_a_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: the example is for those who have it")
    folder, names = tmp_path / "runs" / "Abdomen" / "one" / "fold_0", example("my_mlflow.py")
    heard(names["listen"], folder, monkeypatch)
    names["opened"].cache_clear()  # as in the process that goes on after an interruption
    monitor.tell_listeners(folder, CHECK, set())
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("Abdomen")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "one, fold_0"
    history = client.get_metric_history(run.info.run_id, "Dice/liver")
    assert {(one.step, one.value) for one in history} == {(10, 0.75), (20, 0.875)}
    assert {one.value for one in client.get_metric_history(run.info.run_id, "loss/training")} == {0.5, 0.125}


def test_the_example_of_the_documents_tracks_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "LISTENERS", {"my_tracker": example("my_tracker.py")["listen"]})
    fold = tmp_path / "run" / "fold_0"
    fold.mkdir(parents=True)
    monitor.tell_listeners(fold, CHECK, set())
    lines = [json.loads(line) for line in (fold / "tracked.jsonl").read_text().splitlines()]
    about = {"run": "run", "fold": "fold_0", "step": 10}
    assert lines == [{**about, "structure": "liver", "dice": 0.75}, {**about, "structure": "tumour", "dice": None}]


def test_a_listener_that_fails_is_named_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[dict[str, Any]] = []

    def broken(folder: Path, record: dict[str, Any]) -> None:
        raise KeyError("no such metric")

    listeners = {"broken": broken, "sound": lambda folder, record: heard.append(record)}
    monkeypatch.setattr(monitor, "LISTENERS", listeners)
    silent: set[str] = set()
    for _ in range(3):
        monitor.tell_listeners(tmp_path, CHECK, silent)
    assert len(heard) == 3
    assert heard[0]["patch_dice"] == CHECK.patch_dice
    assert silent == {"broken"}
    assert [record.message for record in caplog.records] == [
        "the listener 'broken' failed and is not called again in this run: KeyError: 'no such metric'"
    ]
