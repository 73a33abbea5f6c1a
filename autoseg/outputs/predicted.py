"""The result of a call of ``predict``, and its summary."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch, which scores need not, and what scores, which predictions need not
    from autoseg.evaluation import Report
    from autoseg.inference.cohort import CohortResult

__all__ = ["Predicted", "all_failures", "failures_of"]


@dataclass(frozen=True)
class Predicted:
    """The result of a prediction: outcomes of all cases, and the report if there was a reference.

    ``failures`` are sentences about cases that could not be predicted or scored; ``borders`` is a sentence about how surfaces
    of neighbours fit together, '' without surfaces that touch. If ``shards`` is above 1, these are the results of one of them.
    """

    folder: Path
    done: int
    skipped: int
    failures: tuple[str, ...]
    seconds: float
    report: Report | None = None
    borders: str = ""
    shards: int = 1

    def summary(self) -> str:
        lines = [f"{self.done} predicted, {self.skipped} were done already, {len(self.failures)} failed, {self.seconds:.1f} s"]
        lines += [f"failed: {failure}" for failure in self.failures]
        lines += [self.borders] if self.borders else []
        if self.report is not None:
            lines += ["", self.report.table()]
        lines += [f"results: {self.folder}"]
        if self.shards > 1:
            lines += [f"once all {self.shards} shards are done, combine them: autoseg report {shlex.quote(str(self.folder))}"]
        return "\n".join(lines)


def all_failures(done: CohortResult, report: Report | None) -> tuple[str, ...]:
    """All failures, each case once: a case without a prediction also has no score."""
    return _sentences(_unscored(report) | dict(done.failures))


def failures_of(report: Report | None) -> tuple[str, ...]:
    """Cases that could not be scored, as sentences."""
    return _sentences(_unscored(report))


def _unscored(report: Report | None) -> dict[str, str]:
    return {failure.case: f"not scored: {failure.reason}" for failure in (report.failures if report else ())}


def _sentences(messages: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{case}: {message}" for case, message in messages.items())
