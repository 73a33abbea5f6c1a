"""A report back from its metrics.json."""

import json
from pathlib import Path

from autoseg.data.labels import LabelSchema
from autoseg.errors import FileError
from autoseg.evaluation.evaluate import CaseMetrics
from autoseg.evaluation.overlap import Counts
from autoseg.evaluation.report import Failure, Report, Summary

__all__ = ["read_report"]


def read_report(path):
    """The Report that ``write_report`` wrote as metrics.json.

    Raises:
        FileError: missing, damaged, or of a version that did not store the labels.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        labels = found["labels"]
        return Report(
            labels=LabelSchema(
                structures=tuple(labels["structures"]),
                values=tuple(tuple(group) for group in labels["values"]),
                has_regions=labels["has_regions"],
                paint_values=tuple(labels["paint_values"]),
                ignore=labels["ignore"],
            ),
            rows=tuple(_row(row) for row in found["cases"]),
            summaries=tuple(Summary(**{**s, "reasons": tuple(map(tuple, s["reasons"]))}) for s in found["structures"]),
            foreground_mean=tuple((name, m["mean"], m["n_structures"]) for name, m in found["foreground_mean"].items()),
            failures=tuple(Failure(**failure) for failure in found["failures"]),
            files=tuple((case, of["reference"], of["predicted"]) for case, of in found["files"].items()),
            not_scored=tuple(found["not_scored"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise FileError(
            f"{path}: not the metrics.json of `autoseg evaluate` ({fault!r}). Score the predictions again"
        ) from fault


def _row(row):
    values = tuple((name, value, row["reasons"].get(name, "")) for name, value in row["values"].items())
    return CaseMetrics(row["case"], row["structure"], values, Counts(**row["voxels"]), row["nsd_tolerance_mm"])
