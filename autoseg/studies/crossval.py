"""One report over all cases of several folds, each scored by the fold that did not train on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.data.labels import LabelSchema
from autoseg.errors import FileError
from autoseg.evaluation import Report, summarise, write_report
from autoseg.evaluation.calibration import CALIBRATION, Calibration, calibrate, together
from autoseg.evaluation.folder import completed_notes, lasting_notes
from autoseg.evaluation.groups import Groups
from autoseg.outputs.calibration import read_samples
from autoseg.studies.fold import FoldResult, Run
from autoseg.workspace import write_json

__all__ = ["CROSS_VALIDATION", "CrossValidation", "cross_validate", "merge_reports"]

logger = logging.getLogger(__name__)

CROSS_VALIDATION = "cross_validation"


@dataclass(frozen=True)
class CrossValidation:
    """The report on the validation cases of several ``folds``, in ``folder`` as tables and as HTML.

    ``calibration`` is the effect of a temperature; None unless voxels of at least two folds are stored.
    """

    folder: Path
    folds: tuple[str, ...]
    report: Report
    calibration: Calibration | None = None

    def summary(self) -> str:
        about = f"folds {', '.join(self.folds)} together, each case scored by the fold that did not see it:"
        calibrated = f"\n{self.calibration.table()}\n" if self.calibration else ""
        return f"{about}\n\n{self.report.table()}{calibrated}\ncross-validated metrics: {self.folder}"


def cross_validate(run: Run, results: Sequence[FoldResult], groups: Groups) -> CrossValidation:
    """Merge the reports of finished folds, and write the merged report.

    Args:
        results: of two or more folds with validation cases. A case in several folds, as custom splits may have, counts in
            the first.
        groups: groups of cases, for a separate table.
    """
    report = replace(merge_reports([one.report for one in results if one.report is not None]), groups=groups)
    folder = run.folder / CROSS_VALIDATION
    write_report(report, folder, fresh=run.runtime.fresh)
    found = _calibrated(results, run.spec.labels)
    if found:
        write_json(folder / CALIBRATION, found)
    return CrossValidation(folder, tuple(one.fold for one in results), report, found)


def _calibrated(results: Sequence[FoldResult], labels: LabelSchema) -> Calibration | None:
    """The calibration from the voxels that the predictions of each fold stored."""
    folds = {}
    try:
        for one in results:
            cases = one.report.cases if one.report else ()
            drawn = [read_samples(one.folder / "validation", case, labels) for case in cases]
            if sum(len(samples.logits) for samples in drawn):
                folds[one.fold] = together(drawn)
    except FileError as fault:  # predictions of an earlier version
        logger.info("calibration is not measured: %s", fault)
        return None
    return calibrate(folds, labels.structures) if len(folds) > 1 else None


def merge_reports(reports: Sequence[Report]) -> Report:
    """One Report on the cases of all reports; for a case in several reports the first counts."""
    seen: dict[str, int] = {}
    for number, report in enumerate(reports):
        for case in (*report.cases, *(failure.case for failure in report.failures)):
            seen.setdefault(case, number)
    rows = [row for number, report in enumerate(reports) for row in report.rows if seen[row.case] == number]
    notes = dict.fromkeys(note for report in reports for note in lasting_notes(report.notes))
    return summarise(
        rows,
        reports[0].labels,
        failures=[f for number, report in enumerate(reports) for f in report.failures if seen[f.case] == number],
        files={case: files for report in reversed(reports) for case, files in report.files.items()},
        notes=completed_notes(notes, rows, reports[0].labels),
    )
