"""Chooses the postprocessing rules for components and holes of a model, from the predictions of its cross-validation.

For each structure three rules are tried: keep only the largest component, remove components smaller than nearly all components
of the references, fill holes. A rule is kept if the paired test shows that it raises the Dice of the cases (Wilcoxon,
Holm-corrected for all rules that changed anything; the interval above zero) and no other structure loses. A structure that is
absent in both masks counts as Dice 1 here, so that removing false positives is a gain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.engines import Engine
from autoseg.evaluation.comparison import LEVEL
from autoseg.evaluation.report import ScoredFiles
from autoseg.evaluation.statistics import Difference, holm, paired_difference
from autoseg.imaging.crop import crop, hull, numbered, value_boxes
from autoseg.imaging.files import read_label_volume
from autoseg.names import counted
from autoseg.reconstruct.components import (
    DropSmall,
    FillHoles,
    KeepLargest,
    LabelRule,
    apply_rules,
    pieces_of,
    where_rules_act,
)
from planners.plan import Decision

__all__ = ["Cleaning", "TryRules", "decide_rules"]

SMALL_SHARE = 0.05  # fraction of the references' components that may be smaller than the threshold
Rules = tuple[LabelRule, ...]


@dataclass(frozen=True)
class Cleaning:
    """The rules that are kept, and a Decision for each tried rule that changed anything."""

    rules: Rules = ()
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True)
class TriedCase:
    """A case without rules and with each of several.

    Attributes:
        before: Dice of each structure, None if it is not annotated.
        after: for each of the rules, {structure: its Dice} of the annotated structures that it changes.
    """

    before: tuple[float | None, ...]
    after: tuple[Mapping[int, float], ...]

    def with_rule(self, number: int, s: int) -> float | None:
        """Dice of structure ``s`` with a rule."""
        return self.after[number].get(s, self.before[s])


@dataclass(frozen=True)
class TryRules:
    """The step that applies rules, one tuple at a time, to predictions; its items are (case, ScoredFiles).

    ``unlabelled`` are the indices of the structures that are not annotated in a case.
    """

    labels: LabelSchema
    candidates: tuple[Rules, ...]
    unlabelled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def setup(self) -> TryRules:
        return self

    def run(self, item: tuple[str, ScoredFiles]) -> TriedCase:
        predicted = read_label_volume(item[1].predicted)
        truth = read_label_volume(item[1].reference, onto=predicted.geometry).data
        counted = np.ones(truth.shape, bool) if self.labels.ignore is None else truth != self.labels.ignore
        guess, voxel_ml = predicted.data, predicted.geometry.voxel_ml
        lacking = frozenset(self.unlabelled.get(item[0], ()))
        owners = {value: [s for s in of if s not in lacking] for value, of in _owners(self.labels).items()}
        both, total = _counts(owners, truth[counted], guess[counted])
        boxes, after = value_boxes(guess), []
        for rules in self.candidates:
            box = where_rules_act(rules, boxes)
            said = crop(guess, *box)
            cleaned = apply_rules(said, rules, voxel_ml)
            where = (cleaned != said) & crop(counted, *box)
            there = crop(truth, *box)[where]
            (both_old, total_old), (both_new, total_new) = (_counts(owners, there, some[where]) for some in (said, cleaned))
            changes = ((s, both_new[s] - both_old[s], total_new[s] - total_old[s]) for s in sorted(total_old | total_new))
            after.append({s: _dice(both[s] + more, total[s] + in_all) for s, more, in_all in changes if more or in_all})
        known = (None if s in lacking else _dice(both[s], total[s]) for s in _structures(self.labels))
        return TriedCase(tuple(known), tuple(after))


@dataclass(frozen=True)
class MeasurePieces:
    """The step that measures the components of each structure in a reference, in mL; its items are (case, ScoredFiles)."""

    labels: LabelSchema

    def setup(self) -> MeasurePieces:
        return self

    def run(self, item: tuple[str, ScoredFiles]) -> tuple[tuple[float, ...], ...]:
        truth = read_label_volume(item[1].reference)
        voxel_ml = truth.geometry.voxel_ml
        boxes = value_boxes(truth.data)
        found = []
        for s, values in enumerate(self.labels.values):
            box = hull([boxes[value] for value in values if value in boxes])
            mask = self.labels.mask(crop(truth.data, *box), s) if box else np.zeros((1, 1, 1), bool)
            found.append(tuple((pieces_of(mask)[1] * voxel_ml).tolist()))
        return tuple(found)


def decide_rules(
    files: Mapping[str, ScoredFiles],
    labels: LabelSchema,
    engine: Engine,
    unlabelled: Mapping[str, tuple[int, ...]] | None = None,
) -> Cleaning:
    """The rules that improve the predictions.

    Args:
        files: case -> paths of its reference and of its prediction by a model not trained on it.
        labels: meaning of the label values.
        engine: engine that runs the steps.
        unlabelled: case -> indices of the structures that are not annotated in it; it is ignored for these.

    Returns:
        Cleaning. Cases whose files cannot be read are ignored.
    """
    items = list(files.items())
    measured = _values(engine, MeasurePieces(labels), items)
    each = [_candidates(labels, s, [case[s] for case in measured]) for s in _structures(labels)]
    candidates = tuple((rule,) for rules in each for rule in rules)
    owners = [s for s, rules in enumerate(each) for _ in rules]
    lacking = unlabelled or {}
    tried: list[TriedCase] = _values(engine, TryRules(labels, candidates, lacking), items)
    found = {number: _difference(tried, number, s) for number, s in enumerate(owners)}
    tested = [number for number, one in found.items() if one.mean and one.p_value is not None]
    corrected = dict(zip(tested, holm([found[number].p_value or 0.0 for number in tested]), strict=True))
    kept, decisions = dict[int, int](), []  # key: structure for a rule of components, -1 - structure for holes; value: rule
    for number in tested:
        rule, s = candidates[number][0], owners[number]
        helps, why = _judge(tried, number, s, found[number], corrected[number])
        key = s if not isinstance(rule, FillHoles) else -1 - s
        if helps and (key not in kept or (found[number].mean or 0) > (found[kept[key]].mean or 0)):
            kept[key] = number
        decisions.append(
            Decision(f"post-processing of {labels.structures[s]}", f"{rule}: {'helps' if helps else 'not kept'}", why)
        )
    rules = tuple(candidates[number][0] for number in sorted(kept.values(), key=lambda n: (_is_filling(candidates[n][0]), n)))
    return _checked_together(rules, tuple(decisions), TryRules(labels, (rules,), lacking), engine, items)


def _checked_together(
    rules: Rules, decisions: tuple[Decision, ...], step: TryRules, engine: Engine, items: Sequence[tuple[str, ScoredFiles]]
) -> Cleaning:
    """The rules that were kept one by one, unless together they make any structure worse."""
    if len(rules) < 2:
        return Cleaning(rules, decisions)
    tried = _values(engine, step, items)
    lost = _losing(tried, 0)
    if not lost:
        return Cleaning(rules, decisions)
    names = ", ".join(step.labels.structures[s] for s in lost)
    why = f"together they take from the Dice of {names}, so none is kept"
    return Cleaning((), (*decisions, Decision("post-processing", "none", why)))


def _values(engine: Engine, step: TryRules | MeasurePieces, items: Sequence[tuple[str, ScoredFiles]]) -> list:  # type: ignore[type-arg]
    """The results of the cases that could be read."""
    return [outcome.value for outcome in engine.map(step, items, name=lambda item: item[0]) if outcome.error is None]


def _candidates(labels: LabelSchema, s: int, pieces_ml: Sequence[Sequence[float]]) -> Rules:
    """The rules to try for structure ``s``, given the component volumes in the references of all cases."""
    values, around = labels.values[s], _around(labels, s)
    own = labels.paint_values[s]
    rules: list[LabelRule] = [KeepLargest(values, around)]
    volumes = [volume for case in pieces_ml for volume in case]
    if volumes:
        smallest = float(f"{np.quantile(volumes, SMALL_SHARE, method='lower'):.3g}")
        rules += [DropSmall(values, smallest, around)] if smallest > 0 else []
    return (*rules, FillHoles((own, *(value for value in values if value != own))))


def _around(labels: LabelSchema, s: int) -> int:
    """The label value around a region: a value that only the smallest region containing it has; 0 if there is none."""
    if not labels.has_regions:
        return 0
    own = set(labels.values[s])
    larger = sorted((group for group in labels.values if own < set(group)), key=len)
    outer = [value for value in larger[0] if value not in own] if larger else []
    painted = [value for value in labels.paint_values if value in outer]
    return [*painted, *outer, 0][0]


def _judge(tried: Sequence[TriedCase], number: int, s: int, difference: Difference, p_value: float) -> tuple[bool, str]:
    """(whether a rule is kept, why)."""
    if difference.mean is None or difference.low is None:
        return False, f"too few to tell: {counted(difference.n, 'case')}"
    others = [other for other in _losing(tried, number) if other != s]
    ends = f"[{100 * difference.low:.3f}, {100 * (difference.high or 0):.3f}]"
    gain = f"Dice {100 * difference.mean:+.3f} percentage points {ends}"
    gain += f", p = {p_value:.3g} after Holm, {counted(difference.n, 'case')}"
    if p_value >= LEVEL or difference.low <= 0:
        return False, f"{gain}: the data do not support it"
    return not others, gain + (": but another structure loses" if others else "")


def _difference(tried: Sequence[TriedCase], number: int, s: int) -> Difference:
    """Dice of a structure with a rule minus without it."""
    return paired_difference([one.with_rule(number, s) for one in tried], [one.before[s] for one in tried])


def _losing(tried: Sequence[TriedCase], number: int) -> list[int]:
    """The structures whose mean Dice is lower with a rule than without it, of those that it changes in some case."""
    return [s for s in sorted({s for one in tried for s in one.after[number]}) if _mean_change(tried, number, s) < 0]


def _mean_change(tried: Sequence[TriedCase], number: int, s: int) -> float:
    """The mean of ``_difference``, without its interval and test, which take much longer; 0 without cases."""
    pairs = ((one.with_rule(number, s), one.before[s]) for one in tried)
    changes = [after - before for after, before in pairs if after is not None and before is not None]
    return float(np.mean(changes)) if changes else 0.0


def _owners(labels: LabelSchema) -> dict[int, list[int]]:
    """{label value: structures that it belongs to}, ascending."""
    found: dict[int, list[int]] = {value: [] for value in labels.declared_values[1:]}
    for s, values in enumerate(labels.values):
        for value in values:
            found[value].append(s)
    return found


def _counts(owners: Mapping[int, Sequence[int]], truth: np.ndarray, guess: np.ndarray) -> tuple[Counter[int], Counter[int]]:
    """({structure: voxels in both masks}, {structure: voxels of its two masks together}), from (N,) values each."""
    one, other = (numbered(data, list(owners)).astype(np.int64) for data in (truth, guess))
    found, counts = np.unique(one * (len(owners) + 1) + other, return_counts=True)
    both, total, of = Counter[int](), Counter[int](), [(), *owners.values()]
    for pair, count in zip(found.tolist(), counts.tolist(), strict=True):
        mine, others = (of[code] for code in divmod(pair, len(of)))
        for s in (*mine, *others):
            total[s] += count
        for s in set(mine) & set(others):
            both[s] += count
    return both, total


def _dice(both: int, total: int) -> float:
    """Dice from counts; 1 if both masks are empty."""
    return 2 * both / total if total else 1.0


def _structures(labels: LabelSchema) -> range:
    return range(len(labels.structures))


def _is_filling(rule: LabelRule) -> bool:
    return isinstance(rule, FillHoles)
