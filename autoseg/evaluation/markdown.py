"""A report as a Markdown table.

Every mean shows its number of cases if that is not all of them. Undefined values, substitute values and failures are listed
by name below the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoseg.digits import as_text
from autoseg.evaluation.metrics import unit_of
from autoseg.evaluation.report import Mean, Report, Summary
from autoseg.evaluation.statistics import few_cases
from autoseg.names import counted, first_of

__all__ = [
    "as_markdown",
    "groups_legend",
    "markdown_table",
    "mask_columns",
    "mask_legend",
    "seen_in_training",
    "undefined_values",
]

COLUMNS = {
    "dice": "Dice",
    "iou": "IoU",
    "nsd": "NSD",
    "hd95_mm": "HD95, mm",
    "assd_mm": "ASSD, mm",
    "volume_error_ml": "volume error, mL",
}
RECONSTRUCTION_COLUMNS = {
    "foreground_share": "fraction of the image",
    "mse_mask": "MSE of masks",
    "ssim_mask": "SSIM of masks",
    "ssim_mask_roi": "SSIM around it",
    "brier": "Brier score",
}
SURFACE_COLUMNS = {
    "surface_assd_mm": "ASSD, mm",
    "surface_masd_mm": "MASD, mm",
    "surface_hd95_mm": "HD95, mm",
    "surface_nsd": "NSD",
}
LESION_COLUMNS = {
    "lesion_f1": "F1 of detection",
    "lesion_dice": "Dice of a lesion",
    "lesions_found": "found, a scan",
    "lesions_missed": "missed, a scan",
    "lesions_false": "false, a scan",
}
FINE = ("foreground_share", "mse_mask", "brier")  # small numbers: five digits
WORST_COLUMNS = ("dice", "nsd", "hd95_mm", "volume_error_ml")
N_WORST = 5


def as_markdown(report: Report) -> str:
    """Means with intervals, undefined values, the cases of lowest Dice, the failures; ends with a newline."""
    parts = [_heading(report)]
    if report.rows:
        parts += [_means(report, COLUMNS), _legend(report), _reconstruction(report), _surfaces(report), _lesions(report)]
        parts += [_groups(report), _undefined(report), _noted(report), _worst(report)]
    return "\n\n".join(part for part in [*parts, _failures(report)] if part) + "\n"


def _heading(report: Report) -> str:
    failed = f"; {len(report.failures)} could not be scored" if report.failures else ""
    return f"{counted(len(report.cases), 'case')} scored{failed}. {seen_in_training(report)}".rstrip()


def seen_in_training(report: Report) -> str:
    """A warning that the model was trained on scored cases; '' if it is not known to be."""
    if not report.trained_on:
        return ""
    return (
        f"The model was trained on {len(report.trained_on)} of {counted(len(report.cases), 'scored case')}: "
        f"{first_of(report.trained_on, 5)}. Scores of training cases are higher than those of new scans: score other cases, or "
        "use the scores of the validation cases of its training run."
    )


def _means(report: Report, columns: Mapping[str, str]) -> str:
    lines = [["structure", "cases", *columns.values()]]
    for structure in report.labels.structures:
        found = [report.summary(structure, metric) for metric in columns]
        lines.append([structure, str(found[0].n_cases), *map(_mean_cell, found)])
    if len(report.labels.structures) > 1:
        cells = [_foreground_cell(metric, report.foreground_mean[metric], len(report.labels.structures)) for metric in columns]
        lines.append(["mean of structures", "", *cells])
    return markdown_table(lines)


def _reconstruction(report: Report) -> str:
    """The scores of masks as volumes: a separate table, with the foreground fraction on which the errors depend."""
    return f"{_means(report, mask_columns(report))}\n\nThe masks as volumes of 0 and 1. {mask_legend(report)}"


def mask_columns(report: Report) -> dict[str, str]:
    """The ``RECONSTRUCTION_COLUMNS`` that were measured."""
    return {metric: title for metric, title in RECONSTRUCTION_COLUMNS.items() if metric in report.foreground_mean}


def mask_legend(report: Report) -> str:
    """The meaning of the scores of masks as volumes, and the scores of all structures as one mask."""
    together = ""
    if report.mean_of("mse_mask_fg") is not None:
        error, fraction = (_number(report.mean_of(metric), "mse_mask") for metric in ("mse_mask_fg", "foreground_share_fg"))
        together = f" All structures as one mask: MSE {error} at a fraction of {fraction}."
    brier = " Brier score: MSE of the probabilities; 0 is best." if "brier" in report.foreground_mean else ""
    return (
        "MSE: mean squared error. Of equal-sized masks it is twice their fraction of the image times (1 - Dice), so compare "
        f"it at equal fractions only.{together} SSIM: structural similarity, 1 is equal; over the whole image, and within 5 "
        f"voxels around the structure's box.{brier}"
    )


def _surfaces(report: Report) -> str:
    """The scores of the written surfaces, if any: a separate table, since they are not voxels."""
    if not SURFACE_COLUMNS.keys() <= report.foreground_mean.keys():
        return ""
    return (
        f"{_means(report, SURFACE_COLUMNS)}\n\nThe written surfaces against those of the reference's label maps, triangle by "
        "triangle. ASSD: mean distance over both surfaces; MASD: mean of the two directions; NSD: fraction of them within 1 mm."
    )


def _lesions(report: Report) -> str:
    """The table of structures scored lesion by lesion."""
    if not LESION_COLUMNS.keys() <= report.foreground_mean.keys():
        return ""
    lines = [["lesions of", "cases", *LESION_COLUMNS.values()]]
    for structure in lesion_structures(report):
        found = [report.summary(structure, metric) for metric in LESION_COLUMNS]
        lines.append([structure, str(found[0].n_cases), *map(_mean_cell, found)])
    return f"{markdown_table(lines)}\n\nThe Dice of lesions counts missed and false lesions as 0."


def lesion_structures(report: Report) -> list[str]:
    """Structures that were scored lesion by lesion."""
    return [name for name in report.labels.structures if report.summary(name, "lesions_found").n]


def _groups(report: Report) -> str:
    """A table of the groups, structure by structure."""
    lines = [[report.groups.column, "structure", "cases", *COLUMNS.values()]]
    for name, group in report.by_group.items():
        for structure in report.labels.structures:
            found = [group.summary(structure, metric) for metric in COLUMNS]
            lines.append([name, structure, str(found[0].n_cases), *map(_mean_cell, found)])
    if len(lines) == 1:
        return ""
    return f"{markdown_table(lines)}\n\n{groups_legend(report)}"


def groups_legend(report: Report) -> str:
    """What the table of the groups does not say."""
    few = few_cases(summary.n for group in report.by_group.values() for summary in group.summaries)
    return f"Groups are compared only by their intervals; they may also differ in other ways. {few}".rstrip()


def _mean_cell(summary: Summary) -> str:
    if summary.mean is None:
        return f"undefined, 0 of {counted(summary.n_cases, 'case')}"
    cell = _number(summary.mean, summary.metric)
    if summary.low is not None:
        cell += f" [{_number(summary.low, summary.metric)}, {_number(summary.high, summary.metric)}]"
    return cell if summary.n == summary.n_cases else f"{cell}, {summary.n} of {counted(summary.n_cases, 'case')}"


def _foreground_cell(metric: str, mean: Mean, n_structures: int) -> str:
    cell, n = _number(mean.mean, metric), mean.n_structures
    return cell if n in (0, n_structures) else f"{cell}, {n} of {n_structures} structures"


def _legend(report: Report) -> str:
    rows = report.by_structure
    tolerances = {s: sorted({row.tolerance_mm for row in rows.get(s, ())}) for s in report.labels.structures}
    if len({tuple(found) for found in tolerances.values()}) == 1:
        tolerance = _range(next(iter(tolerances.values())))
    else:
        tolerance = ", ".join(f"{structure} {_range(found)}" for structure, found in tolerances.items())
    return (
        "Means over cases with 95 % bootstrap intervals. "
        f"NSD: fraction of the surfaces within {tolerance} of each other. Volume error: predicted minus reference. "
        f"{few_cases(summary.n for summary in report.summaries)}"
    ).rstrip()


def _range(tolerances: Sequence[float]) -> str:
    ends = dict.fromkeys(f"{t:.4g}" for t in (tolerances[0], tolerances[-1]))
    return " to ".join(ends) + " mm" + (" (by case)" if len(ends) > 1 else "")


@dataclass(frozen=True)
class Undefined:
    """A structure and a reason why values are undefined or substituted; with the metrics and cases concerned."""

    structure: str
    reason: str
    kind: str
    metrics: tuple[str, ...]
    cases: tuple[str, ...]


def undefined_values(report: Report) -> list[Undefined]:
    """The metrics and cases for each structure and reason, in order of appearance."""
    found: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for row in report.rows:
        for name, reason in row.reasons.items():
            kind = "undefined" if row[name] is None else "stand-in"
            metrics, cases = found.setdefault((row.structure, reason, kind), ({}, {}))
            metrics[name], cases[row.case] = None, None
    return [Undefined(*key, tuple(metrics), tuple(cases)) for key, (metrics, cases) in found.items()]


def _undefined(report: Report) -> str:
    lines = [
        f"- {one.structure}, {one.reason}: {one.kind} {', '.join(one.metrics)} in {len(one.cases)} of "
        f"{counted(len(report.cases), 'case')} ({first_of(one.cases, 5)})"
        for one in undefined_values(report)
    ]
    return "\n".join(["Undefined values and stand-ins:", "", *lines]) if lines else ""


def _noted(report: Report) -> str:
    """The notes on values in the label maps."""
    return "\n".join(["Values:", "", *(f"- {note}" for note in report.notes)]) if report.notes else ""


def _worst(report: Report) -> str:
    defined = [(dice, row) for row in report.rows if (dice := row["dice"]) is not None]
    scored = [row for _, row in sorted(defined, key=lambda pair: pair[0])[:N_WORST]]
    if not scored:
        return ""
    lines = [["lowest Dice", "structure", *(COLUMNS[metric] for metric in WORST_COLUMNS)]]
    lines += [[row.case, row.structure, *(_number(row[metric], metric) for metric in WORST_COLUMNS)] for row in scored]
    return markdown_table(lines)


def _failures(report: Report) -> str:
    lines = [f"- {failure.case}: {' '.join(failure.reason.split())}" for failure in report.failures]
    text = ["Not scored, and in no mean:", "", *lines] if lines else []
    if report.not_scored:
        text += [""] if text else []
        text.append(f"Without a reference: {counted(len(report.not_scored), 'prediction')} ({first_of(report.not_scored, 5)}).")
    return "\n".join(text)


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "undefined"
    if metric in FINE:
        return f"{value:.5f}"
    digits = 3 if unit_of(metric) == "" or (unit_of(metric) == "mL" and abs(value) < 10) else 2
    return as_text(value, digits) if unit_of(metric) else f"{round(value, digits) + 0.0:.{digits}f}"  # no minus before zero


def markdown_table(lines: Iterable[Sequence[str]]) -> str:
    """Rows of cells, the first being the heading, as a Markdown table."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
