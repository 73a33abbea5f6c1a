"""The initial weights of the folds of a run, and the training cases that their models record."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from autoseg.data.scan import CaseScan
from autoseg.inference.bundle import Bundle, load_bundle
from autoseg.inference.find import find_model
from autoseg.training.transfer import Start, Transfer, choose_fold, meaning_of
from autoseg.workspace import Workspace
from planners.records import digest

__all__ = ["image_digests", "learned_from", "open_model", "start_of"]


def image_digests(scans: Sequence[CaseScan]) -> dict[str, str]:
    """Case -> digest of its image files, whatever their names. Equal files are the same case, whatever its labels."""
    return {scan.case: digest(scan.digests[:-1]) for scan in scans}


def open_model(model: str | Path | None, workspace: Workspace) -> Bundle | None:
    """The model to start from; None for none."""
    return None if model is None else load_bundle(find_model(model, workspace))


def start_of(bundle: Bundle, fold: str, held_back: Collection[str], images: dict[str, str], *, unseen: bool = False) -> Start:
    """The weights of a model that a fold may start from.

    Args:
        held_back: identifiers of its validation cases.
        images: as from ``image_digests``.
        unseen: the user asserts that a model without recorded training cases was trained on none of them.

    Raises:
        TrainingError: every fold of the model may have been trained on a validation case.
    """
    known = {name: bundle.learned_from.get(name, ()) for name in bundle.folds}
    chosen, why = choose_fold(bundle.name, known, fold, {case: images[case] for case in held_back}, unseen=unseen)
    first = next(iter(bundle.folds))  # fold from which every fold started in earlier versions, which wrote the model's digest
    identity = bundle.digest if chosen == first else f"{bundle.digest} fold {chosen}"
    source = Transfer(Path(bundle.name).name, bundle.digest, chosen, why)
    meaning = meaning_of(bundle.plan, bundle.labels)
    return Start(source, identity, tuple(known[chosen]), bundle.folds[chosen], meaning)


def learned_from(training: Collection[str], images: dict[str, str], start: Start | None) -> tuple[str, ...]:
    """Digests of all cases that a fold's weights were trained on; empty if those of its initial weights are unknown."""
    if start is not None and not start.learned_from:
        return ()
    return tuple(sorted({images[case] for case in training} | set(start.learned_from if start else ())))
