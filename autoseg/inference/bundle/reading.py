"""Open a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from autoseg.errors import ModelError
from autoseg.inference.bundle.members import Read, folder_members, zip_members
from autoseg.inference.bundle.record import AGAIN, BESIDE, COARSE, MODEL, ModelRecord, parse_model, weight_name
from autoseg.inference.bundle.stages import coarse_stage, refuse_unlike
from autoseg.inference.bundle.value import Bundle
from autoseg.inference.bundle.weights import load_weights
from planners.records import digest

__all__ = ["load_bundle"]

MAX_JSON_BYTES = 64 * 2**20


def load_bundle(path: str | Path) -> Bundle:
    """Open a model: a folder, or a zip of one (from ``export_model``, or with one enclosing folder).

    Raises:
        ModelError: no model found, a damaged or foreign ``model.json``, a weight file missing or of the wrong size.
            A loader in ``folds`` raises it if the bytes differ from those saved.
    """
    path = Path(path)
    sizes, read = zip_members(path) if path.is_file() else folder_members(path)
    return _load(sizes, read, path)


def _load(sizes: Mapping[str, int], read: Read, path: Path, folder: str = "") -> Bundle:
    """The model whose member names start with ``folder``."""
    where = f"{path}/{folder}".rstrip("/")
    model = f"{folder}{MODEL}"
    if model not in sizes:
        raise ModelError(f"{where}: no {MODEL} in it, so this is not a model. Give the folder of a model, or its zip")
    if sizes[model] > MAX_JSON_BYTES:
        raise ModelError(f"{where}: {MODEL} has {sizes[model]} bytes, more than the {MAX_JSON_BYTES} that are allowed")
    record, info = parse_model(read(model), f"{where}/{MODEL}")
    for entry in record.weights:
        found = sizes.get(f"{folder}{weight_name(entry.fold)}")
        if found != entry.bytes:
            there = "no such file" if found is None else f"{found} bytes"
            raise ModelError(f"{where}: {weight_name(entry.fold)}: expected {entry.bytes} bytes, found {there}. {AGAIN}")
    coarse = None
    if record.plan.coarse:
        coarse = coarse_stage(record, _load(sizes, read, path, f"{folder}{COARSE}/"), Path(where))
        if coarse.digest != record.coarse:
            raise ModelError(
                f"{where}: its coarse stage is not the one that was saved with it\n  expected digest {record.coarse}\n"
                f"  found digest    {coarse.digest}\n{AGAIN}"
            )
    beside = _load(sizes, read, path, f"{folder}{BESIDE}/") if record.beside else None
    if beside and (folder or beside.digest != record.beside):
        raise ModelError(f"{where}: its second model is not the one that was saved with it. {AGAIN}")
    loaded = Bundle(
        plan=record.plan,
        labels=record.labels,
        channels=record.channels,
        file_ending=record.file_ending,
        folds={entry.fold: partial(load_weights, read, folder, entry, path) for entry in record.weights},
        learned_from={entry.fold: entry.learned_from for entry in record.weights},
        windows={entry.fold: entry.windows for entry in record.weights if entry.windows is not None},
        info=info,
        digest=digest(record),
        name=where,
        postprocessing=record.postprocessing,
        scans=record.scans,
        coarse=coarse,
        temperatures=record.temperatures,
        networks={entry.fold: entry.network for entry in record.weights if entry.network},
        beside=beside,
        digest_with=partial(_digest_with, record),
    )
    if beside:
        refuse_unlike(loaded, beside, Path(where))
    return loaded


def _digest_with(record: ModelRecord, folds: Collection[str]) -> str:
    return digest(replace(record, weights=tuple(entry for entry in record.weights if entry.fold in folds)))
