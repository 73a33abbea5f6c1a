"""The part about cases: means, distributions, and each case with its pictures and numbers, the worst first."""

import numpy as np

from autoseg.evaluation.markdown import COLUMNS, FINE, mask_columns, mask_legend
from autoseg.evaluation.metrics import unit_of
from autoseg.evaluation.volumes import volume_ml
from autoseg.page.markup import interval, number, scrubbed, swatch, table, text
from autoseg.page.plots import draw_distribution

__all__ = ["case_article", "order_of_cases", "overview", "summary_sections"]

PLOTTED = {"dice": (None, 1.0), "nsd": (None, 1.0), "hd95_mm": (0.0, None), "volume_error_ml": (None, None)}
IN_CASES = ("dice", "nsd", "hd95_mm", "assd_mm", "reference_ml", "predicted_ml", "volume_error_ml")
TITLES = {**COLUMNS, "reference_ml": "reference, mL", "predicted_ml": "predicted, mL"}
FEW_COLUMNS = 6  # structures that get a column each in the list of cases, and beside each other in measurements


def order_of_cases(cases, report):
    """Cases with the worst first: what failed, then by mean Dice, then what has none; else by name."""
    failed = {failure.case for failure in report.failures} if report else set()

    def rank(case):
        dice = mean_of(rows_of(report, case.id), "dice")
        return (0 if case.id in failed else 1 if dice is not None else 2, 0 if dice is None else dice, case.id)

    return tuple(sorted(cases, key=rank))


def rows_of(report, case):
    return [row for row in report.rows if row.case == case] if report else []


def mean_of(rows, metric):
    values = [row[metric] for row in rows if row[metric] is not None]
    return float(np.mean(values)) if values else None


def cell(value, metric):
    """A value of a metric: three digits where it has no unit or is a small volume, five where it is small itself, else two."""
    fine = unit_of(metric) == "" or (unit_of(metric) == "mL" and abs(value or 0) < 10)
    return number(None if value is None else float(value), 5 if metric in FINE else 3 if fine else 2)


def summary_sections(report, addresses, folders):
    """Means, distributions, what is undefined and what failed.

    Args:
        addresses: {case: '#id'}; an empty one where a case is not on the page.
    """
    structures = report.labels.structures
    tolerances = sorted({row.tolerance_mm for row in report.rows})
    tolerance = " to ".join(dict.fromkeys(f"{t:.3g}" for t in (tolerances[0], tolerances[-1]))) if tolerances else "–"
    plots = []
    for metric, (low, high) in PLOTTED.items():
        lines = [_plotted(report, structure, metric, addresses) for structure in structures]
        drawn = draw_distribution(COLUMNS[metric], lines, low=low, high=high, digits=2 if unit_of(metric) == "mm" else 3)
        if drawn:
            plots.append(f'<figure class="plot">{drawn}</figure>')
    return (
        f"{_means(report, COLUMNS)}"
        f'<p class="small">Means over cases with 95 % bootstrap intervals. NSD: share of the two surfaces within '
        f"{tolerance} mm of each other. HD95: 95th percentile of the distance between surfaces. ASSD: its mean. "
        f"Volume error: predicted minus reference.</p>"
        f'<div class="plots">{"".join(plots)}</div>'
        f'<p class="small">A dot is a case, and leads to it. The box is the middle half of the cases, its line the median; '
        f"the diamond is the mean with its 95 % interval. A triangle stands for a value beyond the axis.</p>"
        f"{_masks_as_volumes(report)}{_undefined(report)}{_failures(report, folders)}"
    )


def _means(report, columns):
    """The mean of each metric ({name: title}) for each structure, with its interval."""
    rows = []
    for i, structure in enumerate(report.labels.structures):
        found = [report.summary(structure, metric) for metric in columns]
        rows.append([swatch(i, structure), number(found[0].n_cases), *map(_mean_cell, found)])
    if len(rows) > 1:
        means = {metric: mean for metric, mean, _ in report.foreground_mean}
        rows.append(["mean of structures", "", *(cell(means[metric], metric) for metric in columns)])
    return table(["structure", "cases", *columns.values()], rows)


