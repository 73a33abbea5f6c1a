"""A study that has ended, or goes on: its record, and what is told of it."""

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
    """``study.json``: what was found, and what only the next call of the study asks for.

    Attributes:
        asked: what was asked for, as JSON; a study is gone on with only by a call that asks for the same.
        rules: for pieces and holes.
    """

    asked: dict[str, Any]
    rules: tuple[LabelRule, ...] = ()


@dataclass(frozen=True)
class Studied:
    """A study that has ended: its ``folder``, the ``model`` that it left, and the report on that model's cross-validation."""

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
        """What ``study.md`` says, without folders of this machine: it is handed on."""
        lines = [self.comparison, "Decided:", ""]
        lines += [f"- {one.what}: {one.chosen}. {one.rule}. {one.numbers}".rstrip(". ") for one in self.record.decisions]
        checks = [f"- {said}{'' if holds else '. This should not happen'}" for said, holds in self.record.checks]
        lines += ["", "Held to:", "", *checks] if checks else []
        lines += ["", f"Cross-validated, as the model {self.model.name} predicts:", "", self.report.table()]
        lines += [self.record.calibration.table(), ""] if self.record.calibration else []
        return "\n".join(lines)

    def summary(self) -> str:
        return f"{self.text()}\nmodel: {self.model}\ntables and report: {self.folder}"
