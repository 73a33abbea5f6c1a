"""The step that prepares training cases: cases in, prepared cases on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.atomic import remove_leftovers
from autoseg.data.dataset import Case
from autoseg.data.labels import LabelSchema
from autoseg.data.scan import CaseScan
from autoseg.ledger import judge
from autoseg.names import plain_name
from autoseg.preprocess.case import prepare_case
from autoseg.preprocess.store import entry_of, is_whole, preparation_digest, store_case
from planners.plan import Plan

__all__ = ["Prepare", "case_digests"]

logger = logging.getLogger(__name__)


def case_digests(labels: LabelSchema, scans: Sequence[CaseScan], plan: Plan) -> dict[str, str]:
    """Case -> digest of everything that its prepared form depends on."""
    return {scan.case: preparation_digest(scan.digests, labels, plan, scan.unlabelled) for scan in scans}


@dataclass(frozen=True)
class Prepare:
    """Prepares cases of a data set with a plan. It needs no setup, so it is its own runner.

    Attributes:
        folder: parent of the folders of the cases.
        plan: how to prepare.
        labels: meaning of the label values.
        digests: as from ``case_digests``.
    """

    folder: Path
    plan: Plan
    labels: LabelSchema
    digests: dict[str, str]

    def is_done(self, case: Case, *, look: bool = False) -> bool:
        """Whether the case exists and was made from the same inputs; with ``look`` also whether every byte is valid."""
        folder = self.folder / case.id
        remove_leftovers(folder)  # left by a kill right after the case was complete

        def is_sound() -> bool:
            if not look or is_whole(folder):
                return True
            logger.warning("%s: the prepared case was damaged and is prepared again", case.id)
            return False

        return judge(entry_of(folder), self.digests[case.id], is_sound).done

    def setup(self) -> Prepare:
        return self

    def run(self, case: Case) -> None:
        """Read, prepare and store a case; an existing one is replaced."""
        target = self.folder / plain_name(case.id, what="case")
        store_case(target, prepare_case(case, self.labels, self.plan), self.digests[case.id])
