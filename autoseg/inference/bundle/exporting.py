"""A model as one file."""

from __future__ import annotations

import zipfile
from pathlib import Path

from autoseg.atomic import replacing
from autoseg.inference.bundle.reading import load_bundle
from autoseg.inference.bundle.record import MODEL, weight_name

__all__ = ["export_model"]


def export_model(folder: str | Path, zip_path: str | Path) -> Path:
    """Write a model as one zip, which ``load_bundle`` reads directly. Weights are checked first. Returns the path.

    Equal models give equal files: members are stored uncompressed, in order, without times.
    """
    bundle = load_bundle(folder)
    for stage in bundle.stages.values():
        for load in stage.folds.values():
            load()
    zip_path = Path(zip_path)
    with replacing(zip_path) as draft, zipfile.ZipFile(draft, "w") as archive:
        for within, stage in bundle.stages.items():
            for name in (MODEL, *(weight_name(fold) for fold in stage.folds)):
                archive.writestr(zipfile.ZipInfo(within + name), (Path(folder) / within / name).read_bytes())
    return zip_path
