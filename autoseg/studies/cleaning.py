"""Chooses the postprocessing rules for components and holes of a model, from the predictions of its cross-validation.

For each structure three rules are tried: keep only the largest component, remove components smaller than nearly all components
of the references, fill holes. A rule is kept if the paired test shows that it raises the Dice of the cases (Wilcoxon,
Holm-corrected for all rules that changed anything; the interval above zero) and no other structure loses. A structure that is
absent in both masks counts as Dice 1 here, so that removing false positives is a gain.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.engines import Engine
from autoseg.evaluation.comparison import LEVEL
from autoseg.evaluation.report import ScoredFiles
from autoseg.evaluation.statistics import Difference, holm, paired_difference
from autoseg.imaging.files import read_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.reconstruct.components import DropSmall, FillHoles, KeepLargest, LabelRule, apply_rules, box_of, pieces_of
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
    """A case without rules and with each of several: Dice of each structure, None if it is not annotated.

    ``after`` has None if a rule changes nothing.
    """

    before: tuple[float | None, ...]
    after: tuple[tuple[float | None, ...] | None, ...]


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
        guess, voxel_ml = predicted.data, voxel_volume_ml(predicted.geometry)
        before = np.array([_counts(self.labels, truth[counted], guess[counted], s) for s in _structures(self.labels)])
        lacking = self.unlabelled.get(item[0], ())
        after: list[tuple[float | None, ...] | None] = []
        for rules in self.candidates:
            box = box_of(guess, rules)
            cleaned = apply_rules(guess[box], rules, voxel_ml)
            where = (cleaned != guess[box]) & counted[box]
            if not where.any():
                after.append(None)
                continue
            there, old, new = truth[box][where], guess[box][where], cleaned[where]
            moved = [
                np.subtract(_counts(self.labels, there, new, s), _counts(self.labels, there, old, s))
                for s in _structures(self.labels)
            ]
            after.append(_dice(before + moved, lacking))
        return TriedCase(_dice(before, lacking), tuple(after))


@dataclass(frozen=True)
class MeasurePieces:
    """The step that measures the components of each structure in a reference, in mL; its items are (case, ScoredFiles)."""

    labels: LabelSchema

    def setup(self) -> MeasurePieces:
        return self

    def run(self, item: tuple[str, ScoredFiles]) -> tuple[tuple[float, ...], ...]:
        truth = read_label_volume(item[1].reference)
        voxel_ml = voxel_volume_ml(truth.geometry)
        masks = (self.labels.mask(truth.data, s) for s in _structures(self.labels))
        return tuple(tuple((pieces_of(mask)[1] * voxel_ml).tolist()) for mask in masks)


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
    candidates = tuple((rule,) for s in _structures(labels) for rule in _candidates(labels, s, [case[s] for case in measured]))
    owners = [s for s in _structures(labels) for _ in _candidates(labels, s, [case[s] for case in measured])]
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
    lost = [s for s in _structures(step.labels) if (_difference(tried, 0, s).mean or 0.0) < 0]
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
    own = set(labels.values[s])
    larger = sorted((group for group in labels.values if own < set(group)), key=len)
    outer = [value for value in larger[0] if value not in own] if larger else []
    painted = [value for value in labels.paint_values if value in outer]
    return [*painted, *outer, 0][0]


def _judge(tried: Sequence[TriedCase], number: int, s: int, difference: Difference, p_value: float) -> tuple[bool, str]:
    """(whether a rule is kept, why)."""
    if difference.mean is None or difference.low is None:
        return False, f"{difference.n} cases are too few to tell"
    others = [o for o in range(len(tried[0].before)) if o != s and (_difference(tried, number, o).mean or 0.0) < 0]
    gain = f"Dice {100 * difference.mean:+.3f} [{100 * difference.low:.3f}, {100 * (difference.high or 0):.3f}] points"
    gain += f", p = {p_value:.3g} after Holm, {difference.n} cases"
    if p_value >= LEVEL or difference.low <= 0:
        return False, f"{gain}: the data do not support it"
    return not others, gain + (": but another structure loses" if others else "")


def _difference(tried: Sequence[TriedCase], number: int, s: int) -> Difference:
    """Dice of a structure with a rule minus without it."""
    changed = [one.after[number] for one in tried]
    before = [one.before[s] for one in tried]
    return paired_difference([b if a is None else a[s] for a, b in zip(changed, before, strict=True)], before)


def _counts(labels: LabelSchema, truth: np.ndarray, guess: np.ndarray, s: int) -> tuple[int, int]:
    """(voxels in both masks, voxels of the two masks together) of a structure."""
    one, other = labels.mask(truth, s), labels.mask(guess, s)
    return int(np.count_nonzero(one & other)), int(np.count_nonzero(one)) + int(np.count_nonzero(other))


def _dice(counts: np.ndarray, lacking: Collection[int]) -> tuple[float | None, ...]:
    """Dice of each structure from (structures, 2) counts; 1 if both masks are empty, None for structures in ``lacking``."""
    found = [2 * both / total if total else 1.0 for both, total in counts.tolist()]
    return tuple(None if s in lacking else value for s, value in enumerate(found))


def _structures(labels: LabelSchema) -> range:
    return range(len(labels.structures))


def _is_filling(rule: LabelRule) -> bool:
    return isinstance(rule, FillHoles)


def voxel_volume_ml(geometry: Geometry) -> float:
    """Volume of a voxel of a grid, in mL."""
    return math.prod(geometry.spacing_mm) / 1000
