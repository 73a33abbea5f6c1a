"""Scores section of the report: means, distributions, undefined values, and cases that could not be scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from autoseg.evaluation.markdown import (
    COLUMNS,
    LESION_COLUMNS,
    groups_legend,
    lesion_structures,
    mask_columns,
    mask_legend,
    seen_in_training,
    undefined_values,
)
from autoseg.evaluation.metrics import unit_of
from autoseg.evaluation.report import Report, Summary
from autoseg.evaluation.statistics import few_cases
from autoseg.page.cases import cell
from autoseg.page.markup import Table, interval, number, scrubbed, swatch, text
from autoseg.page.plots import Spread, draw_distribution
from autoseg.page.rendering import render

__all__ = ["scores_section"]

PLOTTED: dict[str, tuple[float | None, float | None]] = {  # metric: (lower limit, upper end) of its axis, if any
    "dice": (None, 1.0),
    "nsd": (None, 1.0),
    "hd95_mm": (0.0, None),
    "volume_error_ml": (None, None),
}


def scores_section(report: Report, addresses: Mapping[str, str], folders: Sequence[str]) -> Markup:
    """Means, distributions, undefined values and failures.

    Args:
        addresses: {case: '#id'} of the cases with pictures.
        folders: removed from messages.
    """
    masks = mask_columns(report)
    return render(
        "scores.html",
        trained_on=seen_in_training(report),
        means=_means(report, COLUMNS),
        tolerance=_tolerance(report),
        few=few_cases(summary.n for summary in report.summaries),
        plots=list(filter(None, (_plot(report, metric, addresses) for metric in PLOTTED))),
        masks=_means(report, masks) if masks and report.rows else None,
        mask_legend=mask_legend(report),
        lesions=_lesions(report),
        grouped_by=report.groups.column,
        groups=_groups(report),
        groups_legend=groups_legend(report),
        undefined=undefined_values(report),
        n_cases=len(report.cases),
        failures=[(failure.case, scrubbed(failure.reason, folders)) for failure in report.failures],
        not_scored=report.not_scored,
        notes=report.notes,
    )


def _tolerance(report: Report) -> str:
    tolerances = sorted({row.tolerance_mm for row in report.rows})
    return " to ".join(dict.fromkeys(f"{t:.3g}" for t in (tolerances[0], tolerances[-1]))) if tolerances else "–"


def _means(report: Report, columns: Mapping[str, str]) -> Table:
    """Mean of each metric for each structure, with its interval; ``columns`` is {metric: title}."""
    rows: list[list[str]] = []
    for i, structure in enumerate(report.labels.structures):
        found = [report.summary(structure, metric) for metric in columns]
        rows.append([swatch(i, structure), number(found[0].n_cases), *map(_mean_cell, found)])
    if len(rows) > 1:
        rows.append(["mean of structures", "", *(cell(report.mean_of(metric), metric) for metric in columns)])
    return Table(["structure", "cases", *columns.values()], rows)


def _lesions(report: Report) -> Table | None:
    """Lesion-wise metrics, one row per structure scored lesion by lesion; None without such metrics."""
    if not LESION_COLUMNS.keys() <= report.foreground_mean.keys():
        return None
    numbers = {name: i for i, name in enumerate(report.labels.structures)}
    rows = [
        [swatch(numbers[name], name), *(_mean_cell(report.summary(name, metric)) for metric in LESION_COLUMNS)]
        for name in lesion_structures(report)
    ]
    return Table(["lesions of", *LESION_COLUMNS.values()], rows)


def _groups(report: Report) -> Table | None:
    """The means of each group of cases; None if there are no groups."""
    rows: list[list[str]] = []
    for name, group in report.by_group.items():
        for i, structure in enumerate(report.labels.structures):
            found = [group.summary(structure, metric) for metric in COLUMNS]
            rows.append([name, swatch(i, structure), number(found[0].n_cases), *map(_mean_cell, found)])
    return Table([report.groups.column, "structure", "cases", *COLUMNS.values()], rows, numeric_from=2) if rows else None


def _mean_cell(summary: Summary) -> Markup:
    if summary.mean is None:
        return Markup(f'undefined <span class="of">0 of {summary.n_cases}</span>')
    shown = text(cell(summary.mean, summary.metric))
    if summary.low is not None:
        shown += interval(cell(summary.low, summary.metric), cell(summary.high, summary.metric))
    return (
        shown if summary.n == summary.n_cases else shown + Markup(f' <span class="of">{summary.n} of {summary.n_cases}</span>')
    )


def _plot(report: Report, metric: str, addresses: Mapping[str, str]) -> Markup:
    """Distribution of a metric; '' if it is undefined in every case."""
    low, high = PLOTTED[metric]
    rows = []
    for structure in report.labels.structures:
        summary = report.summary(structure, metric)
        dots = [
            (row.case, value, addresses.get(row.case, ""))
            for row in report.by_structure.get(structure, ())
            if (value := row[metric]) is not None
        ]
        rows.append(Spread(structure, dots, summary.mean, summary.low, summary.high))
    return draw_distribution(COLUMNS[metric], rows, low=low, high=high, digits=2 if unit_of(metric) == "mm" else 3)
