"""Several methods on the same cases: the scores of each, and which differences the data support.

Every metric becomes one value per case: the mean over the case's structures for which it is defined. A falsely predicted
structure (Dice 0) counts; one that is correctly absent (undefined) does not. Means over cases have bootstrap intervals. The
first method, chosen before the data were seen, is compared with each other one.

A method that was trained several times is the mean of its training runs, case by case. A difference then counts only if it
holds over cases and over training runs, since either alone can mislead.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from autoseg.evaluation.restored import RestoredRow
from autoseg.evaluation.statistics import (
    Difference,
    is_equivalent,
    mean_interval,
    paired_difference,
    paired_trainings,
    wilcoxon_holm,
)
from autoseg.names import counted

__all__ = [
    "RECONSTRUCTION",
    "SCALES",
    "SEGMENTATION",
    "SHARE",
    "Comparison",
    "Method",
    "Cost",
    "Interval",
    "Scale",
    "average_trainings",
    "compare_scores",
    "evidence",
    "verdict",
]

LEVEL = 0.05


@dataclass(frozen=True)
class Scale:
    """How a metric is printed: heading, factor and digits, and whether higher is better."""

    heading: str
    factor: float = 1.0
    digits: int = 2
    more_is_better: bool = True

    @property
    def unit(self) -> str:
        """The unit of a difference, after a space; '' for a number without one."""
        _, comma, unit = self.heading.partition(", ")
        return comma and f" {'percentage points' if unit == '%' else unit}"

    def text(self, value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{round(self.factor * value, self.digits) + 0.0:{sign}.{self.digits}f}"


SEGMENTATION = {
    "dice": Scale("Dice, %", 100),
    "iou": Scale("IoU, %", 100),
    "nsd": Scale("NSD, %", 100),
    "hd95_mm": Scale("HD95, mm", more_is_better=False),
}
RECONSTRUCTION = {
    "mse_mask": Scale("MSE of masks", digits=5, more_is_better=False),
    "ssim_mask": Scale("SSIM of masks", digits=4),
    "mse": Scale("MSE of restored intensities", digits=5, more_is_better=False),
    "ssim": Scale("SSIM of restored intensities", digits=4),
}
SCALES = SEGMENTATION | RECONSTRUCTION
SHARE = {"foreground_share": Scale("fraction of the image", digits=5)}  # the mask errors depend on it
Scores = Mapping[tuple[str, str], Mapping[str, float | None]]


@dataclass(frozen=True)
class Cost:
    """The cost of a method; None for unknown values.

    Attributes:
        parameters, operations: of the network; operations count one forward pass over one patch.
        steps, seconds, seconds_per_step: of its training run.
        memory_mib: peak memory of its training run.
        predict_seconds: time of the networks for one validation case.
        device, precision: used in training.
        mirrored: ``yes`` or ``no``.
        features: of each stage.
        batch_size: patches in a batch.
    """

    parameters: float | None = None
    operations: float | None = None
    steps: float | None = None
    seconds: float | None = None
    seconds_per_step: float | None = None
    memory_mib: float | None = None
    predict_seconds: float | None = None
    device: str | None = None
    precision: str | None = None
    mirrored: str | None = None
    features: tuple[int, ...] | None = None
    batch_size: float | None = None


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: shown to the reader.
        scores: (case, structure) -> metric -> value, None where undefined.
        restored: a row for each case and degradation; empty if the method restores no intensities.
        cost: see Cost.
        failures: sentences about cases that failed.
        trainings: seed -> result of that training run, if the values are means over several; else empty.
    """

    name: str
    scores: Scores
    restored: tuple[RestoredRow, ...] = ()
    cost: Cost = Cost()
    failures: tuple[str, ...] = ()
    trainings: Mapping[int, Method] = field(default_factory=dict)

    def by_case(self, metric: str) -> dict[str, float | None]:
        """Case -> mean over the structures or degradations for which the metric is defined; None if there are none."""
        rows: list[tuple[str, Mapping[str, float | None]]] = [(case, values) for (case, _), values in self.scores.items()]
        if metric in ("mse", "ssim"):
            rows = [(row.case, row.values) for row in self.restored]
        found: dict[str, list[float | None]] = {}
        for case, values in rows:
            found.setdefault(case, []).append(values.get(metric))
        defined = {case: [value for value in values if value is not None] for case, values in found.items()}
        return {case: statistics.fmean(values) if values else None for case, values in defined.items()}

    def mean_of(self, metric: str) -> float | None:
        """Mean over the cases in which the metric is defined; None if there are none."""
        values = [value for value in self.by_case(metric).values() if value is not None]
        return statistics.fmean(values) if values else None


