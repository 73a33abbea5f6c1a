"""Chooses the configuration to ship: the better one if the data support that, else the cheaper one.

The configuration with the highest mean Dice is tested against every cheaper one on the same cases. If it is not shown to be
better than some of them, the cheapest of these is chosen; otherwise it is chosen itself. A configuration that failed on some
cases is left out if another one succeeded on all, because its mean is only over its own cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autoseg.evaluation.comparison import SCALES, Method, evidence, verdict
from autoseg.evaluation.statistics import Difference, wilcoxon_holm
from planners.plan import Decision

__all__ = ["choose", "improvements"]

METRIC = "dice"


def choose(methods: Sequence[Method], costs: Mapping[str, float], margin: float) -> tuple[str, Decision]:
    """(name of the method to ship, why).

    Args:
        methods: one or more that scored the same cases.
        costs: name -> cost, in any unit.
        margin: methods are equivalent if their mean Dice differs by less.
    """
    methods, unable = _able(methods)
    ranked = sorted(methods, key=lambda one: (-(one.mean_of(METRIC) or 0.0), costs[one.name]))
    best = ranked[0]
    cheaper = [one for one in methods if costs[one.name] < costs[best.name]]
    numbers = ", ".join(f"{one.name} {SCALES[METRIC].text(one.mean_of(METRIC))}" for one in ranked) + unable
    if len(methods) == 1:
        return best.name, Decision("configuration", best.name, "there is no other", f"mean Dice, %: {numbers}")
    if not cheaper:
        return best.name, Decision("configuration", best.name, "it has the highest Dice and costs least", f"Dice, %: {numbers}")
    found = _differences(best, cheaper)
    open_ones = [one for one in cheaper if verdict(found[one.name], METRIC, margin) != "better"]
    told = "; ".join(f"{best.name} minus {name}: {evidence(METRIC, difference)}" for name, difference in found.items())
    if not open_ones:
        rule = "it is better than each that costs less, and the data support it"
        return best.name, Decision("configuration", best.name, rule, f"Dice, %: {numbers}; {told}")
    chosen = min(open_ones, key=lambda one: costs[one.name])
    ratio = costs[best.name] / costs[chosen.name]
    rule = f"{best.name} was not shown to be better, and takes {ratio:.2g} times the operations"
    return chosen.name, Decision("configuration", chosen.name, rule, f"Dice, %: {numbers}; {told}")


def _able(methods: Sequence[Method]) -> tuple[Sequence[Method], str]:
    """(the methods that succeeded on all cases, or all if none did; a sentence about the others)."""
    able = [one for one in methods if not one.failures] or methods
    left = [f"{one.name} ({len(one.failures)})" for one in methods if one not in able]
    return able, f"; left out, since they failed in some cases: {', '.join(left)}" if left else ""


def improvements(one: Method, others: Sequence[Method], margin: float) -> dict[str, tuple[bool, str]]:
    """For each of the others: whether the data support that it is better than ``one``, p corrected for their number; and how.

    A method that failed on some cases is no improvement on one that succeeded on all.
    """
    found, unable = {}, {other.name for other in others if other.failures and not one.failures}
    for name, less in _differences(one, others).items():
        mean, low, high = (None if value is None else -value for value in (less.mean, less.high, less.low))
        more = replace(less, mean=mean, low=low, high=high)
        better = verdict(more, METRIC, margin) == "better" and name not in unable
        found[name] = better, evidence(METRIC, more) + (", failed in some cases" if name in unable else "")
    return found


def _differences(one: Method, others: Sequence[Method]) -> dict[str, Difference]:
    """Differences ``one`` minus each of the others, over the cases that any of them has."""
    values = {method.name: method.by_case(METRIC) for method in (one, *others)}
    cases = sorted(set().union(*values.values()))
    columns = {name: [found.get(case) for case in cases] for name, found in values.items()}
    return wilcoxon_holm(columns.pop(one.name), columns)
