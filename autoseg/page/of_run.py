"""The page of a fold of a training run, from what lies in its folder and in its workspace."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TypeVar

from autoseg.data.dataset import Case, read_dataset
from autoseg.data.findings import Finding
from autoseg.data.labelmaps import label_maps
from autoseg.errors import AutosegError
from autoseg.evaluation.report import REPORT_FILE, read_report
from autoseg.evaluation.restored import RESTORED_FILE, RestorationResult
from autoseg.page.page import Page
from autoseg.page.runs import RunRecord
from autoseg.page.sources import case_at, named_folders
from autoseg.records import FoldRecord, read_checks
from autoseg.workspace import read_json, read_record
from planners.fingerprint import Fingerprint
from planners.records import from_json

__all__ = ["page_of_run"]

Record = TypeVar("Record")


def page_of_run(folder: Path, fold: FoldRecord) -> Page:
    """The Page of a fold: the training, its data set, and the cases that it held back."""
    plan, workspace, results = fold.task.plan, folder.absolute().parents[3], folder / "validation"
    about = workspace / "fingerprints" / plan.dataset
    home = read_json(about / "dataset.json").get("folder") if (about / "dataset.json").is_file() else None
    scored = read_report(results / REPORT_FILE) if (results / REPORT_FILE).is_file() else None
    known = _cases_of_dataset(home, set(fold.task.validation))
    cases = []
    guesses = label_maps(results) if scored else {}
    for name in fold.task.validation if scored else ():
        case = known.get(name)
        cases.append(case_at(name, results, case.images if case else (), case.label if case else None, guesses.get(name)))
    run = RunRecord(
        fold=fold,
        history=read_checks(folder / "history.jsonl"),
        fingerprint=_if_there(Fingerprint, about / "fingerprint.json"),
        findings=_findings(about / "findings.json"),
        restoration=_if_there(RestorationResult, results / RESTORED_FILE),
    )
    return Page(
        title=f"{plan.dataset}: {plan.name}, {plan.network.name}, {folder.name.replace('_', ' ')}",
        labels=fold.task.labels,
        report=scored,
        cases=tuple(cases),
        run=run,
        folders=named_folders([folder, workspace, *([home] if home else [])], scored),
    )


def _if_there(cls: type[Record], path: Path) -> Record | None:
    """The record in a file; None where there is no such file."""
    return read_record(cls, path, strict=False) if path.is_file() else None


def _findings(path: Path) -> tuple[Finding, ...]:
    found = read_json(path) if path.is_file() else []
    return tuple(from_json(Finding, one, str(path), strict=False) for one in found)


def _cases_of_dataset(folder: str | None, names: Set[str]) -> dict[str, Case]:
    """{name: Case} of the data set, {} where it has gone."""
    try:
        return {case.id: case for case in read_dataset(Path(folder)).training if case.id in names} if folder else {}
    except AutosegError:
        return {}
