"""What an evaluation found, for people and for programs.

A ``Report`` keeps every number of every case and, for each structure and metric, the mean with its interval and the
number of cases it is over. A value that is undefined is counted with its reason, a case that could not be scored is a
failure; both are printed beside the means they are missing from.
"""

import csv
import io
import json
import math
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from autoseg.atomic import replacing
from autoseg.data.labels import LabelSchema
from autoseg.errors import FileError
from autoseg.evaluation.markdown import as_markdown
from autoseg.evaluation.metrics import METRICS
from autoseg.evaluation.statistics import mean_interval

__all__ = ["Failure", "Report", "Summary", "refuse_foreign_summary", "summarise", "write_report"]


@dataclass(frozen=True)
class Failure:
    """A case that could not be scored, and why."""

    case: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """One metric of one structure over all cases that were scored.

    Attributes:
        n: cases in which the metric is defined; mean, median and interval are over these.
        n_cases: cases scored.
        mean, median: None when ``n`` is 0.
        low, high: 95 % bootstrap interval of the mean; None when ``n`` is below 2.
        reasons: (reason, cases) for values that are undefined or stand-ins.
    """

    structure: str
    metric: str
    n: int
    n_cases: int
    mean: float | None
    median: float | None
    low: float | None
    high: float | None
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Report:
    """An evaluation of many cases.

    Attributes:
        labels: LabelSchema of the structures.
        rows: CaseMetrics of every case and structure.
        summaries: one Summary per structure and metric.
        foreground_mean: (metric, mean over structures of their means, structures that have one).
        failures: cases that could not be scored; they are in no mean.
        files: (case, reference file, prediction file).
        not_scored: predictions without a reference.
    """

    labels: LabelSchema
    rows: tuple
    summaries: tuple[Summary, ...]
    foreground_mean: tuple[tuple[str, float | None, int], ...]
    failures: tuple[Failure, ...] = ()
    files: tuple[tuple[str, str, str], ...] = ()
    not_scored: tuple[str, ...] = ()

    @property
    def cases(self):
        """Names of the cases scored."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    def summary(self, structure, metric):
        """The Summary of one structure and metric; KeyError for an unknown name."""
        return {(s.structure, s.metric): s for s in self.summaries}[structure, metric]

    def table(self):
        """The report as Markdown: means with intervals, what is undefined, the worst cases, the failures."""
        return as_markdown(self)


def summarise(rows, labels, *, failures=(), files=(), not_scored=()):
    """A Report of CaseMetrics from any number of cases; see Report for the arguments."""
    names = [name for name, _, _ in rows[0].values] if rows else list(METRICS)
    summaries = tuple(
        _summarise_metric(structure, name, [row for row in rows if row.structure == structure])
        for structure in labels.structures
        for name in names
    )
    means = {name: [s.mean for s in summaries if s.metric == name and s.mean is not None] for name in names}
    return Report(
        labels=labels,
        rows=tuple(rows),
        summaries=summaries,
        foreground_mean=tuple((n, statistics.fmean(found) if found else None, len(found)) for n, found in means.items()),
        failures=tuple(failures),
        files=tuple(files),
        not_scored=tuple(not_scored),
    )


def _summarise_metric(structure, metric, rows):
    values = [row[metric] for row in rows if row[metric] is not None]
    low, high = mean_interval(values)
    return Summary(
        structure=structure,
        metric=metric,
        n=len(values),
        n_cases=len(rows),
        mean=statistics.fmean(values) if values else None,
        median=statistics.median(values) if values else None,
        low=low,
        high=high,
        reasons=tuple(Counter(row.reason(metric) for row in rows if row.reason(metric)).items()),
    )


def write_report(report, folder):
    """Write metrics.csv, metrics.json, metrics.md and summary.json to a folder, which is made if it is missing.

    Each file is complete or, after an interruption, as it was. ``summary.json`` has the layout of nnU-Net's, where what
    is undefined is the token NaN: not JSON, but what scripts for it expect; the other files have empty cells and null.

    Returns:
        tuple of the paths.

    Raises:
        FileError: see ``refuse_foreign_summary``.
    """
    folder = Path(folder)
    refuse_foreign_summary(folder)
    texts = {
        "metrics.csv": _as_csv(report),
        "metrics.json": json.dumps(_as_json(report), indent=1, allow_nan=False) + "\n",
        "metrics.md": "# Evaluation\n\n" + report.table(),
        "summary.json": json.dumps(_as_nnunet(report), indent=4, sort_keys=True) + "\n",
    }
    for name, text in texts.items():
        with replacing(folder / name) as draft:
            draft.write_text(text, encoding="utf-8", newline="")
    return tuple(folder / name for name in texts)


def refuse_foreign_summary(folder):
    """Raise FileError where a folder holds the summary.json of another program: ours has a metrics.json beside it."""
    path = Path(folder) / "summary.json"
    if path.exists() and not path.with_name("metrics.json").exists():
        raise FileError(
            f"{path}: was made by another program and would be overwritten. Give another folder for the report (-o)"
        )


def _as_csv(report):
    """One line per case and structure; undefined values are empty and explained in ``note``."""
    metrics = [metric for metric, _, _ in report.foreground_mean]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "structure", *metrics, "nsd_tolerance_mm", "tp", "fp", "fn", "tn", "note"])
    for row in report.rows:
        note = "; ".join(f"{name}: {reason}" for name, _, reason in row.values if reason)
        counts = row.counts
        values = [row[metric] for metric in metrics]
        table.writerow([row.case, row.structure, *values, row.tolerance_mm, counts.tp, counts.fp, counts.fn, counts.tn, note])
    for failure in report.failures:
        note = "not scored: " + " ".join(failure.reason.split())
        table.writerow([failure.case, *[""] * (len(metrics) + 6), note])
    return text.getvalue()


def _as_json(report):
    files = {case: {"reference": reference, "predicted": predicted} for case, reference, predicted in report.files}
    return {
        "labels": asdict(report.labels),
        "structures": [asdict(summary) for summary in report.summaries],
        "foreground_mean": {metric: {"mean": mean, "n_structures": n} for metric, mean, n in report.foreground_mean},
        "cases": [
            {
                "case": row.case,
                "structure": row.structure,
                "values": {name: value for name, value, _ in row.values},
                "reasons": {name: reason for name, _, reason in row.values if reason},
                "nsd_tolerance_mm": row.tolerance_mm,
                "voxels": asdict(row.counts),
            }
            for row in report.rows
        ],
        "failures": [asdict(failure) for failure in report.failures],
        "files": files,
        "not_scored": list(report.not_scored),
    }


def _as_nnunet(report):
    """The numbers that nnU-Net's summary.json has, by label value; regions by the text of their tuple."""
    labels = {s: str(v[0] if len(v) == 1 else v) for s, v in zip(report.labels.structures, report.labels.values, strict=True)}
    per_case = {case: {} for case in report.cases}
    for row in report.rows:
        per_case[row.case][labels[row.structure]] = _nnunet_metrics(row)
    names = ("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref")
    mean = {
        label: {name: _mean_of_defined([case[label][name] for case in per_case.values()]) for name in names}
        for label in labels.values()
    }
    files = {case: found for case, *found in report.files}
    return {
        "foreground_mean": {name: statistics.fmean(of_label[name] for of_label in mean.values()) for name in names},
        "mean": mean,
        "metric_per_case": [
            {
                "reference_file": files.get(case, ("", ""))[0],
                "prediction_file": files.get(case, ("", ""))[1],
                "metrics": metrics,
            }
            for case, metrics in per_case.items()
        ],
    }


def _nnunet_metrics(row):
    counts = row.counts
    return {
        "Dice": math.nan if row["dice"] is None else row["dice"],
        "IoU": math.nan if row["iou"] is None else row["iou"],
        "FP": counts.fp,
        "TP": counts.tp,
        "FN": counts.fn,
        "TN": counts.tn,
        "n_pred": counts.n_predicted,
        "n_ref": counts.n_reference,
    }


def _mean_of_defined(values):
    found = [value for value in values if not math.isnan(value)]
    return statistics.fmean(found) if found else math.nan
