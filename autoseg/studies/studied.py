"""The record of a study, finished or not, and its summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.evaluation import Report
from autoseg.evaluation.study_findings import StudyFindings
from autoseg.reconstruct.components import LabelRule

__all__ = ["Studied", "StudyRecord"]


@dataclass(frozen=True, kw_only=True)
class StudyRecord(StudyFindings):
    """``study.json``: the findings, and what the next call of the study needs.

    Attributes:
        asked: the requested settings, as JSON; only a call with the same settings continues a study.
        rules: rules for components and holes.
    """

    asked: dict[str, Any]
    rules: tuple[LabelRule, ...] = ()


@dataclass(frozen=True)
class Studied:
    """A finished study: its ``folder``, its ``model``, and the report on the cross-validation of that model."""

    folder: Path
    model: Path
    record: StudyRecord
    comparison: str
    report: Report

    @property
    def failures(self) -> tuple[str, ...]:
        failed = [f"{name}: {reason}" for name, reason in self.record.failed.items()]
        return (*failed, *(f"{failure.case}: {failure.reason}" for failure in self.report.failures))

    def text(self) -> str:
        """The text of ``study.md``, without paths of this machine, because it is shared."""
        lines = [self.comparison, "## Decided", ""]
        lines += [f"- {one.what}: {one.chosen}. {one.rule}. {one.numbers}".rstrip(". ") for one in self.record.decisions]
        checks = [f"- {said}{'' if holds else '. This should not happen'}" for said, holds in self.record.checks]
        lines += ["", "## Held to", "", *checks] if checks else []
        lines += ["", f"## Cross-validated, as the model {self.model.name} predicts", "", self.report.table()]
        lines += ["## Calibration", "", self.record.calibration.table(), ""] if self.record.calibration else []
        return "\n".join(lines)

    def summary(self) -> str:
        return f"{self.text()}\nmodel: {self.model}\ntables and report: {self.folder}"
