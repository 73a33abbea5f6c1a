"""The box "How sure is this?" of a case: what speaks against trusting its prediction, and what does not."""

from __future__ import annotations

from markupsafe import Markup

from autoseg.data.labels import LabelSchema
from autoseg.page.markup import Table, number, swatch
from autoseg.page.rendering import render
from autoseg.records import LOW_AGREEMENT, CaseRecord, disagreed

__all__ = ["sure_box"]


def sure_box(record: CaseRecord, labels: LabelSchema) -> Markup:
    """What is known of how far a prediction can be trusted; '' where nothing is."""
    agreement = record.agreement
    if record.unlike is None and not agreement:
        return Markup()
    return render(
        "sure.html",
        unlike=record.unlike,
        folds=_of_folds(record, labels) if agreement else None,
        low=disagreed(agreement),
        threshold=LOW_AGREEMENT,
    )


def _of_folds(record: CaseRecord, labels: LabelSchema) -> Table:
    """Inter-fold Dice of each structure; the low ones are marked."""
    colours = {name: number for number, name in enumerate(labels.structures)}
    low, rows = disagreed(record.agreement), []
    for name, dice in record.agreement.items():
        mark = Markup('<span class="warn">look at this</span> ') if name in low else Markup()
        rows.append([swatch(colours[name], name) if name in colours else name, Markup(f"{mark}{number(dice)}")])
    return Table(["structure", "inter-fold Dice"], rows)