def average_trainings(trainings: Mapping[int, Method]) -> Method:
    """One Method from several training runs of a method: means of scores, restored intensities and costs.

    Args:
        trainings: seed -> Method, at least one. Undefined values are left out of the mean; values that are not numbers,
            such as the device, are those of the first training run.
    """
    several = list(trainings.values())
    restored: dict[tuple[str, str], list[RestoredRow]] = {}
    for row in (row for method in several for row in method.restored):
        restored.setdefault((row.case, row.degradation), []).append(row)
    keys = dict.fromkeys(key for method in several for key in method.scores)
    costs = [{name.name: getattr(method.cost, name.name) for name in fields(Cost)} for method in several]
    return Method(
        name=several[0].name,
        scores={key: _mean_values([c.scores[key] for c in several if key in c.scores]) for key in keys},
        restored=tuple(replace(rows[0], values=_mean_values([row.values for row in rows])) for rows in restored.values()),
        cost=Cost(**_mean_values(costs)),
        failures=tuple(f"seed {seed}, {failure}" for seed, c in trainings.items() for failure in c.failures),
        trainings=trainings,
    )


def _mean_values(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Name -> mean of that value over several dictionaries."""
    means = {}
    for name in dict.fromkeys(name for values in several for name in values):
        found = [values[name] for values in several if values.get(name) is not None]
        differ = any(value != found[0] for value in found)
        means[name] = statistics.fmean(found) if differ and isinstance(found[0], int | float) else next(iter(found), None)
    return means


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` cases with its 95 % bootstrap interval; None with too few cases."""

    n: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """The result of comparing methods.

    Attributes:
        methods: in the order given; the first one with scores is the ``reference``.
        means: name -> metric -> Interval.
        differences: metric -> name of another method -> Difference, reference minus that one; p values after Holm.
        over_trainings: the same over pairs of training runs with the same seed; empty unless the reference has several.
        margin: mean Dice within this difference is called equivalent.
        failed: name -> why it has no scores.
        gates_closed: name -> (Method, Difference of Dice): the same network with its attention switched off, and the Dice
            lost by that.
    """

    methods: tuple[Method, ...]
    means: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Difference]]
    over_trainings: dict[str, dict[str, Difference]]
    margin: float
    failed: dict[str, str]
    gates_closed: dict[str, tuple[Method, Difference]]

    @property
    def reference(self) -> str:
        return self.methods[0].name

    def sentences(self) -> list[str]:
        """What the data support: one sentence for each deciding metric, then one for each network with gates."""
        if not self.methods:
            return ["No network was trained, so nothing can be said."]
        if len(self.methods) == 1:
            lines = [f"{self.reference} stands alone: there is nothing to compare it with."]
        else:
            lines = [self._sentence(metric) for metric in ("dice", "mse_mask") if self._is_known(metric)]
        return lines + [
            f"{name} with open minus with closed gates: Dice {evidence('dice', difference)}. "
            + GATES[verdict(difference, "dice", self.margin)].format(margin=100 * self.margin)
            for name, (_, difference) in self.gates_closed.items()
        ]

    def _is_known(self, metric: str) -> bool:
        return any(difference.n for difference in self.differences[metric].values())

    def _sentence(self, metric: str) -> str:
        groups: dict[str, list[str]] = {}
        for name, difference in self.differences[metric].items():
            trainings = self.over_trainings.get(metric, {}).get(name)
            kind = verdict(difference, metric, self.margin if metric == "dice" else 0.0, trainings)
            groups.setdefault(kind, []).append(f"{name} ({evidence(metric, difference, trainings)})")
        parts = [
            PHRASES[kind].format(margin=100 * self.margin) + " " + ", ".join(groups[kind]) for kind in PHRASES if kind in groups
        ]
        return f"{SCALES[metric].heading.split(',')[0]}: {self.reference} {'; it '.join(parts)}."


PHRASES = {
    "better": "is better than",
    "worse": "is worse than",
    "equivalent": "is equivalent, within {margin:g} percentage points, to",
    "no_worse": "is not worse, by {margin:g} percentage points or more, than",
    "open": "was not shown to differ from",
    "unknown": "cannot be compared with",
}
GATES = {
    "better": "What it has learned relies on its attention.",
    "worse": "Its attention does harm.",
    "equivalent": "Its attention makes no difference above {margin:g} percentage points.",
    "no_worse": "Its attention does no harm of {margin:g} percentage points or more; that it does good was not shown.",
    "open": "No effect of its attention was shown.",
    "unknown": "Nothing can be said.",
}


