"""Scoring a folder of predictions. A case that cannot be scored is reported as a failure and does not stop the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from autoseg.data.dataset import called_alike
from autoseg.data.labelmaps import groups_beside
from autoseg.data.labels import LabelSchema
from autoseg.engines import Engine, LocalEngine, Outcome, reason_of
from autoseg.errors import AutosegError, FileError
from autoseg.evaluation.evaluate import Found, Tolerance, check_tolerance, evaluate_case
from autoseg.evaluation.lesions import LESION_METRICS, LesionRule, lesion_values
from autoseg.evaluation.metrics import METRICS
from autoseg.evaluation.probabilities import read_heads
from autoseg.evaluation.reconstruction import brier
from autoseg.evaluation.report import CaseMetrics, Failure, Report, ScoredFiles, summarise
from autoseg.evaluation.values import unknown_values
from autoseg.imaging.crop import NOWHERE, crop, hull, value_boxes
from autoseg.imaging.files import FORMATS, SEGMENTATION, has_grid, read_geometry, read_label_volume
from autoseg.imaging.volume import LabelVolume
from autoseg.names import case_name, counted, first_of, folders_of, is_hidden, scrubbed

__all__ = ["Annotation", "More", "completed_notes", "ending_of_most", "evaluate_folder", "lasting_notes"]

More = Callable[[str, LabelVolume], list[tuple[Found, ...]]]


@dataclass(frozen=True)
class Annotation:
    """What is special about references.

    Attributes:
        lesions: which structures are also scored lesion by lesion, and how.
        unlabelled: case -> numbers of the structures that were not annotated in it and are not scored there.
    """

    lesions: LesionRule | None = None
    unlabelled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def evaluate_folder(
    reference: Path | str | Mapping[str, Path],
    predicted: Path | str | Mapping[str, Path],
    labels: LabelSchema,
    *,
    ending: str = ".nii.gz",
    tolerance_mm: Tolerance = None,
    engine: Engine | None = None,
    on_done: Callable[[Outcome], object] | None = None,
    more: More | None = None,
    annotation: Annotation | None = None,
) -> Report:
    """Score a folder of predictions against references; files of one case have the same name.

    Args:
        reference: folder with CASE + ending, or a dictionary case -> path to score only these cases.
        predicted: folder with CASE + ending, or a dictionary case -> path. If a CASE_probabilities.npz of
            ``autoseg predict`` lies beside them, its Brier score is added.
        labels, tolerance_mm: as for ``evaluate_case``.
        engine: what runs the cases; None for threads of this process, one per core.
        on_done: called with the Outcome of each case as it ends.
        more: ``more(case, reference)`` returns further (name, value, reason) for each structure, from a LabelVolume.
        annotation: see Annotation; None for neither.

    Returns:
        Report. A missing or unreadable file, or a wrong grid, is a Failure of its case. File names have no folders.

    Raises:
        FileError: a folder is missing, or there is no reference.
        AutosegError: a tolerance that is not a length; lesions of an unknown structure.
    """
    check_tolerance(tolerance_mm)
    lesions, unlabelled = (annotation.lesions, annotation.unlabelled) if annotation else (None, {})
    known = dict.fromkeys(labels.structures)
    for name in lesions.structures if lesions else ():
        if name not in known:
            raise AutosegError(f"lesions: no structure called {name!r}. There are: {', '.join(known)}")
    list(METRICS.values())  # a metric that cannot be imported is reported before the work
    there = _maps_of(predicted, ending)
    references = _maps_of(reference, ending)
    if not references:
        raise FileError(f"{reference}: expected reference files that end with {ending}, found none")
    if not isinstance(predicted, Mapping):
        there |= {case: Path(predicted) / f"{case}{ending}" for case in references}
    chosen = isinstance(reference, Mapping) and not isinstance(predicted, Mapping)
    extra = [] if chosen else sorted(set(there) - set(references))
    guesses = {case: there[case] for case in references}
    chances = {
        case: beside for case, path in guesses.items() if (beside := path.with_name(f"{case}_probabilities.npz")).is_file()
    }
    lacking = {case: numbers for case, numbers in unlabelled.items() if numbers and case in references}
    step = _Score(references, guesses, extra, labels, tolerance_mm, chances, more, lesions, lacking)
    outcomes = (engine or LocalEngine()).map(step, references, on_done=on_done)
    scored = {outcome.name: outcome.value for outcome in outcomes if outcome.error is None}
    folders = folders_of({path.parent for path in (*references.values(), *guesses.values())})
    return summarise(
        [row for one in scored.values() for row in one.rows],
        labels,
        failures=[Failure(o.name, scrubbed(reason_of(o.error), folders)) for o in outcomes if o.error is not None],
        files={case: ScoredFiles(path.name, guesses[case].name) for case, path in references.items()},
        not_scored=extra,
        notes=[*_notes(scored, labels), *([f"lesions: {lesions}"] if lesions else []), *_about_unlabelled(lacking, labels)],
    )


@dataclass(frozen=True)
class _Scored:
    """The rows of a case, the values in its two label maps that are not structures, and the distance of their grids beyond what
    rounding in headers explains."""

    rows: tuple[CaseMetrics, ...]
    others: tuple[frozenset[int], frozenset[int]]
    apart_voxels: float = 0.0


def _notes(scored: Mapping[str, _Scored], labels: LabelSchema) -> list[str]:
    """Sentences about suspicious values in the label maps.

    A value of no structure counts as background, and a structure that occurs only in the references or only in the
    predictions is scored as missed or false positive. Both happen if two tools number the structures differently.
    """
    notes = []
    for side, kind in enumerate(SIDES):
        cases = {case: one.others[side] for case, one in scored.items() if one.others[side]}
        if values := sorted(set().union(*cases.values())):
            some = f"{len(cases)} of {len(scored)} {kind} hold {first_of(values, 10)}"
            notes.append(f"{some}, which no structure has and which count as background")
    if apart := {case: one.apart_voxels for case, one in scored.items() if one.apart_voxels}:
        far = f"up to {max(apart.values()):.2g} voxels"
        notes.append(f"references and predictions {far} apart by their headers, compared voxel by voxel: {first_of(apart, 10)}")
    return completed_notes(notes, (row for one in scored.values() for row in one.rows), labels)


SIDES = ("references", "predictions")
ALONE = ("in references alone: ", "in predictions alone: ")


def lasting_notes(notes: Iterable[str]) -> list[str]:
    """The notes of a report that stay true among more cases: all but those that ``completed_notes`` adds."""
    return [note for note in notes if note != REMEDY and not note.startswith(ALONE)]


def completed_notes(notes: Iterable[str], rows: Iterable[CaseMetrics], labels: LabelSchema) -> list[str]:
    """Notes on values, and on structures that occur only in the references or only in the predictions."""
    notes, there = list(notes), [set[str](), set[str]()]
    for row in rows:
        there[0] |= {row.structure} if row.counts.n_reference else set()
        there[1] |= {row.structure} if row.counts.n_predicted else set()
    for side, start in enumerate(ALONE):
        here = there[side] - there[1 - side]
        alone = [
            f"{name} (value{'s' * (len(group) > 1)} {', '.join(map(str, group))})"
            for name, group in zip(labels.structures, labels.values, strict=True)
            if name in here
        ]
        if alone:
            notes.append(f"{start}{first_of(alone, 10)}")
    both_sides = any(note.startswith("in ref") for note in notes) and any("predictions" in note for note in notes)
    return [*notes, REMEDY] if both_sides else notes


def _about_unlabelled(unlabelled: Mapping[str, tuple[int, ...]], labels: LabelSchema) -> list[str]:
    """A sentence about structures that were not annotated in all cases; [] if all were."""
    counts = Counter(number for numbers in unlabelled.values() for number in set(numbers))
    lacking = [f"{name} in {counted(counts[n], 'case')}" for n, name in enumerate(labels.structures) if counts[n]]
    return [f"not annotated, so not scored: {first_of(lacking, 10)}"] if lacking else []


REMEDY = (
    "if another tool numbers the structures differently, renumber its maps, or write its numbers into a dataset.json and "
    "give that to autoseg evaluate with --labels"
)


@dataclass(frozen=True)
class _Score:
    """Scores a case from its files."""

    references: Mapping[str, Path]
    predicted: Mapping[str, Path]
    others: Sequence[str]
    labels: LabelSchema
    tolerance_mm: Tolerance
    chances: Mapping[str, Path]
    more: More | None
    lesions: LesionRule | None
    unlabelled: Mapping[str, tuple[int, ...]]

    def setup(self) -> _Score:
        return self

    def run(self, case: str) -> _Scored:
        pair = self.references[case], self.predicted[case]
        for path, kind in zip(pair, ("reference", "prediction"), strict=True):
            if not path.is_file():
                remedy = "Add it, or score what there is with autoseg evaluate --partial"
                if path == pair[1] and (other := called_alike(case, self.others)):
                    remedy = f"The prediction {other} has no reference: if it is meant, give both the same name"
                raise FileError(f"case {case!r}: no {kind}; expected {path}. {remedy}")
        guess = read_label_volume(pair[1], onto=None if has_grid(pair[1]) else read_geometry(pair[0]))
        truth = read_label_volume(pair[0], onto=guess.geometry)
        if truth.geometry.shape != guess.geometry.shape:
            guess = read_label_volume(pair[1], onto=truth.geometry)
        labels, lacking = self.labels, frozenset(self.unlabelled.get(case, ()))
        rows = evaluate_case(
            reference=truth, predicted=guess, labels=labels, case=case, tolerance_mm=self.tolerance_mm, unlabelled=lacking
        )
        if self.chances:
            heads = groups_beside(pair[1], case) or self.labels.groups
            added = _brier(self.chances.get(case), heads, truth.data, self.labels)
            rows = tuple(row.with_more([one]) for row, one in zip(rows, added, strict=True))
        if self.lesions:
            rows = tuple(row.with_more(found) for row, found in zip(rows, self._lesions(truth, guess), strict=True))
        if self.more:
            rows = tuple(row.with_more(values) for row, values in zip(rows, self.more(case, truth), strict=True))
        rows = tuple(row.not_annotated() if number in lacking else row for number, row in enumerate(rows))
        apart = 0.0 if truth.geometry.is_same_grid(guess.geometry) else truth.geometry.distance_voxels(guess.geometry)
        return _Scored(rows, (unknown_values(truth.data, self.labels), unknown_values(guess.data, self.labels)), apart)

    def _lesions(self, truth: LabelVolume, guess: LabelVolume) -> Iterator[list[Found]]:
        """The lesion scores of each structure; undefined unless it is scored lesion by lesion."""
        rule, labels = self.lesions, self.labels
        asked = set(rule.structures) if rule else set[str]()
        boxes = [value_boxes(volume.data) for volume in (truth, guess)]
        for number, (name, values) in enumerate(zip(labels.structures, labels.values, strict=True)):
            if rule is None or name not in asked:
                yield [(metric, None, "") for metric in LESION_METRICS]
                continue
            box = hull([of[value] for of in boxes for value in values if value in of]) or NOWHERE
            parts = [crop(volume.data, *box) for volume in (truth, guess)]
            counted = True if labels.ignore is None else parts[0] != labels.ignore
            masks = [labels.mask(part, number) & counted for part in parts]
            yield lesion_values(masks[0], masks[1], truth.geometry.voxel_ml, rule)


def _brier(
    path: Path | None, structures: Mapping[str, Sequence[int]], reference: np.ndarray, labels: LabelSchema
) -> list[Found]:
    """The Brier score of each structure's probabilities; undefined for those that have none, and if ``path`` is None.

    Args:
        path: of the probabilities.
        structures: {structure: its values} of the model that made them, in the order of its heads.
    """
    found: dict[str, float | None] = {}
    if path is not None:
        ignored = None if labels.ignore is None else reference == labels.ignore
        background = 0 if any(len(values) > 1 for values in structures.values()) else 1
        heads = read_heads(path, (background + len(structures), *reference.shape))
        for name, head in zip(structures, islice(heads, background, None), strict=True):
            if name in labels.structures:
                found[name] = brier(head, labels.mask(reference, labels.structures.index(name)), ignored)
    return [("brier", found.get(name), "" if name in found else "no probabilities") for name in labels.structures]


def _maps_of(source: Path | str | Mapping[str, Path], ending: str) -> dict[str, Path]:
    """{case: path}, sorted, from a folder with CASE + ending or from a dictionary."""
    if isinstance(source, Mapping):
        return {case: Path(path) for case, path in source.items()}
    folder = Path(source)
    if not folder.is_dir():
        raise FileError(f"{folder}: expected a folder of label maps, found none")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not is_hidden(path.name))
    return {case_name(path.name[: -len(ending)]): path for path in paths if path.name.endswith(ending)}


def ending_of_most(predicted: Path, references: Mapping[str, Path]) -> str:
    """The most common ending of the predictions; for a tie, that of the references."""

    def count(ending: str) -> tuple[int, int]:
        same = [path.name.endswith(ending) for path in references.values()]
        return sum((predicted / f"{case}{ending}").is_file() for case in references), sum(same)

    endings: list[str] = [*FORMATS, SEGMENTATION]
    return max(endings, key=count)