def _masks_as_volumes(report):
    """The second table: errors of the masks as volumes, with the share that they hang on; '' where they were not measured."""
    columns = mask_columns(report)
    if not columns or not report.rows:
        return ""
    return f'<h3>The masks as volumes of 0 and 1</h3>{_means(report, columns)}<p class="small">{text(mask_legend(report))}</p>'


def _mean_cell(summary):
    if summary.mean is None:
        return f'undefined <span class="of">0 of {summary.n_cases}</span>'
    metric = summary.metric
    shown = cell(summary.mean, metric)
    if summary.low is not None:
        shown += interval(cell(summary.low, metric), cell(summary.high, metric))
    return shown if summary.n == summary.n_cases else f'{shown} <span class="of">{summary.n} of {summary.n_cases}</span>'


def _plotted(report, structure, metric, addresses):
    dots = [
        (row.case, row[metric], addresses.get(row.case, ""))
        for row in report.rows
        if row.structure == structure and row[metric] is not None
    ]
    summary = report.summary(structure, metric)
    return structure, dots, summary.mean, summary.low, summary.high


def _undefined(report):
    found = {}
    for row in report.rows:
        for name, value, reason in row.values:
            if reason:
                metrics, cases = found.setdefault((row.structure, reason, value is None), ({}, {}))
                metrics[name], cases[row.case] = None, None
    items = [
        f"<li>{text(structure)}, {text(reason)}: {'undefined' if undefined else 'stand-in'} {text(', '.join(metrics))} "
        f"in {len(cases)} of {len(report.cases)} cases</li>"
        for (structure, reason, undefined), (metrics, cases) in found.items()
    ]
    return f'<h3>Undefined values and stand-ins</h3><ul class="small">{"".join(items)}</ul>' if items else ""


def _failures(report, folders):
    items = [f"<li><strong>{text(f.case)}</strong>: {text(scrubbed(f.reason, folders))}</li>" for f in report.failures]
    parts = [f'<h3>Not scored, and in no mean</h3><ul class="bad-list">{"".join(items)}</ul>'] if items else []
    if report.not_scored:
        some = ", ".join(map(text, report.not_scored[:10])) + (", …" if len(report.not_scored) > 10 else "")
        parts.append(f'<p class="small">Without a reference: {len(report.not_scored)} predictions ({some}).</p>')
    return "".join(parts)


def overview(cases, report, addresses):
    """All cases as a table, in their order."""
    if report is None or not report.rows:
        return ""
    structures = report.labels.structures
    wide = len(structures) <= FEW_COLUMNS
    heads = [
        "case",
        "mean Dice",
        *((f"Dice {s}" for s in structures) if wide else ["lowest Dice"]),
        "mean NSD",
        "largest HD95, mm",
    ]
    failed = {failure.case for failure in report.failures}
    lines = []
    for case in cases:
        rows = rows_of(report, case.id)
        address = addresses.get(case.id)
        name = f'<a href="{address}">{text(case.id)}</a>' if address else text(case.id)
        name += f' <span class="verdict" data-of="{text(case.id)}"></span>'
        if not rows:
            lines.append([name, "not scored" if case.id in failed else "no reference", *[""] * (len(heads) - 2)])
            continue
        dice = [row["dice"] for row in rows]
        worst = min((row for row in rows if row["dice"] is not None), key=lambda row: row["dice"], default=None)
        each = [cell(d, "dice") for d in dice] if wide else [_lowest(worst)]
        distances = [row["hd95_mm"] for row in rows if row["hd95_mm"] is not None]
        far = cell(max(distances, default=None), "hd95_mm")
        lines.append([name, _bar(mean_of(rows, "dice")), *each, cell(mean_of(rows, "nsd"), "nsd"), far])
    return table(heads, lines, css="overview")


