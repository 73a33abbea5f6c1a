"""Lanes of folds: what they say, and what becomes of the others where one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autoseg.cli import _parser
from autoseg.cli.flags import options_from
from autoseg.errors import TrainingError
from autoseg.options import Runtime, TrainingOptions, TrainOptions
from autoseg.studies import side_by_side
from autoseg.studies.lanes import lanes_of
from autoseg.studies.process import train_words
from autoseg.studies.side_by_side import train_side_by_side
from autoseg.workspace import Workspace

SAID = [
    ["3 decisions", "fold 0: 50% step 1", "warning: fold 2: short of memory"],
    ["fold 1: 50% step 1", "TrainingError: fold 1 is not a number"],
]


def test_what_lanes_say_is_told_apart_and_a_lane_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commands: list[Sequence[str]] = []

    def run(words: Sequence[Sequence[str]], *, on_line: Callable[[int, str], object]) -> list[int]:
        commands.extend(words)
        for number, lines in enumerate(SAID):
            for line in lines:
                on_line(number, line)
        return [0, 2]

    monkeypatch.setattr(side_by_side, "run_commands", run)
    caplog.set_level("INFO", "autoseg")
    about: Any = SimpleNamespace(
        spec=SimpleNamespace(folder=tmp_path / "raw"), folder=tmp_path / "runs" / "one", tasks=dict.fromkeys("012")
    )
    lanes = lanes_of("012", ("cpu",), 2, 2)
    with pytest.raises(TrainingError, match="fold 1: TrainingError: fold 1 is not a number") as told:
        train_side_by_side(about, lanes, Workspace(tmp_path), TrainOptions(start="other"), Runtime(workers=2))
    assert "the same command goes on" in str(told.value)
    assert "folds 0, 2" not in str(told.value)
    assert caplog.messages[1:] == [
        "folds 0, 2: 3 decisions",
        "fold 0: 50% step 1",
        "fold 2: short of memory",
        "fold 1: 50% step 1",
        "fold 1: TrainingError: fold 1 is not a number",
    ]
    assert [record.levelname for record in caplog.records[1:4]] == ["INFO", "INFO", "WARNING"]
    first = " ".join(map(str, commands[0]))
    for words in ("train", "0,2", "--threads 1", "--name one", "--from other", "--workers 2", "--device cpu", "--no-report"):
        assert words in first
    assert "--at-once" not in first


def test_every_option_of_a_training_is_handed_on() -> None:
    training = TrainingOptions(plan="flat", iterations=5, recipe="parity", settings=(("batch_size", 3),), seed=7)
    options = TrainOptions("fcn", training, name="one", start="other", unseen=True, at_once=0, threads=2, report=False)
    timed = replace(options, at_once=3, training=replace(training, iterations=None, seconds=90.0))
    for asked in (options, timed):
        words = train_words(Path("/raw"), ("0", "3"), Workspace(Path("/place")), asked, "cpu", 4)
        args = _parser(words).parse_args(words)
        assert options_from(args, TrainOptions()) == asked
        assert options_from(args, Runtime()) == Runtime(device="cpu", workers=4)
        assert (args.dataset, args.fold, args.workspace) == ("/raw", "0,3", "/place")
    default, own = TrainOptions(), ("dry_run", "explain", "groups")  # of the process that starts the others
    assert {field.name for field in fields(options) if getattr(options, field.name) == getattr(default, field.name)} == set(own)
    left = [field.name for field in fields(training) if getattr(training, field.name) == getattr(default.training, field.name)]
    assert left == ["seconds"]
