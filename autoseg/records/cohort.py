"""``run.json`` of a folder of predictions: model, options, and the outcome of each case."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg.data.labels import LabelSchema
from autoseg.workspace import read_record
from planners.records import OPTIONAL

__all__ = ["COHORT_FILE", "CaseOutcome", "CohortRecord", "ModelName", "cohort_files", "read_cohort", "read_shards"]

COHORT_FILE = "run.json"


@dataclass(frozen=True)
class CaseOutcome:
    """The outcome of a case: ``status`` is done, skipped (already done) or failed, with the reason as ``message``.

    ``outputs`` are digests by file name; ``seconds`` is the time by step of the prediction; ``warnings`` say why it should be
    reviewed; ``windows`` is (computed, of): windows computed by the networks, and all windows, also of a skipped case; zeros if
    not counted. ``device`` and ``precision`` are those of the networks. ``trained_on`` are the folds that were used and had the
    scan among their training cases, if the model records these.
    """

    case: str
    status: str
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    precision: str = ""
    warnings: tuple[str, ...] = ()
    windows: tuple[int, int] = (0, 0)
    trained_on: tuple[str, ...] = field(default=(), metadata=OPTIONAL)


@dataclass(frozen=True)
class ModelName:
    """Name of the file or folder that a model was loaded from (in older versions its path), and the digest of the model.

    ``about`` describes the model, a ``ModelAbout`` as JSON; {} in older records.
    """

    name: str = ""
    digest: str = ""
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CohortRecord:
    """One call of ``autoseg predict``, or one shard of it.

    Attributes:
        made_by: the command.
        versions: of python, torch and autoseg, and others if known.
        model: the model; ``labels`` are its structures.
        options: everything that a result depends on except model and scan, as JSON.
        shard: (number, count).
        shards: number of shards whose records were merged; 0 for a single command.
        device, precision: device and number format of the networks.
        windows: windows ``computed`` in this call, and the number they are ``of``.
        seconds: duration of the call.
        failures: case -> reason.
        cases: outcomes in order.
    """

    made_by: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    model: ModelName = ModelName()
    labels: LabelSchema | None = None
    options: dict[str, Any] = field(default_factory=dict)
    shard: tuple[int, int] = (0, 1)
    shards: int = 0
    device: str = ""
    precision: str = ""
    windows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    cases: tuple[CaseOutcome, ...] = ()


def read_cohort(folder: Path) -> CohortRecord:
    """The record of a folder of predictions; an empty record if there is none.

    Raises:
        AutosegError: a damaged file.
    """
    path = folder / COHORT_FILE
    return read_record(CohortRecord, path, strict=False) if path.is_file() else CohortRecord()


def cohort_files(folder: Path) -> tuple[Path, ...]:
    """``run.json``, else the records of the shards; () if there are none."""
    whole = folder / COHORT_FILE
    return (whole,) if whole.is_file() else tuple(sorted(folder.glob("run_*_of_*.json")))


def read_shards(folder: Path) -> CohortRecord:
    """As ``read_cohort``; for a folder written by shards, their merged record.

    Raises:
        AutosegError: a damaged file.
    """
    found = [read_record(CohortRecord, path, strict=False) for path in cohort_files(folder)]
    if not found:
        return CohortRecord()
    failures = {case: why for one in found for case, why in one.failures.items()}
    return replace(found[0], cases=tuple(case for one in found for case in one.cases), failures=failures)
