"""Study section of the report: what was compared, what was decided and why, and the effect of each decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from autoseg.data.labels import LabelSchema
from autoseg.evaluation.comparison import SCALES, SEGMENTATION, Interval, Scale, interval_text, p_text
from autoseg.evaluation.comparison_report import ComparisonRecord
from autoseg.evaluation.statistics import Difference, few_cases
from autoseg.evaluation.study_findings import Change, StudyFindings
from autoseg.page.markup import Table, interval, number, scrubbed, swatch, text
from autoseg.page.rendering import render

__all__ = ["StudyShown", "study_section"]

DICE = SEGMENTATION["dice"]
GFLOP = Scale("GFLOP per patch", 1e-9)


@dataclass(frozen=True)
class StudyShown:
    """Findings of a study, and its comparison, or None if that is missing."""

    found: StudyFindings
    comparison: ComparisonRecord | None


def study_section(shown: StudyShown, labels: LabelSchema, folders: Sequence[str]) -> Markup:
    """The comparison with its paired statistics, the decisions, ensembles, post-processing and calibration.

    Args:
        labels: structures, in the order of their colours.
        folders: removed from messages.
    """
    found, comparison = shown.found, shown.comparison
    colours = {name: swatch(i, name) for i, name in enumerate(labels.structures)}
    first = comparison.networks[0].name if comparison and comparison.networks else ""
    return render(
        "study.html",
        chosen=found.chosen,
        support=comparison.support if comparison else (),
        configurations=_configurations(comparison, found) if comparison else None,
        few=few_cases(mean.n for one in comparison.networks for mean in one.means.values()) if comparison else "",
        about=found.about,
        first=first,
        differences=_differences(comparison) if comparison and comparison.differences else None,
        decisions=Table(
            ["what", "decided", "why", "from which numbers"],
            [[one.what, one.chosen, one.rule, one.numbers or "–"] for one in found.decisions],
            css="prose",
            numeric_from=4,
        ),
        ensembles=_changes("two together", found.ensembles, {}, with_kept=True) if found.ensembles else None,
        cleaned=_changes("structure", found.cleaned, colours) if found.cleaned else None,
        calibration=_calibration(found, colours),
        calibrated=found.calibration,
        checks=found.checks,
        failed=[(name, scrubbed(reason, folders)) for name, reason in found.failed.items()],
    )


def _configurations(comparison: ComparisonRecord, found: StudyFindings) -> Table:
    """One row per configuration: mean of each metric with its interval, and floating-point operations per patch."""
    rows: list[list[str]] = []
    for one in comparison.networks:
        mark = Markup(' <span class="of">in the model</span>') if one.name == found.chosen else Markup()
        cells = [_mean(scale, one.means.get(metric)) for metric, scale in SEGMENTATION.items()]
        rows.append([text(one.name) + mark, *cells, GFLOP.text(one.cost.operations)])
    return Table(["configuration", *(scale.heading for scale in SEGMENTATION.values()), GFLOP.heading], rows)


def _mean(scale: Scale, found: Interval | None) -> Markup | str:
    if found is None or found.mean is None:
        return "–"
    ends = interval(scale.text(found.low), scale.text(found.high)) if found.low is not None else Markup()
    return text(scale.text(found.mean)) + ends


def _differences(comparison: ComparisonRecord) -> Table:
    """The first configuration minus each other one, with intervals and p values."""
    metrics = [metric for metric in SEGMENTATION if comparison.differences.get(metric)]
    others = [one.name for one in comparison.networks[1:]]
    rows = [[name, *(_difference(SCALES[m], comparison.differences[m].get(name)) for m in metrics)] for name in others]
    return Table(["minus", *(SCALES[metric].heading for metric in metrics)], rows)


def _difference(scale: Scale, found: Difference | None) -> str:
    if found is None or found.mean is None:
        return "–"
    return " ".join(filter(None, [scale.text(found.mean, "+"), interval_text(scale, found), p_text(found.p_value)]))


def _changes(heading: str, changes: Sequence[Change], colours: dict[str, Markup], with_kept: bool = False) -> Table:
    rows: list[list[str]] = []
    for one in changes:
        kept = ["yes" if one.kept else "no"] if with_kept else []
        before_after = [DICE.text(one.before), DICE.text(one.after), _difference(DICE, one.difference)]
        rows.append([colours.get(one.name, text(one.name)), *before_after, *kept])
    return Table([heading, "Dice before, %", "after, %", "difference", *(["in the model"] if with_kept else [])], rows)


def _calibration(found: StudyFindings, colours: dict[str, Markup]) -> Table | None:
    known = found.calibration
    if known is None:
        return None
    rows: list[list[str]] = [
        [colours.get(name, text(name)), number(before, 4), number(known.after[name], 4)]
        for name, before in known.before.items()
    ]
    return Table(["structure", "calibration error", "with temperature"], rows)
