"""Preparing as a step: training cases in, prepared cases on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.data.dataset import Case
from autoseg.data.labels import LabelSchema
from autoseg.names import plain_name
from autoseg.preprocess.case import prepare_case
from autoseg.preprocess.store import is_stored, store_case
from planners.plan import Plan

__all__ = ["Prepare"]


@dataclass(frozen=True)
class Prepare:
    """Prepares cases of a data set by a plan; needs nothing to be set up, so it is its own runner.

    Attributes:
        folder: where a folder for each case is made.
        plan: how.
        labels: what the label values mean.
        digests: case -> digest of all that it is made from.
    """

    folder: Path
    plan: Plan
    labels: LabelSchema
    digests: dict[str, str]

    def is_done(self, case: Case) -> bool:
        """Whether the case lies there, made from the same."""
        return is_stored(self.folder / case.id, self.digests[case.id])

    def setup(self) -> Prepare:
        return self

    def run(self, case: Case) -> None:
        """Read, prepare and store a case; one that lies there is replaced."""
        target = self.folder / plain_name(case.id, what="case")
        store_case(target, prepare_case(case, self.labels, self.plan), self.digests[case.id])
