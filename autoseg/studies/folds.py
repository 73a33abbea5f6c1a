"""Which folds a data set has, and which are meant."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from autoseg.data.dataset import DatasetSpec
from autoseg.data.scan import CaseScan
from autoseg.data.splits import FOLDS, Split, checked_splits, make_splits, own_splits, read_splits, structures_present
from autoseg.errors import AutosegError
from autoseg.workspace import Workspace, read_json, write_json

__all__ = ["ALL", "count_folds", "draw_splits", "fold_names"]

logger = logging.getLogger(__name__)

ALL = "all"  # the fold that holds no case back


def count_folds(spec: DatasetSpec) -> int:
    """How many folds a data set has; known before its files are read."""
    own = own_splits(spec.folder)
    return len(read_splits(own, spec.training) if own else make_splits(spec.training))


def fold_names(text: str, n_folds: int) -> tuple[str, ...]:
    """The folds meant by a number or several, also as ``0-4``, each once; AutosegError where there is no such fold."""
    names = [name for part in str(text).split(",") for name in _range(part.strip())]
    for name in names:
        if not (name.isdecimal() and len(name) < 8 and int(name) < n_folds):
            raise AutosegError(
                f"fold {name!r}: expected a number from 0 to {n_folds - 1}, several as 0,1,2 or 0-{n_folds - 1}, or all"
            )
    return tuple(str(int(name)) for name in dict.fromkeys(names))


def _range(text: str) -> list[str]:
    """``0-4`` as its numbers; any other text as itself."""
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and len(first) + len(last) < 8 and int(first) <= int(last)):
        return [text]
    return [str(number) for number in range(int(first), int(last) + 1)]


def draw_splits(spec: DatasetSpec, scans: Sequence[CaseScan], workspace: Workspace, *, keep: bool = True) -> tuple[Split, ...]:
    """The folds of a data set: the user's own, else ours, which stay as they are while cases and patients are the same.

    Args:
        scans: of its cases, which say which case has which structure.
        keep: store folds that are drawn; False writes nothing.
    """
    if own := own_splits(spec.folder):
        return read_splits(own, spec.training)
    path = workspace.fingerprints(spec.name) / "splits.json"
    patients = [[case.id, case.patient] for case in spec.training]
    stored = read_json(path) if path.is_file() else {}
    if isinstance(stored, dict) and stored.get("patients") == patients:
        splits = checked_splits(stored.get("folds"), spec.training, path)
    else:
        present = structures_present(spec.training, scans, spec.labels)
        splits = make_splits(spec.training, present=present)
        folds = [{"train": list(s.training), "val": list(s.validation)} for s in splits]
        if keep and present is not None:
            write_json(path, {"patients": patients, "folds": folds}, seal=True)
    if len(splits) < FOLDS:
        logger.info(
            "%d patients give as many folds, each with one patient for validation; five or more give five folds", len(splits)
        )
    return splits
