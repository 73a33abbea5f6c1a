"""A report as files: metrics.csv, metrics.json, metrics.md, and summary.json in nnU-Net's layout."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from autoseg.errors import FileError
from autoseg.evaluation.report import REPORT_FILE, CaseMetrics, Report
from autoseg.ledger import FOREIGN
from autoseg.places import refuse_foreign
from autoseg.workspace import as_text, write_text

__all__ = ["FILES", "refuse_foreign_report", "write_report"]

FILES = ("metrics.csv", REPORT_FILE, "metrics.md", "summary.json")
NNUNET = ("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref")


def write_report(report: Report, folder: Path | str, *, fresh: bool = False) -> tuple[Path, ...]:
    """Write metrics.csv, metrics.json, metrics.md and summary.json to a folder, which is created if missing.

    After an interruption, each file is either complete or unchanged. ``summary.json`` has nnU-Net's layout, in which undefined
    values are the token NaN: not valid JSON, but expected by scripts. The other files have empty cells and null.

    Args:
        fresh: overwrite files of these names made by other programs.

    Returns:
        tuple of the paths.

    Raises:
        FileError: such files exist, without ``fresh``.
    """
    folder = Path(folder)
    if not fresh:
        refuse_foreign_report(folder)
    texts: tuple[Callable[[Report], str], ...] = (  # one at a time in memory
        _as_csv,
        as_text,
        lambda report: "# Evaluation\n\n" + report.table(),
        lambda report: json.dumps(_as_nnunet(report), indent=4, sort_keys=True) + "\n",
    )
    for name, text_of in zip(FILES, texts, strict=True):
        write_text(folder / name, text_of(report))
    return tuple(folder / name for name in FILES)


def refuse_foreign_report(folder: Path | str) -> None:
    """Raise FileError if a folder has files of these names made by other programs.

    Our summary.json looks like nnU-Net's, but has a metrics.json beside it.
    """
    folder = Path(folder)
    for name in FILES[:-1]:
        refuse_foreign(folder / name)
    path = folder / FILES[-1]
    if path.exists() and not path.with_name(REPORT_FILE).exists():
        raise FileError(f"{path}: {FOREIGN}")


def _as_csv(report: Report) -> str:
    """One line per case and structure; undefined values are empty and explained in ``note``."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "structure", *report.metrics, "nsd_tolerance_mm", "tp", "fp", "fn", "tn", "note"])
    for row in report.rows:
        note = "; ".join(f"{name}: {reason}" for name, reason in row.reasons.items())
        counts = row.counts
        values = [row[metric] for metric in report.metrics]
        table.writerow([row.case, row.structure, *values, row.tolerance_mm, counts.tp, counts.fp, counts.fn, counts.tn, note])
    for failure in report.failures:
        note = "not scored: " + " ".join(failure.reason.split())
        table.writerow([failure.case, *[""] * (len(report.metrics) + 6), note])
    return text.getvalue()


def _as_nnunet(report: Report) -> dict[str, Any]:
    """The numbers in nnU-Net's summary.json, by label value; regions by the text of their tuple."""
    labels = {s: str(v[0] if len(v) == 1 else v) for s, v in zip(report.labels.structures, report.labels.values, strict=True)}
    per_case = {case: {labels[row.structure]: _nnunet_metrics(row) for row in rows} for case, rows in report.by_case.items()}
    mean = {
        label: {name: _mean_of_defined(case[label][name] for case in per_case.values()) for name in NNUNET}
        for label in labels.values()
    }
    cases = []
    for case, metrics in per_case.items():
        files = report.files.get(case)
        reference, predicted = (files.reference, files.predicted) if files else ("", "")
        cases.append({"reference_file": reference, "prediction_file": predicted, "metrics": metrics})
    return {
        "foreground_mean": {name: statistics.fmean(of_label[name] for of_label in mean.values()) for name in NNUNET},
        "mean": mean,
        "metric_per_case": cases,
    }


def _nnunet_metrics(row: CaseMetrics) -> dict[str, float]:
    counts, dice, iou = row.counts, row["dice"], row["iou"]
    return {
        "Dice": math.nan if dice is None else dice,
        "IoU": math.nan if iou is None else iou,
        "FP": counts.fp,
        "TP": counts.tp,
        "FN": counts.fn,
        "TN": counts.tn,
        "n_pred": counts.n_predicted,
        "n_ref": counts.n_reference,
    }


def _mean_of_defined(values: Iterable[float]) -> float:
    found = [value for value in values if not math.isnan(value)]
    return statistics.fmean(found) if found else math.nan
