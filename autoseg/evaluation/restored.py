"""Restoration results of many cases: means over cases, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoseg.evaluation.reconstruction import DEGRADATIONS
from autoseg.evaluation.statistics import mean_interval
from autoseg.workspace import REST

__all__ = [
    "RESTORED_COLUMNS",
    "RESTORED_FILE",
    "RESTORED_HEADINGS",
    "RestorationResult",
    "RestoredColumn",
    "RestoredMean",
    "RestoredRow",
    "restored_cells",
    "summarise_restored",
]

RESTORED_FILE = "restoration.json"
NUMBERS = ("mse", "psnr", "ssim", "bar_mse", "bar_psnr", "bar_ssim", "skill")


@dataclass(frozen=True)
class RestoredRow:
    """A case, degraded in one way and restored.

    Attributes:
        values: result of ``compare_intensities``, by name; None where undefined.
        slice_axis: axis along which slices were made thick; None if no axis is long enough.
        ssim_window: voxels of the window along each axis.
    """

    case: str
    degradation: str
    values: dict[str, Any] = field(default_factory=dict, metadata=REST)
    slice_axis: int | None = None
    ssim_window: tuple[int, ...] = ()


@dataclass(frozen=True)
class RestoredMean:
    """A mean over ``n`` cases with its 95 % bootstrap interval; None with too few cases."""

    mean: float | None
    interval: tuple[float | None, float | None]
    n: int


Summaries = Mapping[str, Mapping[str, RestoredMean]]


@dataclass(frozen=True)
class RestorationResult:
    """``restoration.json``: how well a model restores the images of its validation cases.

    Attributes:
        rows: one for each case and degradation.
        failures: case -> why it could not be restored.
        summary: see ``summarise_restored``.
    """

    rows: tuple[RestoredRow, ...]
    failures: dict[str, str] = field(default_factory=dict)
    summary: dict[str, dict[str, RestoredMean]] = field(default_factory=dict)


@dataclass(frozen=True)
class RestoredColumn:
    """A column of the table of restorations.

    Attributes:
        metric: metric whose mean is shown; with ``interval`` also in plain tables, which have room for only one.
        title: full title; ``heading`` is used if the column before names the number.
        digits: after the decimal point.
        signed: a plus sign before positive values shown with an interval.
    """

    metric: str
    title: str
    heading: str
    digits: int
    signed: bool = False
    interval: bool = False


RESTORED_COLUMNS = (
    RestoredColumn("mse", "MSE", "MSE", 5),
    RestoredColumn("bar_mse", "baseline MSE", "baseline", 5),
    RestoredColumn("ssim", "SSIM", "SSIM", 3),
    RestoredColumn("bar_ssim", "baseline SSIM", "baseline", 3),
    RestoredColumn("ssim_gain", "gain in SSIM", "gain", 3, signed=True, interval=True),
    RestoredColumn("psnr", "PSNR, dB", "PSNR, dB", 1),
    RestoredColumn("bar_psnr", "baseline PSNR, dB", "baseline", 1),
    RestoredColumn("skill", "skill", "skill", 2, signed=True),
)
RESTORED_HEADINGS = ("degraded by", "cases", *(column.heading for column in RESTORED_COLUMNS))


def summarise_restored(rows: Iterable[RestoredRow]) -> dict[str, dict[str, RestoredMean]]:
    """The mean of each number over the cases in which it is defined, for each degradation.

    Returns:
        Dictionary degradation -> number (those of ``compare_intensities``, and ``ssim_gain``, over the baseline; ``_roi``
        for the structures alone) -> RestoredMean.
    """
    rows = list(rows)
    return {kind: _summary([row.values for row in rows if row.degradation == kind]) for kind in DEGRADATIONS}


def _summary(rows: Sequence[Mapping[str, float | None]]) -> dict[str, RestoredMean]:
    found: dict[str, list[float | None]] = {}
    for suffix in ("", "_roi"):
        found |= {f"{name}{suffix}": [row.get(f"{name}{suffix}") for row in rows] for name in NUMBERS}
        pairs = zip(found[f"ssim{suffix}"], found[f"bar_ssim{suffix}"], strict=True)
        found[f"ssim_gain{suffix}"] = [None if a is None or b is None else a - b for a, b in pairs]
    return {name: _mean([value for value in values if value is not None]) for name, values in found.items()}


def _mean(values: Sequence[float]) -> RestoredMean:
    return RestoredMean(statistics.fmean(values) if values else None, mean_interval(values), len(values))


def restored_cells(summary: Summaries, *, structures: bool = True) -> list[list[str]]:
    """A row of texts under ``RESTORED_HEADINGS`` for each degradation: first for the image, then for its structures."""
    parts = (("", ""), ("_roi", ", structures alone")) if structures else (("", ""),)
    rows = []
    for kind, found in summary.items():
        for suffix, where in parts:
            if n := found[f"ssim{suffix}"].n:
                cells = [_cell(found[f"{column.metric}{suffix}"], column) for column in RESTORED_COLUMNS]
                rows.append([kind.replace("_", " ") + where, str(n), *cells])
    return rows


def _cell(found: RestoredMean, column: RestoredColumn) -> str:
    if found.mean is None:
        return "–"
    sign, (low, high) = "+" if column.signed and column.interval else "", found.interval
    cell = f"{found.mean:{sign}.{column.digits}f}"
    if not column.interval or low is None:
        return cell
    return f"{cell} [{low:{sign}.{column.digits}f}, {high:{sign}.{column.digits}f}]"
