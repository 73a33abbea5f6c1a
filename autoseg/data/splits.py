"""Training and validation cases: folds that never divide a patient.

A *fold* is one part of the cases, kept for validation. The folds of ``make_splits`` are those of scikit-learn's
``KFold(n_folds, shuffle=True, random_state=seed)`` over the sorted cases. Other tools use the same with the same seed, so
results can be compared case by case. If patients have several cases, the sorted patients are split instead.

A fold may by chance lack a structure that few patients have. Only then are the folds *stratified*: the sizes stay the same,
but the patients with the rarest structure are distributed first, then those with the next.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.data.dataset import Case
from autoseg.data.labels import LabelSchema
from autoseg.data.scan import CaseScan
from autoseg.errors import DatasetError, shown
from autoseg.names import counted
from autoseg.workspace import read_json

__all__ = ["FOLDS", "Split", "checked_splits", "make_splits", "own_splits", "read_splits", "structures_present"]

FOLDS = 5
OWN = ("splits.json", "splits_final.json")  # the second is nnU-Net's name for the same


@dataclass(frozen=True)
class Split:
    """Identifiers of the cases of one fold, sorted; no case, and no patient, is in both."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


def make_splits(
    cases: Sequence[Case], n_folds: int = FOLDS, seed: int = 12345, present: Mapping[str, frozenset[str]] | None = None
) -> tuple[Split, ...]:
    """Seeded folds.

    Args:
        cases: ``Case`` values in any order.
        n_folds: at least 2; reduced to the number of patients if there are fewer.
        seed: of the shuffle.
        present: {case: the structures in its label}; None to never stratify.

    Returns:
        tuple of Split. Every case is in exactly one validation part.

    Raises:
        DatasetError: fewer than two patients or folds.
    """
    by_patient = defaultdict(list)
    for case in cases:
        by_patient[case.patient].append(case.id)
    if len(by_patient) < 2 or n_folds < 2:
        raise DatasetError(
            f"expected at least two patients and two folds, found {counted(len(cases), 'case')} of "
            f"{counted(len(by_patient), 'patient')} and {counted(n_folds, 'fold')}. Train on all cases with the fold "
            "'all', or name the patient of each case under "
            '"patients" in dataset.json'
        )
    single = len(by_patient) == len(cases)
    groups = sorted(by_patient.values()) if single else [by_patient[patient] for patient in sorted(by_patient)]
    order = np.arange(len(groups))
    np.random.RandomState(seed).shuffle(order)  # the generator of scikit-learn
    parts = [part.tolist() for part in np.array_split(order, min(n_folds, len(groups)))]
    if present:
        found = [frozenset().union(*(present[case] for case in group)) for group in groups]
        parts = parts if _is_fair(parts, found) else _stratify(order.tolist(), [len(part) for part in parts], found)
    return tuple(_split(groups, set(part)) for part in parts)


def read_splits(path: str | Path, cases: Iterable[Case]) -> tuple[Split, ...]:
    """The user's own folds: a JSON list of ``{"train": [case, ...], "val": [case, ...]}``. Cases may be left out.

    Raises:
        DatasetError: not such a file; a case that does not exist; a case, or a patient, in both parts of a fold; an
            empty part.
    """
    path = Path(path)
    folds = read_json(path, DatasetError)
    return checked_splits(folds, cases, path)


def checked_splits(folds: object, cases: Iterable[Case], path: Path) -> tuple[Split, ...]:
    """The folds of a file, checked as in ``read_splits``; an unknown case name is an error."""
    if not isinstance(folds, list) or not folds:
        raise DatasetError(
            f'{path}: expected a list of {{"train": [...], "val": [...]}}, found {type(folds).__name__}. Correct it there'
        )
    patients = {case.id: case.patient for case in cases}
    return tuple(_read_fold(f"{path}: fold {i}", fold, patients) for i, fold in enumerate(folds))


def structures_present(
    cases: Sequence[Case], scans: Iterable[CaseScan], labels: LabelSchema
) -> dict[str, frozenset[str]] | None:
    """{case: frozenset of structures}, for ``make_splits``; None if the label of a case has not been read.

    Args:
        cases: of a DatasetSpec.
        scans: CaseScan values; those of other cases are ignored.
        labels: LabelSchema.
    """
    values = {scan.case: {value for value, _ in scan.label_counts} for scan in scans if scan.label_counts}
    if any(case.id not in values for case in cases):
        return None
    groups = labels.groups.items()
    return {case.id: frozenset(name for name, group in groups if values[case.id] & set(group)) for case in cases}


def own_splits(folder: str | Path) -> Path | None:
    """The file of the user's own folds in a data-set folder, or None."""
    return next((Path(folder) / name for name in OWN if (Path(folder) / name).is_file()), None)


def _is_fair(parts: list[list[int]], found: list[frozenset[str]]) -> bool:
    """Whether each part has every structure of enough patients; rarer ones must be in at least two parts, if possible."""
    patients = Counter(structure for group in found for structure in group)
    for structure, n in patients.items():
        parts_with = sum(any(structure in found[i] for i in part) for part in parts)
        if parts_with < min(n, len(parts) if n >= len(parts) else 2):
            return False
    return True


def _stratify(order: list[int], sizes: list[int], found: list[frozenset[str]]) -> list[list[int]]:
    """Parts of the given sizes; patients with the rarest structure are assigned first, to the part with the fewest of it."""
    parts: list[list[int]] = [[] for _ in sizes]
    left = dict.fromkeys(order)

    def deal(patients: list[int], structure: str | None = None) -> None:
        have = [sum(structure in found[i] for i in part) for part in parts]
        for patient in patients:
            free = [k for k, size in enumerate(sizes) if len(parts[k]) < size]
            chosen = min(free, key=lambda k: (have[k], len(parts[k]) - sizes[k]))
            parts[chosen].append(patient)
            have[chosen] += structure in found[patient]
            del left[patient]

    counts = Counter(structure for group in found for structure in group)
    for structure, _ in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        deal([patient for patient in left if structure in found[patient]], structure)
    deal(list(left))
    return parts


def _split(groups: list[list[str]], held_back: set[int]) -> Split:
    training = sorted(case for i, group in enumerate(groups) if i not in held_back for case in group)
    return Split(tuple(training), tuple(sorted(case for i in held_back for case in groups[i])))


def _read_fold(where: str, fold: object, patients: Mapping[str, str]) -> Split:
    parts = []
    for key in ("train", "val"):
        names = fold.get(key) if isinstance(fold, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DatasetError(f"{where}: expected a list of cases under {key!r}, found {shown(names)}. Correct it there")
        if unknown := sorted(set(names) - set(patients)):
            listed = ", ".join(unknown[:4]) + (", ..." if len(unknown) > 4 else "")
            raise DatasetError(f"{where}: expected cases of this data set under {key!r}, found {listed}. Correct the names")
        parts.append(tuple(sorted(set(names))))
    shared = {patients[case] for case in parts[0]} & {patients[case] for case in parts[1]}
    if shared:
        both = sorted(case for part in parts for case in set(part) if patients[case] in shared)
        raise DatasetError(
            f"{where}: training and validation must not share a patient, found {sorted(shared)[0]!r} in both "
            f"({', '.join(both[:4])}). Move all its cases to one side"
        )
    return Split(*parts)