def _lowest(row):
    return "–" if row is None else f"{cell(row['dice'], 'dice')} <span class='of'>{text(row.structure)}</span>"


def _bar(value):
    share = 0 if value is None else max(0.0, min(value, 1.0))
    return f'<span class="share" style="--share:{share:.3f}">{cell(value, "dice")}</span>'


def case_article(case, scene, report, labels, address, *, pictures="", fault="", folders=()):
    """One case: pictures, numbers, measurements, and the buttons of the review.

    Args:
        scene: Scene, or None where there is nothing to draw.
        address: '#id' of the article.
        pictures: HTML of the planes.
        fault: why there are none.
    """
    rows = rows_of(report, case.id)
    reasons = {failure.case: failure.reason for failure in report.failures} if report else {}
    notes = [scrubbed(str(note), folders) for note in case.record.get("notes", [])]
    notes += [f"not scored: {scrubbed(reasons[case.id], folders)}"] if case.id in reasons else []
    notes += list(scene.notes) if scene else [f"no picture: {scrubbed(fault or 'the mask was not found', folders)}"]
    for row in rows:
        notes += [f"{row.structure}: {reason.partition(':')[0]}" for _, _, reason in row.values if reason]
    dice = mean_of(rows, "dice")
    score = "" if dice is None else f'<span class="score">mean Dice {cell(dice, "dice")}</span>'
    numbers = _metrics(rows, labels) if rows else _volumes(scene, labels) if scene else ""
    listed = "".join(f"<li>{text(note)}</li>" for note in dict.fromkeys(notes))
    return (
        f'<article class="case" id="{address[1:]}" data-case="{text(case.id)}">'
        f"<header><h3>{text(case.id)}</h3>{score}</header>"
        f"{pictures}{numbers}{_measurements(case.record)}"
        f"{f'<ul class=notes>{listed}</ul>' if listed else ''}{REVIEW}</article>"
    )


REVIEW = (
    '<div class="review" role="group" aria-label="Review of this case">'
    + "".join(
        f'<button type="button" data-verdict="{verdict}" aria-pressed="false">{verdict}</button>'
        for verdict in ("good", "unsure", "bad")
    )
    + '<input type="text" placeholder="comment" aria-label="Comment on this case"></div>'
)


def _metrics(rows, labels):
    known = [metric for metric in IN_CASES if metric in {name for name, _, _ in rows[0].values}]
    lines = [
        [swatch(labels.structures.index(row.structure), row.structure), *(cell(row[metric], metric) for metric in known)]
        for row in rows
    ]
    return table(["structure", *(TITLES[metric] for metric in known)], lines)


def _volumes(scene, labels):
    """Volumes by counting voxels: the least that can be said of a mask without a reference."""
    data = scene.reference if scene.predicted is None else scene.predicted
    lines = []
    for number_, structure in enumerate(labels.structures):
        volume = volume_ml(int(labels.mask(data, number_).sum()), scene.geometry.spacing_mm)
        lines.append([swatch(number_, structure), number(float(volume), 2)])
    return table(["structure", "volume, mL"], lines)


def _measurements(record):
    """Measurements of CASE.json, a row for each that some structure has, a column per structure, not too many beside each
    other; '' without any."""
    found = [entry for entry in record.get("measurements") or () if "structure" in entry]
    tables = [_measured(found[i : i + FEW_COLUMNS]) for i in range(0, len(found), FEW_COLUMNS)]
    return f"<details><summary>Measurements</summary>{''.join(tables)}</details>" if any(tables) else ""


def _measured(entries):
    rows = []
    for name in dict.fromkeys(key for entry in entries for key in entry if key != "structure"):
        values = [entry.get(name) for entry in entries]
        if any(value not in (None, "") for value in values):
            rows.append([text(name.replace("_", " ")), *(text(number(value, _digits(value))) for value in values)])
    return table(["measured", *(entry["structure"] for entry in entries)], rows) if rows else ""


def _digits(value):
    return 1 if isinstance(value, list) or (isinstance(value, float) and abs(value) >= 1000) else 3
