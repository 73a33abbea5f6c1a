"""The box "How sure is this?" of a case: what is known for and against trusting its prediction."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from autoseg.data.labels import LabelSchema
from autoseg.page.markup import Table, number, swatch
from autoseg.page.rendering import render
from autoseg.records import LOW_AGREEMENT, CalibrationAbout, CaseRecord, disagreed

__all__ = ["sure_box"]


def sure_box(record: CaseRecord, labels: LabelSchema, calibration: CalibrationAbout | None = None) -> Markup:
    """Differences from the training scans, inter-fold Dice and calibration of a prediction; '' if nothing is known.

    Args:
        calibration: of the model that made the prediction; None if it is unknown.
    """
    agreement, errors = record.agreement, calibration.errors if calibration else {}
    if record.unlike is None and not agreement and not errors:
        return Markup()
    worst = max(errors, key=lambda name: errors[name], default="")
    return render(
        "sure.html",
        unlike=record.unlike,
        folds=_of_folds(record, labels) if agreement else None,
        low=disagreed(agreement),
        threshold=LOW_AGREEMENT,
        calibration=calibration if errors else None,
        error=_points(errors.values()),
        worst=(worst, _points([errors[worst]])) if len(errors) > 1 else None,
        before=_points(calibration.before.values()) if calibration else "",
        after=_points(calibration.after.values()) if calibration else "",
        helps=calibration is not None and _mean(calibration.after.values()) < _mean(calibration.before.values()),
    )


def _points(errors: Iterable[float]) -> str:
    """The mean of calibration errors, formatted in percentage points."""
    return number(100 * _mean(errors), 1)


def _mean(errors: Iterable[float]) -> float:
    found = list(errors)
    return sum(found) / len(found) if found else 0.0


def _of_folds(record: CaseRecord, labels: LabelSchema) -> Table:
    """Inter-fold Dice of each structure; the low ones are marked."""
    colours = {name: number for number, name in enumerate(labels.structures)}
    low, rows = set(disagreed(record.agreement)), []
    for name, dice in record.agreement.items():
        mark = Markup('<span class="warn">look at this</span> ') if name in low else Markup()
        rows.append([swatch(colours[name], name) if name in colours else name, Markup(f"{mark}{number(dice)}")])
    return Table(["structure", "inter-fold Dice"], rows)
