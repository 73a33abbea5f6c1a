"""Scoring a folder of predictions. A case that cannot be scored is reported as a failure; it neither stops the others nor
drops out unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.engines import Engine, LocalEngine, Outcome, reason_of
from autoseg.errors import AutosegError, FileError
from autoseg.evaluation.evaluate import Found, Tolerance, check_tolerance, evaluate_case
from autoseg.evaluation.lesions import LESION_METRICS, LesionRule, lesion_values
from autoseg.evaluation.metrics import METRICS
from autoseg.evaluation.reconstruction import brier
from autoseg.evaluation.report import CaseMetrics, Failure, Report, ScoredFiles, summarise
from autoseg.evaluation.values import unknown_values
from autoseg.imaging.files import FORMATS, SEGMENTATION, read_label_volume
from autoseg.imaging.volume import LabelVolume
from autoseg.names import case_name, counted, folders_of, scrubbed

__all__ = ["Annotation", "More", "completed_notes", "ending_of_most", "evaluate_folder"]

More = Callable[[str, LabelVolume], list[tuple[Found, ...]]]


@dataclass(frozen=True)
class Annotation:
    """What is special about references.

    Attributes:
        lesions: which structures are scored lesion by lesion too, and how.
        unlabelled: case -> numbers of the structures that nobody annotated in it, which are not scored there.
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
    """Score a folder of predictions against references; files of one case have one name.

    Args:
        reference: folder with CASE + ending, or a dictionary of case -> path where only these cases are meant.
        predicted: folder with CASE + ending, or a dictionary of case -> path; where there is a CASE_probabilities.npz beside
            them, as ``autoseg predict`` writes it, its Brier score is added.
        labels, tolerance_mm: as for ``evaluate_case``.
        engine: who does it; None for threads of this process, one per core.
        on_done: called with the Outcome of each case as it ends.
        more: ``more(case, reference)`` gives more (name, value, reason) for each structure, of a case and its LabelVolume.
        annotation: what is special about the references; None for nothing.

    Returns:
        Report. A missing or unreadable file, or a wrong grid, is a Failure of its case. Files are named without their folders.

    Raises:
        FileError: a folder is missing, or there is no reference.
        AutosegError: a tolerance that is no length, lesions of a structure that is not there.
    """
    check_tolerance(tolerance_mm)
    lesions, unlabelled = (annotation.lesions, annotation.unlabelled) if annotation else (None, {})
    for name in lesions.structures if lesions else ():
        if name not in labels.structures:
            raise AutosegError(f"lesions: no structure called {name!r}. There are: {', '.join(labels.structures)}")
    list(METRICS.values())  # one that cannot be imported is told before the work
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
    step = _Score(references, guesses, labels, tolerance_mm, chances, more, lesions, lacking)
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
    """The rows of a case, and the values in its two label maps that are no structure."""

    rows: tuple[CaseMetrics, ...]
    others: tuple[frozenset[int], frozenset[int]]


def _notes(scored: Mapping[str, _Scored], labels: LabelSchema) -> list[str]:
    """What the values of the label maps give to think about, in sentences.

    A value that no structure has counts as background, and a structure that only one side ever has is scored as missed or
    invented: both are what it looks like where two tools number the structures differently.
    """
    notes = []
    for side, kind in enumerate(SIDES):
        cases = {case: one.others[side] for case, one in scored.items() if one.others[side]}
        if values := sorted(set().union(*cases.values())):
            some = f"{len(cases)} of {len(scored)} {kind} hold {_some(values)}"
            notes.append(f"{some}, which no structure has and which count as background")
    return completed_notes(notes, (row for one in scored.values() for row in one.rows), labels)


SIDES = ("references", "predictions")


def completed_notes(notes: Iterable[str], rows: Iterable[CaseMetrics], labels: LabelSchema) -> list[str]:
    """Notes on values, and on structures that only the references, or only the predictions, ever have."""
    notes, there = list(notes), [set[str](), set[str]()]
    for row in rows:
        there[0] |= {row.structure} if row.counts.n_reference else set()
        there[1] |= {row.structure} if row.counts.n_predicted else set()
    for side, kind in enumerate(SIDES):
        alone = [
            f"{name} (value{'s' * (len(group) > 1)} {', '.join(map(str, group))})"
            for name, group in zip(labels.structures, labels.values, strict=True)
            if name in there[side] - there[1 - side]
        ]
        if alone:
            notes.append(f"in {kind} alone: {_some(alone)}")
    both_sides = any(note.startswith("in ref") for note in notes) and any("predictions" in note for note in notes)
    return [*notes, REMEDY] if both_sides else notes


