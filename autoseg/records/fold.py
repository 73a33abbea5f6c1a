"""``fold.json`` and ``history.jsonl``: the task of a fold, its machine, and the course of its training.

Older versions wrote the same into ``run.json``, which is also the name of the record of a folder of predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.workspace import as_record, parse_json, read_json, write_json
from planners.plan import Decision, Plan
from planners.records import OPTIONAL, REST, RecordError, from_json, to_json

__all__ = [
    "FOLD_FILE",
    "Validation",
    "FoldRecord",
    "FoldTaskRecord",
    "as_recorded",
    "read_validations",
    "read_fold",
    "write_fold",
]

FOLD_FILE, OLDER_FILE = "fold.json", "run.json"


@dataclass(frozen=True)
class FoldTaskRecord:
    """The task of a training run.

    Attributes:
        plan, labels: of the data set, with the network that was trained.
        recipe: name -> value of every setting, including those of other versions.
        length: ``seconds`` or ``steps``; the other one is None.
        training, validation: identifiers of the cases.
        prepared_digest: digest of the prepared cases.
        start: digest of the model of the initial weights, or ''.
        more: additional fields of a newer version.
    """

    plan: Plan
    labels: LabelSchema
    recipe: dict[str, Any]
    length: dict[str, int | float | None]
    seed: int
    training: tuple[str, ...]
    validation: tuple[str, ...]
    prepared_digest: str = ""
    start: str = ""
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class FoldRecord:
    """A trained fold.

    Attributes:
        task: the task of the run.
        device: device that it was trained on.
        batch_size: patches in a batch, on that device.
        versions: of autoseg, python, torch, numpy and the system.
        memory_mib: peak memory of a session; None if unknown.
        transfer: the weights taken from the model it started from, as JSON; None if it started from random weights.
        decisions: what was settled for the device, the length and the data; empty in records of older versions.
        applied: changes to the network for the device, as JSON: number format and reason, memory order, convolutions computed
            by oneDNN; None in records of older versions.
    """

    task: FoldTaskRecord
    device: str = ""
    batch_size: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    memory_mib: int | float | None = None
    transfer: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    decisions: tuple[Decision, ...] = field(default=(), metadata=OPTIONAL)
    applied: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class Validation:
    """A line of the history: the progress of the run, and its scores on the validation patches.

    Attributes:
        step, seconds, fraction: progress of the run; ``fraction`` is of its length.
        train_loss, validation_loss: means; None if there was none.
        patch_dice: Dice of each structure; None if it is in no patch.
        learning_rate, momentum: at that step.
        cooldown: fraction at which the learning rate began to fall early, or None.
        more: additional fields of a newer version.
    """

    step: int
    seconds: float
    fraction: float = 0.0
    validation_loss: float | None = None
    patch_dice: dict[str, float | None] = field(default_factory=dict)
    cooldown: float | None = None
    train_loss: float | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


def as_recorded(task: Any) -> FoldTaskRecord:
    """The task of a training run, with settings and length as plain values."""
    return from_json(FoldTaskRecord, to_json(task), strict=False)


def write_fold(folder: Path, record: FoldRecord) -> None:
    """Write the record of the fold in ``folder``."""
    write_json(folder / FOLD_FILE, record)


def read_fold(folder: Path) -> FoldRecord | None:
    """The record of the fold in ``folder``, also of an older version; None if there is none.

    Raises:
        AutosegError: a damaged file.
    """
    path = next((folder / name for name in (FOLD_FILE, OLDER_FILE) if (folder / name).is_file()), None)
    found = read_json(path) if path else None
    if not isinstance(found, dict) or (path and path.name == OLDER_FILE and "task" not in found):
        return None
    return as_record(FoldRecord, found, path, strict=False)


def read_validations(path: Path) -> tuple[Validation, ...]:
    """The validations in a ``history.jsonl``. A last line that was cut off by a crash is left out."""
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            found.append(from_json(Validation, parse_json(line, path), strict=False))
        except (AutosegError, RecordError):
            break
    return tuple(found)
