"""Write a data set: the files of every case, then its description; the journal lists finished files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.conversion.description import Description
from autoseg.data.conversion.parts import Combination, Part, make_part, parts_of
from autoseg.data.layouts.reading import SeenCase
from autoseg.engines import LocalEngine, Outcome, reason_of
from autoseg.errors import DatasetError
from autoseg.ledger import Journal, Line, remove_outputs
from autoseg.names import counted
from autoseg.options import Runtime
from autoseg.workspace import read_json, write_json
from planners.records import to_json

__all__ = ["Made", "write_dataset"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """Cases by part, files written, files that existed, and sentences about cases that could not be written."""

    training: int
    test: int
    written: int
    kept: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class WriteCase:
    """The step that makes the files of a case."""

    parts: Mapping[str, Sequence[Part]]
    journal: Journal
    mode: str

    def setup(self) -> WriteCase:
        return self

    def run(self, case: SeenCase) -> list[tuple[Line, bool]]:
        """(entry, whether it is new) of each file."""
        return [make_part(part, self.journal, self.mode) for part in self.parts[case.case.id] if part.target]


def write_dataset(
    about: Description, journal: Journal, good: Sequence[SeenCase], values: Mapping[Combination, int], runtime: Runtime
) -> Made:
    """Write all files of a data set.

    Args:
        values: {combination of structures: label value} where structures come in separate files.

    Raises:
        DatasetError: no case could be written.
    """
    parts = {case.case.id: parts_of(case, about.ending, values, about.mode) for case in good}
    journal.begin()
    has_files = any(part.target for group in parts.values() for part in group)
    shown = runtime.progress("write", len(good)) if has_files else lambda outcome: None

    def done(outcome: Outcome) -> None:
        if outcome.error is None:
            journal.append(entry for entry, is_new in outcome.value if is_new)
        shown(outcome)

    step = WriteCase(parts, journal, about.mode)
    outcomes = LocalEngine(runtime.workers).map(step, good, name=lambda case: case.case.id, on_done=done)
    failures = tuple(f"{outcome.name}: {reason_of(outcome.error)}" for outcome in outcomes if outcome.error is not None)
    whole = [case.case for case, outcome in zip(good, outcomes, strict=True) if outcome.error is None]
    if not any(case.part != "test" for case in whole):
        raise DatasetError(f"{about.folder}: no case could be written\n  " + "\n  ".join(failures))
    entries = [entry for outcome in outcomes for entry in outcome.value or ()]
    stays = {"dataset.json", "splits.json", *(entry.file for entry, _ in entries)}
    remove_outputs(about.folder, {file: entry.digest for file, entry in journal.entries.items() if file not in stays})
    if copied := sum(entry.how == "copied" for entry, _ in entries) * (about.mode == "link"):
        logger.info("%s copied, because they cannot be linked from where they are", counted(copied, "file"))
    _write_json(journal, "dataset.json", about.of(whole, parts))
    if any(case.part == "val" for case in whole):
        _write_json(journal, "splits.json", [{p: sorted(c.id for c in whole if c.part == p) for p in ("train", "val")}])
    journal.end({*(entry.file for entry, _ in entries), *({"dataset.json", "splits.json"} & set(journal.entries))})
    training = sum(case.part != "test" for case in whole)
    new = [is_new for _, is_new in entries]
    return Made(training, len(whole) - training, sum(new), new.count(False), failures)


def _write_json(journal: Journal, name: str, value: Any) -> None:
    """Write a JSON file of the data set; a file edited since is left unchanged."""
    path: Path = journal.path.parent / name
    is_same = path.is_file() and read_json(path) == to_json(value)  # killed before the record was written
    if journal.is_edited(name) and not is_same:
        logger.warning("%s was edited and stays as it is", path)
        return
    write_json(path, value)
    journal.append([journal.entry(name, "", how="written")])
