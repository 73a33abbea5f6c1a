"""Which cases teach and which test: folds that never divide a patient.

A *fold* is one part of the cases held back for validation. The folds of ``make_splits`` are those of scikit-learn's
``KFold(n_folds, shuffle=True, random_state=seed)`` over the sorted cases, which other tools use with the same seed; so
results can be compared case by case. Where patients have several cases the same is done with the sorted patients.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.errors import DatasetError

__all__ = ["Split", "make_splits", "read_splits"]


@dataclass(frozen=True)
class Split:
    """Identifiers of the cases of one fold, sorted; no case, and no patient, is in both."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


def make_splits(cases, n_folds=5, seed=12345):
    """Seeded folds.

    Args:
        cases: ``Case`` values in any order.
        n_folds: at least 2; as many folds as patients where there are fewer of these.
        seed: of the shuffle.

    Returns:
        tuple of Split. Every case is in the validation part of exactly one.

    Raises:
        DatasetError: fewer than two patients or folds.
    """
    by_patient = defaultdict(list)
    for case in cases:
        by_patient[case.patient].append(case.id)
    if len(by_patient) < 2 or n_folds < 2:
        raise DatasetError(
            f"expected at least two patients and two folds, found {len(cases)} cases of {len(by_patient)} patients and "
            f"{n_folds} folds. Train on all cases with the fold 'all', or name the patient of each case under "
            '"patients" in dataset.json'
        )
    single = len(by_patient) == len(cases)
    groups = sorted(by_patient.values()) if single else [by_patient[patient] for patient in sorted(by_patient)]
    order = np.arange(len(groups))
    np.random.RandomState(seed).shuffle(order)  # the generator of scikit-learn
    parts = np.array_split(order, min(n_folds, len(groups)))
    return tuple(_split(groups, set(part.tolist())) for part in parts)


def read_splits(path, cases):
    """The user's own folds: a JSON list of ``{"train": [case, ...], "val": [case, ...]}``. Cases may be left out.

    Raises:
        DatasetError: not such a file; a case that does not exist; a case, or a patient, in both parts of a fold; an
            empty part.
    """
    path = Path(path)
    try:
        folds = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as fault:
        raise DatasetError(f"{path}: not readable as JSON: {fault}") from fault
    if not isinstance(folds, list) or not folds:
        raise DatasetError(f'{path}: expected a list of {{"train": [...], "val": [...]}}, found {type(folds).__name__}')
    patients = {case.id: case.patient for case in cases}
    return tuple(_read_fold(f"{path}: fold {i}", fold, patients) for i, fold in enumerate(folds))


def _split(groups, held_back):
    training = sorted(case for i, group in enumerate(groups) if i not in held_back for case in group)
    return Split(tuple(training), tuple(sorted(case for i in held_back for case in groups[i])))


def _read_fold(where, fold, patients):
    parts = []
    for key in ("train", "val"):
        names = fold.get(key) if isinstance(fold, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DatasetError(f"{where}: expected a list of cases under {key!r}, found {names!r}")
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
