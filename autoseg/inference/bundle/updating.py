"""Change the record of a saved model: the properties of its training scans, and which windows it can skip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.data.unlike import TrainingScans
from autoseg.errors import ModelError
from autoseg.inference.bundle.reading import load_bundle
from autoseg.inference.bundle.record import BESIDE, COARSE, MODEL, ModelRecord, parse_model
from autoseg.inference.bundle.value import Bundle
from autoseg.inference.windows import AdaptiveWindows
from autoseg.locks import model_lock
from autoseg.workspace import write_json
from planners.records import to_json

__all__ = ["add_scans", "lock_of", "read_model", "store_windows", "write_model"]


def add_scans(folder: str | Path, scans: TrainingScans | None) -> Bundle:
    """Add the properties of its training scans to a saved model; None changes nothing. No prediction depends on them, so the
    digest stays the same. Returns the Bundle, loaded from the folder.

    Raises:
        ModelError: no model in the folder, or one with other channels.
    """
    return _updated(folder, lambda record: replace(record, scans=scans) if scans is not None else record)


def store_windows(folder: str | Path, windows: Mapping[str, AdaptiveWindows]) -> Bundle:
    """Store in a model which windows its folds need; nothing else changes. Returns the Bundle, loaded from the folder.

    Args:
        folder: folder of a model.
        windows: fold name -> AdaptiveWindows; those of other folds are kept.

    Raises:
        ModelError: no model in the folder.
    """

    def with_windows(record: ModelRecord) -> ModelRecord:
        entries = (replace(entry, windows=windows.get(entry.fold, entry.windows)) for entry in record.weights)
        return replace(record, weights=tuple(entries))

    return _updated(folder, with_windows)


def _updated(folder: str | Path, change: Callable[[ModelRecord], ModelRecord]) -> Bundle:
    folder = Path(folder)
    load_bundle(folder)  # raises before the lock exists
    with lock_of(folder):
        record, info = read_model(folder)
        try:
            changed = change(record)
        except ValueError as fault:
            raise ModelError(f"{folder}: {fault}") from fault
        if changed != record:
            write_model(folder, changed, info)
        return load_bundle(folder)


def lock_of(folder: Path) -> AbstractContextManager[None]:
    """The lock of a model, which lies beside it; a model inside another uses the outer lock."""
    return model_lock(folder.parent if folder.name in (COARSE, BESIDE) else folder)


def read_model(folder: Path) -> tuple[ModelRecord, dict[str, Any]]:
    """(ModelRecord, info) from a folder with a ``model.json``."""
    return parse_model((folder / MODEL).read_bytes(), folder / MODEL)


def write_model(folder: Path, record: ModelRecord, info: dict[str, Any]) -> None:
    """Write ``model.json``; the caller must hold the lock."""
    write_json(folder / MODEL, {**to_json(record), "info": info}, seal=True)
