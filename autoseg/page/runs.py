"""Sections about a training run: curves, the plan with its reasons, the recipe, the data set, and image restoration."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from autoseg.data.findings import Finding
from autoseg.evaluation.restored import RESTORED_COLUMNS, RestorationResult, RestoredColumn, RestoredMean
from autoseg.evaluation.statistics import few_cases
from autoseg.page.markup import Table, colour_of, interval, number, scrubbed, text
from autoseg.page.plots import Curve, draw_lines
from autoseg.page.rendering import render
from autoseg.records import FoldRecord, Validation
from autoseg.training.recipe import setting_names
from planners.fingerprint import Fingerprint
from planners.plan import Decision

__all__ = ["RunRecord", "data_section", "plan_section", "recipe_section", "restoration_section", "training_section"]

AXES = ("towards the head (z)", "towards the front (y)", "towards the right (x)")
INTENSITIES = {  # field of a channel's statistics: column title
    "mean": "mean",
    "std": "standard deviation",
    "percentile_00_5": "0.5 %",
    "percentile_99_5": "99.5 %",
    "minimum": "lowest",
    "maximum": "highest",
}
RESTORED = ("ssim", "bar_ssim", "ssim_gain", "mse", "bar_mse", "skill")  # the columns that fit
MOST_FINDINGS = 40
FEW_FINDINGS = 8  # a longer list is collapsed


@dataclass(frozen=True)
class RunRecord:
    """What is stored about a fold.

    Attributes:
        fold: what was trained, where and with what.
        history: its validations.
        fingerprint, findings: of the data set; None and () if they are not found.
        restoration: scores of image restoration; None if there are none.
    """

    fold: FoldRecord
    history: tuple[Validation, ...] = ()
    fingerprint: Fingerprint | None = None
    findings: tuple[Finding, ...] = ()
    restoration: RestorationResult | None = None


def training_section(record: RunRecord) -> Markup:
    """Facts and curves of the training run."""
    fold, task, last = record.fold, record.fold.task, record.history[-1] if record.history else None
    facts = (
        ("data set", task.plan.dataset),
        ("network", task.plan.network.name),
        ("steps", number(last.step if last else None)),
        ("time", _duration(last.seconds) if last else None),
        ("training cases", len(task.training)),
        ("validation cases", len(task.validation)),
        ("device", fold.device),
        ("patches in a batch", fold.batch_size),
        ("seed", task.seed),
        ("autoseg", fold.versions.get("autoseg")),
        ("torch", fold.versions.get("torch")),
    )
    return render("training.html", facts=facts, checked=bool(record.history), **_curves(record.history))


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


def _curves(history: Sequence[Validation]) -> dict[str, Markup]:
    """{name in the template: plot} of the training section."""
    steps = [check.step for check in history]
    losses = [
        Curve("training", "first", [check.train_loss for check in history]),
        Curve("validation patches", "second", [check.validation_loss for check in history]),
    ]
    names = list(history[-1].patch_dice) if history else []
    dice = [Curve(name, colour_of(i), [check.patch_dice.get(name) for check in history]) for i, name in enumerate(names)]
    rate = [Curve("learning rate", "first", [check.learning_rate for check in history])]
    return {
        "loss": draw_lines("Loss", steps, losses),
        "dice": draw_lines("Dice on validation patches", steps, dice, low=0.0, high=1.0),
        "rate": draw_lines("Learning rate", steps, rate, low=0.0),
    }


def plan_section(record: RunRecord) -> Markup:
    """The plan, and the reason for each decision of the planner and of the training run."""
    plan = record.fold.task.plan
    told = {decision.what for decision in plan.decisions}
    settled = [decision for decision in record.fold.decisions if decision.what not in told]
    facts = (
        ("plan", plan.name),
        ("planner", f"{plan.planner}, preset {plan.preset}"),
        ("spacing", f"{_by_axis(plan.spacing_mm, '.3g')} mm"),
        ("patch", f"{_by_axis(plan.patch_size)} voxels"),
        ("planned batch", plan.batch_size),
        ("features", ", ".join(map(str, plan.network.features))),
        ("normalisation", ", ".join(f"{how.channel}: {how.scheme}" for how in plan.normalization)),
    )
    rows = [[_what(decision), decision.chosen, _why(decision)] for decision in (*plan.decisions, *settled)]
    decisions = Table(["decision", "chosen", "because"], rows, css="prose", numeric_from=9)
    return render("plan.html", facts=facts, decisions=decisions)


def _what(decision: Decision) -> Markup:
    mark = '<span class="warn">look at this</span> ' if decision.warning else ""
    return Markup(f"{mark}{text(decision.what)}")


def _why(decision: Decision) -> Markup:
    numbers = f'<br><span class="of">{text(decision.numbers)}</span>' if decision.numbers else ""
    return Markup(f"{text(decision.rule)}{numbers}")


def _by_axis(values: Iterable[float], digits: str = "g") -> str:
    return " × ".join(f"{value:{digits}}" for value in values)


def recipe_section(record: RunRecord) -> Markup:
    """Every setting of the recipe, in two tables."""
    task, names = record.fold.task, setting_names()  # files keep the names of earlier versions
    shown = [[names.get(name, name).replace("_", " "), _value(value)] for name, value in task.recipe.items()]
    shown.append(["requested length", ", ".join(f"{value:g} {name}" for name, value in task.length.items() if value)])
    half = -(-len(shown) // 2)
    return render("recipe.html", settings=[Table(["setting", "value"], part) for part in (shown[:half], shown[half:])])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_value(part) for part in value) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(part)}" for key, part in value.items())
    return f"{value:g}" if isinstance(value, float) else number(value)


def data_section(fingerprint: Fingerprint, findings: Sequence[Finding], folders: Sequence[str]) -> Markup:
    """The data set in numbers, and the findings of its verification."""
    spacings, shapes = zip(*fingerprint.spacings_mm, strict=True), zip(*fingerprint.shapes, strict=True)
    sizes = [[side, _spread(mm), _spread(n)] for side, mm, n in zip(AXES, spacings, shapes, strict=True)]
    channels = [
        [channel.name, *(number(float(getattr(channel, name)), 1) for name in INTENSITIES)] for channel in fingerprint.channels
    ]
    facts = (
        ("name", fingerprint.dataset),
        ("training cases", len(fingerprint.cases)),
        ("channels", ", ".join(channel.name for channel in fingerprint.channels)),
        ("structures", ", ".join(fingerprint.structures)),
        ("fraction left after cropping", f"{100 * fingerprint.relative_crop:.0f} % of the voxels, median"),
    )
    listed = [_finding(finding, folders) for finding in findings[:MOST_FINDINGS]]
    return render(
        "data.html",
        facts=facts,
        sizes=Table(["axis", "voxel size, mm: median (range)", "voxels: median (range)"], sizes, "Sizes after cropping"),
        channels=Table(["channel", *INTENSITIES.values()], channels, "Intensities in the labelled structures"),
        findings=Table(["finding", "case", "what", "remedy"], listed, css="prose", numeric_from=9),
        n_findings=len(findings),
        folded=len(findings) > FEW_FINDINGS,
        n_more=len(findings) - MOST_FINDINGS,
    )


def _spread(values: Sequence[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def _finding(finding: Finding, folders: Sequence[str]) -> list[str]:
    severity = text(finding.severity)
    code = Markup(f'<span class="{severity}">{severity}</span> {text(finding.code)}')
    return [code, *(scrubbed(said, folders) for said in (finding.case, finding.message, finding.remedy))]


def restoration_section(result: RestorationResult, folders: Sequence[str]) -> Markup:
    """Scores of image restoration, one row per kind of degradation."""
    columns = sorted((c for c in RESTORED_COLUMNS if c.metric in RESTORED), key=lambda column: RESTORED.index(column.metric))
    rows: list[list[str]] = []
    for kind, found in result.summary.items():
        cells = [_restored(found[column.metric], column) for column in columns]
        rows.append([kind.replace("_", " "), number(found["ssim"].n), *cells])
    return render(
        "restoration.html",
        restored=Table(["degraded by", "cases", *(column.title for column in columns)], rows),
        few=few_cases(mean.n for means in result.summary.values() for mean in means.values()),
        failures=[(case, scrubbed(why, folders)) for case, why in result.failures.items()],
    )


def _restored(found: RestoredMean, column: RestoredColumn) -> str:
    def said(value: float) -> str:
        return ("+" if column.signed and value > 0 else "") + number(value, column.digits)

    if found.mean is None:
        return number(None)
    low, high = found.interval
    return text(said(found.mean)) + ("" if low is None or high is None else interval(said(low), said(high)))