def _about_unlabelled(unlabelled: Mapping[str, tuple[int, ...]], labels: LabelSchema) -> list[str]:
    """A sentence about structures that were not annotated in all cases; none where they were."""
    counts = {name: sum(n in numbers for numbers in unlabelled.values()) for n, name in enumerate(labels.structures)}
    lacking = [f"{name} in {counted(count, 'case')}" for name, count in counts.items() if count]
    return [f"not annotated, so not scored: {_some(lacking)}"] if lacking else []


REMEDY = (
    "if another tool numbers the structures differently, renumber its maps, or write its numbers into a dataset.json and "
    "give that with --labels"
)


def _some(names: Iterable[object], limit: int = 10) -> str:
    """The first names and how many more there are."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


@dataclass(frozen=True)
class _Score:
    """Scores a case from its files."""

    references: Mapping[str, Path]
    predicted: Mapping[str, Path]
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
                raise FileError(f"case {case!r}: no {kind}; expected {path}. Add it, or score with --partial what there is")
        guess = read_label_volume(pair[1])
        truth = read_label_volume(pair[0], onto=guess.geometry)
        if truth.geometry.shape != guess.geometry.shape:
            guess = read_label_volume(pair[1], onto=truth.geometry)
        labels, lacking = self.labels, self.unlabelled.get(case, ())
        rows = evaluate_case(
            reference=truth, predicted=guess, labels=labels, case=case, tolerance_mm=self.tolerance_mm, unlabelled=lacking
        )
        if self.chances:
            added = _brier(self.chances.get(case), truth.data, self.labels)
            rows = tuple(row.with_more([one]) for row, one in zip(rows, added, strict=True))
        if self.lesions:
            rows = tuple(row.with_more(self._lesions(number, truth, guess)) for number, row in enumerate(rows))
        if self.more:
            rows = tuple(row.with_more(values) for row, values in zip(rows, self.more(case, truth), strict=True))
        rows = tuple(row.not_annotated() if number in lacking else row for number, row in enumerate(rows))
        return _Scored(rows, (unknown_values(truth.data, self.labels), unknown_values(guess.data, self.labels)))

    def _lesions(self, number: int, truth: LabelVolume, guess: LabelVolume) -> list[Found]:
        """The values of a structure's lesions; undefined for one that has none by its nature."""
        rule, labels = self.lesions, self.labels
        if rule is None or labels.structures[number] not in rule.structures:
            return [(name, None, "") for name in LESION_METRICS]
        counted = True if labels.ignore is None else truth.data != labels.ignore
        masks = [labels.mask(volume.data, number) & counted for volume in (truth, guess)]
        return lesion_values(masks[0], masks[1], truth.geometry.spacing_mm, rule)


def _brier(path: Path | None, reference: np.ndarray, labels: LabelSchema) -> list[Found]:
    """The Brier score of each structure's probabilities; undefined where ``path`` is None."""
    if path is None:
        return [("brier", None, "no probabilities")] * len(labels.structures)
    with np.load(path, allow_pickle=False) as stored:
        heads = stored["probabilities"]
    if heads.shape != (labels.n_heads, *reference.shape):
        raise FileError(f"{path}: expected an array of {(labels.n_heads, *reference.shape)}, found {heads.shape}")
    ignored = None if labels.ignore is None else reference == labels.ignore
    background = labels.n_heads - len(labels.structures)
    return [
        ("brier", brier(heads[background + n], labels.mask(reference, n), ignored), "") for n in range(len(labels.structures))
    ]


def _maps_of(source: Path | str | Mapping[str, Path], ending: str) -> dict[str, Path]:
    """{case: path}, sorted, of a folder with CASE + ending; of a dictionary its own."""
    if isinstance(source, Mapping):
        return {case: Path(path) for case, path in source.items()}
    folder = Path(source)
    if not folder.is_dir():
        raise FileError(f"{folder}: expected a folder of label maps, found none")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {case_name(path.name[: -len(ending)]): path for path in paths if path.name.endswith(ending)}


def ending_of_most(predicted: Path, references: Mapping[str, Path]) -> str:
    """The ending that most predictions have; of equals that of the references."""

    def count(ending: str) -> tuple[int, int]:
        same = [path.name.endswith(ending) for path in references.values()]
        return sum((predicted / f"{case}{ending}").is_file() for case in references), sum(same)

    endings: list[str] = [*FORMATS, SEGMENTATION]
    return max(endings, key=count)
