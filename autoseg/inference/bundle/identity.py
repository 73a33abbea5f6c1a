"""The identity of a model: the digest of its record, which covers everything that predictions depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autoseg.errors import ModelError
from autoseg.inference.bundle.record import ModelRecord, checked_record
from autoseg.inference.bundle.stages import refuse_unlike
from autoseg.inference.bundle.value import Bundle
from autoseg.inference.bundle.weights import as_bytes, weight_file
from planners.records import digest

__all__ = ["identity_of", "record_of"]


def identity_of(bundle: Bundle) -> str:
    """The digest that a Bundle will have once it is written."""
    files = [weight_file(fold, as_bytes(bundle.folds[fold]()), (), bundle.networks) for fold in sorted(bundle.folds)]
    coarse, beside = (identity_of(stage) if stage else "" for stage in (bundle.coarse, bundle.beside))
    return digest(replace(record_of(bundle, Path(bundle.name)), weights=tuple(files), coarse=coarse, beside=beside))


def record_of(bundle: Bundle, folder: Path) -> ModelRecord:
    """The content of ``model.json`` for a Bundle, without its weights and the models inside it."""
    if bundle.beside:
        refuse_unlike(bundle, bundle.beside, folder)
    rules = bundle.postprocessing
    record = checked_record(bundle.plan, bundle.labels, bundle.channels, bundle.file_ending, bundle.folds, folder, rules)
    try:
        return replace(record, temperatures=bundle.temperatures, scans=bundle.scans)
    except ValueError as fault:
        raise ModelError(f"{folder}: {fault}") from fault
