"""Cases section of the report: pictures and numbers of each case, worst first, and a table of all cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from autoseg.data.labels import LabelSchema
from autoseg.evaluation.markdown import COLUMNS, FINE
from autoseg.evaluation.metrics import unit_of
from autoseg.evaluation.report import CaseMetrics, Report
from autoseg.evaluation.values import count_structures
from autoseg.page.markup import Table, number, scrubbed, swatch, text
from autoseg.page.rendering import render
from autoseg.page.scene import PageCase, Scene
from autoseg.page.sure import sure_box
from autoseg.records import CalibrationAbout, CaseRecord

__all__ = ["case_article", "cell", "order_of_cases", "overview"]

IN_CASES = ("dice", "nsd", "hd95_mm", "assd_mm", "reference_ml", "predicted_ml", "volume_error_ml")
TITLES = {**COLUMNS, "reference_ml": "reference, mL", "predicted_ml": "predicted, mL"}
FEW_COLUMNS = 6  # at most so many structures get a column each in the table of cases, and in a table of measurements
MEASURED = {  # measurements whose names need an explanation
    "centroid_lps_mm": "centre in mm: left, posterior, superior",
    "box_lower_lps_mm": "box from, in mm: left, posterior, superior",
    "box_upper_lps_mm": "box to, in mm: left, posterior, superior",
    "entropy": "uncertainty inside, 0 to 1",
    "border_entropy": "uncertainty at the border, 0 to 1",
    "fold_agreement": "inter-fold Dice",
    "components": "pieces",
    "touches_border": "touches the border of the image",
    "watertight": "surface is closed",
}
UNITS = {"_mm2": "mm²", "_mm3": "mm³", "_mm": "mm", "_ml": "mL", "_percent": "%"}
IN_BORDERS = {
    "gap_mean_mm": "mean gap, mm",
    "gap_p95_mm": "95th percentile, mm",
    "gap_max_mm": "largest, mm",
    "gap_mm3": "gap, mm³",
    "overlap_mm3": "overlap, mm³",
}
NO_MASK = "no mask was found; autoseg report --reference DIR and --predicted DIR name the folders"
OPEN_BELOW = 13  # cases; a longer table is collapsed


def order_of_cases(cases: Iterable[PageCase], report: Report | None) -> tuple[PageCase, ...]:
    """Sort cases, worst first: failed cases, then by ascending mean Dice, then cases without Dice.

    Of equal ones, cases with warnings come first, then the order is by name.
    """
    failed = {failure.case for failure in report.failures} if report else set()

    def rank(case: PageCase) -> tuple[int, float, bool, str]:
        dice = _mean_of(_rows_of(report, case.id), "dice")
        first = 0 if case.id in failed else 1 if dice is not None else 2
        return (first, 0 if dice is None else dice, not case.record.warnings, case.id)

    return tuple(sorted(cases, key=rank))


def _rows_of(report: Report | None, case: str) -> Sequence[CaseMetrics]:
    return report.by_case.get(case, ()) if report else ()


def _mean_of(rows: Iterable[CaseMetrics], metric: str) -> float | None:
    values = [value for row in rows if (value := row[metric]) is not None]
    return float(np.mean(values)) if values else None


def cell(value: float | None, metric: str) -> str:
    """Format a metric: five decimals for those in ``FINE``, three without a unit or below 10 mL, otherwise two."""
    fine = unit_of(metric) == "" or (unit_of(metric) == "mL" and abs(value or 0) < 10)
    return number(None if value is None else float(value), 5 if metric in FINE else 3 if fine else 2)


def overview(cases: Sequence[PageCase], report: Report | None, addresses: Mapping[str, str]) -> Markup:
    """All cases as a table, in the given order; empty without scores."""
    if report is None or not report.rows:
        return Markup()
    structures = report.labels.structures
    wide = len(structures) <= FEW_COLUMNS
    of_structures = [f"Dice {s}" for s in structures] if wide else ["lowest Dice"]
    heads = ["case", "mean Dice", *of_structures, "mean NSD", "largest HD95, mm"]
    failed = {failure.case for failure in report.failures}
    lines: list[list[str]] = []
    for case in cases:
        name, rows = _heading(case.id, addresses.get(case.id)), _rows_of(report, case.id)
        if rows:
            lines.append([name, *_scores(rows, wide)])
        else:
            lines.append([name, "not scored" if case.id in failed else "no reference", *[""] * (len(heads) - 2)])
    return render(
        "overview.html", n_cases=len(cases), is_open=len(cases) < OPEN_BELOW, cases=Table(heads, lines, css="overview")
    )


def _heading(case: str, address: str | None) -> Markup:
    name = f'<a href="{address}">{text(case)}</a>' if address else text(case)
    return Markup(f'{name} <span class="verdict" data-of="{text(case)}"></span>')


def _scores(rows: Sequence[CaseMetrics], wide: bool) -> list[str]:
    """Cells of a case: mean Dice, Dice of each structure or only the lowest, mean NSD, largest HD95."""
    mean = _mean_of(rows, "dice")
    share = 0 if mean is None else max(0.0, min(mean, 1.0))
    bar = Markup(f'<span class="share" style="--share:{share:.3f}">{cell(mean, "dice")}</span>')
    each = [cell(row["dice"], "dice") for row in rows] if wide else [_lowest(rows)]
    distances = [distance for row in rows if (distance := row["hd95_mm"]) is not None]
    return [bar, *each, cell(_mean_of(rows, "nsd"), "nsd"), cell(max(distances, default=None), "hd95_mm")]


def _lowest(rows: Iterable[CaseMetrics]) -> str:
    defined = [(dice, row.structure) for row in rows if (dice := row["dice"]) is not None]
    if not defined:
        return "–"
    dice, structure = min(defined, key=lambda pair: pair[0])
    return Markup(f"{cell(dice, 'dice')} <span class='of'>{text(structure)}</span>")


def case_article(
    case: PageCase,
    scene: Scene | None,
    report: Report | None,
    labels: LabelSchema,
    address: str,
    *,
    pictures: str = "",
    fault: str = "",
    folders: Sequence[str] = (),
    calibration: CalibrationAbout | None = None,
) -> Markup:
    """One case: pictures, metrics or volumes, measurements, and the review buttons.

    Args:
        scene: Scene, or None if there is nothing to draw.
        address: '#id' of the article.
        pictures: HTML of the slices.
        fault: why there are no pictures.
        folders: removed from messages.
        calibration: of the model; None if it is unknown.
    """
    rows = _rows_of(report, case.id)
    dice = _mean_of(rows, "dice")
    notes = [scrubbed(note, folders) for note in case.record.notes]
    notes += [f"not scored: {scrubbed(f.reason, folders)}" for f in (report.failures if report else ()) if f.case == case.id]
    notes += scene.notes if scene else [f"no picture: {scrubbed(fault or NO_MASK, folders)}"]
    notes += [f"{row.structure}: {reason.partition(':')[0]}" for row in rows for reason in row.reasons.values()]
    return render(
        "case.html",
        id=address[1:],
        case=case.id,
        score="" if dice is None else cell(dice, "dice"),
        pictures=Markup(pictures),
        sure=sure_box(case.record, labels, calibration if case.predicted else None),
        numbers=_metrics(rows, labels) if rows else _volumes(scene, labels) if scene else None,
        measured=_measurements(case.record),
        notes=list(dict.fromkeys(notes)),
    )


def _metrics(rows: Sequence[CaseMetrics], labels: LabelSchema) -> Table:
    known = [metric for metric in IN_CASES if metric in rows[0].values]
    numbers = {structure: i for i, structure in enumerate(labels.structures)}
    lines = [[swatch(numbers[row.structure], row.structure), *(cell(row[metric], metric) for metric in known)] for row in rows]
    return Table(["structure", *(TITLES[metric] for metric in known)], lines)


def _volumes(scene: Scene, labels: LabelSchema) -> Table:
    """Volume of each structure by counting voxels, for a mask without a reference."""
    lines = []
    for i, (structure, count) in enumerate(zip(labels.structures, count_structures(scene.shown, labels), strict=True)):
        lines.append([swatch(i, structure), number(count * scene.geometry.voxel_ml, 2)])
    return Table(["structure", "volume, mL"], lines)


def _measurements(record: CaseRecord) -> list[Table]:
    """Measurements of CASE.json, one row each, ``FEW_COLUMNS`` structures per table; then the borders of neighbours.

    Measurements that no structure has are left out.
    """
    found = [entry for entry in record.measurements if "structure" in entry]
    tables = [_measured(found[i : i + FEW_COLUMNS]) for i in range(0, len(found), FEW_COLUMNS)]
    return [table for table in (*tables, *_borders(record)) if table.rows]


def _borders(record: CaseRecord) -> list[Table]:
    """Gap and overlap of the surfaces of neighbouring structures, one row per pair, the widest gap first."""
    lines = []
    gaps = [gap if isinstance(gap := one.get("gap_max_mm"), float) else 0.0 for one in record.borders]
    for _, one in sorted(zip(gaps, record.borders, strict=True), key=lambda pair: -pair[0]):
        numbers = [number(one.get(name), 2) for name in IN_BORDERS]
        lines.append([f"{one.get('first')} – {one.get('second')}", *numbers])
    return [Table(["surfaces of neighbours", *IN_BORDERS.values()], lines)] if lines else []


def _measured(entries: Sequence[Mapping[str, Any]]) -> Table:
    structures, rows = [], []
    for name in dict.fromkeys(key for entry in entries for key in entry):
        values = [entry.get(name) for entry in entries]
        if name == "structure":
            structures = [str(value) for value in values]
        elif any(value not in (None, "") for value in values):
            rows.append([_named(name), *(number(value, _digits(value)) for value in values)])
    return Table(["measured", *structures], rows)


def _named(measurement: str) -> str:
    """A measurement's name in words, with its unit."""
    if measurement in MEASURED:
        return MEASURED[measurement]
    unit = next((unit for unit in UNITS if measurement.endswith(unit)), "")
    words = measurement.removesuffix(unit).replace("_", " ")
    return f"{words}, {UNITS[unit]}" if unit else words


def _digits(value: Any) -> int:
    return 1 if isinstance(value, list) or (isinstance(value, float) and abs(value) >= 1000) else 3
