"""Listeners hear of each record, the example of the documents too, and none ends a training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from autoseg.records import Check
from autoseg.training import monitor

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "follow-a-training.md"
CHECK = Check(step=10, seconds=2.0, fraction=0.5, validation_loss=0.25, patch_dice={"liver": 0.75, "tumour": None})


def test_the_example_of_the_documents_tracks_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page
    monkeypatch.setattr(monitor, "LISTENERS", {"my_tracker": names["listen"]})
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
