"""Write a model, or add folds to one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.atomic import replacing
from autoseg.data.labels import LabelSchema
from autoseg.errors import ModelError
from autoseg.inference.bundle.identity import record_of
from autoseg.inference.bundle.reading import load_bundle
from autoseg.inference.bundle.record import BESIDE, COARSE, MODEL, ModelRecord, checked_record, weight_name
from autoseg.inference.bundle.stages import coarse_stage
from autoseg.inference.bundle.updating import lock_of, read_model, store_windows, write_model
from autoseg.inference.bundle.value import Bundle, State
from autoseg.inference.bundle.weights import as_bytes, weight_file
from autoseg.reconstruct.components import LabelRule
from planners.plan import NetworkSpec, Plan
from planners.records import digest

__all__ = ["copy_bundle", "refuse_other_model", "save_bundle"]


def save_bundle(
    folder: str | Path,
    *,
    plan: Plan,
    labels: LabelSchema,
    channels: Iterable[str],
    weights: Mapping[Any, State],
    learned_from: Mapping[Any, Iterable[str]] | None = None,
    info: dict[str, Any] | None = None,
    file_ending: str = ".nii.gz",
    postprocessing: Iterable[LabelRule] = (),
) -> Bundle:
    """Write a model, or add folds to one; each file is complete or absent.

    Existing folds are kept unless they are named again; then they are replaced. ``info`` is merged into the stored one,
    including nested dictionaries. Processes that write to the same folder at the same time wait for each other.

    Args:
        folder: created if missing. If the plan has ``coarse`` labels, the coarse stage must already be saved in its
            subfolder ``COARSE``.
        plan, labels, channels, file_ending, postprocessing: as in ``Bundle``.
        weights: fold name (or number) -> state dict of ``build_network(plan.network)``.
        learned_from: fold name (or number), as in ``weights`` -> digests of its training cases.
        info: JSON values.

    Returns:
        The Bundle, loaded from the folder.

    Raises:
        ModelError: the folder has a model with another plan, labels, channels, file ending or postprocessing, or stays
            locked; the coarse stage is missing, or has other scans or labels.
    """
    folder, states = Path(folder), {str(fold): state for fold, state in weights.items()}
    cases = {str(fold): tuple(digests) for fold, digests in (learned_from or {}).items()}
    record = checked_record(plan, labels, channels, file_ending, states, folder, postprocessing)
    for fold in sorted(cases.keys() - states.keys()):
        raise ModelError(f"{folder}: it is told what fold {fold!r} learned from, but has no weights of it to save")
    return _add_folds(folder, record, states, cases, info or {})


def copy_bundle(bundle: Bundle, folder: str | Path) -> Bundle:
    """Write a Bundle, for example with other rules or temperatures than the model that its weights come from.

    Raises:
        ModelError: as ``save_bundle``.
    """
    folder = Path(folder)
    states = {fold: load() for fold, load in bundle.folds.items()}
    record = record_of(bundle, folder)
    if bundle.coarse:
        copy_bundle(bundle.coarse, folder / COARSE)
    if bundle.beside:
        record = replace(record, beside=copy_bundle(bundle.beside, folder / BESIDE).digest)
    copied = _add_folds(folder, record, states, bundle.learned_from, bundle.info, bundle.networks)
    return store_windows(folder, bundle.windows) if bundle.windows else copied


def refuse_other_model(
    folder: str | Path, *, plan: Plan, labels: LabelSchema, channels: Iterable[str], file_ending: str = ".nii.gz"
) -> None:
    """Raise the ModelError of ``save_bundle`` before hours are spent on weights that the folder cannot take.

    The folder may have another plan, or the plan's network may not fit these labels and channels.
    """
    folder = Path(folder)
    _stored_like(checked_record(plan, labels, channels, file_ending, (), folder), folder)


def _add_folds(
    folder: Path,
    record: ModelRecord,
    states: Mapping[str, State],
    cases: Mapping[str, tuple[str, ...]],
    info: dict[str, Any],
    networks: Mapping[str, NetworkSpec] | None = None,
) -> Bundle:
    """Write the weights of folds and the record of the model, keeping what the folder already has."""
    with lock_of(folder):
        record, stored_info = _stored_like(record, folder)
        if record.plan.coarse:
            record = replace(record, coarse=coarse_stage(record, load_bundle(folder / COARSE), folder).digest)
        entries = {entry.fold: entry for entry in record.weights}
        for fold, state in states.items():
            data = as_bytes(state)
            entry = weight_file(fold, data, cases.get(fold, ()), networks or {})
            earlier = entries.get(fold, entry)
            entries[fold] = replace(entry, windows=earlier.windows) if earlier.digest == entry.digest else entry
            with replacing(folder / weight_name(fold)) as draft:
                draft.write_bytes(data)
        record = replace(record, weights=tuple(entries[fold] for fold in sorted(entries)))
        write_model(folder, record, _merged(stored_info, info))
        return load_bundle(folder)


def _stored_like(new: ModelRecord, folder: Path) -> tuple[ModelRecord, dict[str, Any]]:
    """(ModelRecord, info) of the folder, refused if they belong to another model; (new, {}) if there are none."""
    if not (folder / MODEL).is_file():
        return new, {}
    stored, info = read_model(folder)
    for name in ("plan", "labels", "channels", "file_ending", "postprocessing", "temperatures", "beside"):
        if getattr(stored, name) != getattr(new, name):
            raise ModelError(
                f"{folder}: holds a model with another {name}\n"
                f"  stored {digest({name: getattr(stored, name)})}, new {digest({name: getattr(new, name)})} (digests)\n"
                "All folds of a model share them. Save into another folder."
            )
    return stored, info


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(old[key], new[key]) for key in new if isinstance(old.get(key), dict) and isinstance(new[key], dict)}
    return {**old, **new, **both}