def verdict(difference: Difference, metric: str, margin: float, trainings: Difference | None = None) -> str:
    """better, worse, equivalent, no_worse, open or unknown, for the first of two methods.

    A difference counts if the corrected p value is below 0.05 and the interval excludes zero. With ``trainings``, the
    Difference over several training runs, its interval must agree with any verdict. ``equivalent``: the interval is
    within ``margin`` of zero. ``no_worse``: it is above ``-margin`` (if higher is better).
    """
    if difference.p_value is None or difference.low is None:
        return "unknown"
    both = [difference] if trainings is None else [difference, trainings]
    ends = [(found.low, found.high) for found in both if found.low is not None and found.high is not None]
    if len(ends) < len(both):
        return "open"
    if difference.p_value < LEVEL and (all(low > 0 for low, _ in ends) or all(high < 0 for _, high in ends)):
        return "better" if (difference.low > 0) == SCALES[metric].more_is_better else "worse"
    if all(is_equivalent(found, margin) for found in both):
        return "equivalent"
    no_worse = margin and SCALES[metric].more_is_better and all(low > -margin for low, _ in ends)
    return "no_worse" if no_worse else "open"


def evidence(metric: str, difference: Difference, trainings: Difference | None = None) -> str:
    """A difference with unit, interval, p value and number of cases; and its interval over training runs, if there are any."""
    scale, cases = SCALES[metric], counted(difference.n, "case")
    if difference.low is None:
        return cases
    mean = f"{scale.text(difference.mean, '+')}{scale.unit}"
    found = f"{mean} {interval_text(scale, difference)}, {p_text(difference.p_value)}, {cases}"
    if trainings is None:
        return found
    if trainings.low is None:
        return f"{found}; fewer than two pairs of training runs"
    return f"{found}; over {trainings.n} training runs {interval_text(scale, trainings)}"


def interval_text(scale: Scale, found: Interval | Difference) -> str:
    """The limits of an Interval or a Difference in brackets; empty if there are none."""
    return "" if found.low is None else f"[{scale.text(found.low)}, {scale.text(found.high)}]"


def p_text(p_value: float | None) -> str:
    """A p value as text; empty if there is none."""
    if p_value is None:
        return ""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def compare_scores(
    methods: Sequence[Method],
    *,
    margin: float,
    failed: Mapping[str, str] | None = None,
    gates_closed: Mapping[str, Method] | None = None,
) -> Comparison:
    """A Comparison of methods on the same cases.

    Args:
        methods: the first is compared with each other one.
        margin: equivalence margin, in Dice from 0 to 1.
        failed: name -> why a method has no scores.
        gates_closed: name of a method -> Method, its scores with closed gates.
    """
    values = {c.name: {metric: c.by_case(metric) for metric in SHARE | SCALES} for c in methods}
    means = {name: {metric: _interval(cases.values()) for metric, cases in found.items()} for name, found in values.items()}
    first = next(iter(values), "")
    differences, over_trainings = {}, {}
    for metric in SCALES if len(values) > 1 else ():
        cases = sorted(set().union(*(found[metric] for found in values.values())))
        columns = {name: [found[metric].get(case) for case in cases] for name, found in values.items()}
        differences[metric] = wilcoxon_holm(columns.pop(first), columns)
        if methods[0].trainings:
            over_trainings[metric] = {c.name: _over_trainings(methods[0], c, metric) for c in methods[1:]}
    return Comparison(
        methods=tuple(methods),
        means=means,
        differences=differences,
        over_trainings=over_trainings,
        margin=margin,
        failed=dict(failed or {}),
        gates_closed={
            name: (closed, _dice_difference(values[name]["dice"], closed.by_case("dice")))
            for name, closed in (gates_closed or {}).items()
        },
    )


def _dice_difference(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> Difference:
    cases = sorted(first)
    return paired_difference([first[case] for case in cases], [second.get(case) for case in cases])


def _over_trainings(first: Method, second: Method, metric: str) -> Difference:
    """Difference over the seeds with which both were trained."""
    seeds = [seed for seed in first.trainings if seed in second.trainings]
    return paired_trainings(*([c.trainings[seed].mean_of(metric) for seed in seeds] for c in (first, second)))


def _interval(values: Iterable[float | None]) -> Interval:
    defined = [value for value in values if value is not None]
    return Interval(len(defined), statistics.fmean(defined) if defined else None, *mean_interval(defined))
