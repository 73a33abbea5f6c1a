"""Export and import models."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from autoseg.errors import AutosegError, ModelError
from autoseg.inference import bundle as bundles
from autoseg.inference.bundle import COARSE, Bundle, add_scans, copy_bundle, load_bundle, load_networks, save_bundle
from autoseg.inference.find import find_model
from autoseg.interop.nnunet import Imported, is_nnunet, read_nnunet
from autoseg.interop.nnunet_export import write_nnunet
from autoseg.interop.onnx_export import write_onnx
from autoseg.pipeline.telling import tell_methods
from autoseg.places import MODEL, refuse_foreign
from autoseg.room import check_writable
from autoseg.workspace import Workspace
from planners.records import to_json

__all__ = ["export_model", "find_model", "import_model"]


def export_model(
    model: str | PathLike[str], path: Path, workspace: Workspace, *, format: str = "autoseg", fresh: bool = False
) -> Path:
    """Write a model for somebody else; returns the path. Whoever imports it gets its methods text with it.

    Args:
        path: zip, ``.onnx`` file, or folder to write.
        format: ``autoseg`` for one zip, ``onnx`` for one file and a JSON beside it, ``nnunet`` for a results folder that
            nnU-Net 2 predicts with.
        fresh: a zip replaces whatever lies there; else only a model is replaced. The other formats replace nothing.
    """
    if format not in ("autoseg", "nnunet", "onnx"):
        raise AutosegError(f"no format of models called {format!r}. Known: autoseg, nnunet, onnx")
    found, path = find_model(model, workspace), Path(path)
    if format == "autoseg" and found.is_file():
        raise AutosegError(f"{found} is one file already; copy it")
    if format == "autoseg" and not fresh:
        refuse_foreign(path, MODEL)
    check_writable(path.parent)
    if format == "autoseg":
        return bundles.export_model(found, path)
    bundle = load_bundle(found)
    if bundle.coarse:
        raise ModelError(f"{found}: a cascade has two networks, and {format} files have one. Export it in the format autoseg")
    if bundle.beside:
        raise ModelError(f"{found}: an ensemble of two plans, and {format} files have one. Export it in the format autoseg")
    if format == "onnx":
        about = {
            "model": bundle.digest,
            "folds": list(bundle.folds),
            "channels": list(bundle.channels),
            "postprocessing": to_json(bundle.postprocessing),
            "temperatures": list(bundle.temperatures),
        }
        return write_onnx(path, list(load_networks(bundle).values()), plan=bundle.plan, labels=bundle.labels, about=about)
    if bundle.networks:
        raise AutosegError(f"{found}: is an ensemble of networks, and a model of nnU-Net has one. Export it in another format")
    return write_nnunet(
        path,
        plan=bundle.plan,
        labels=bundle.labels,
        channels=bundle.channels,
        file_ending=bundle.file_ending,
        weights={fold: load() for fold, load in bundle.folds.items()},
        postprocessing=bundle.postprocessing,
    )


def import_model(path: Path, workspace: Workspace, *, name: str | None = None) -> Path:
    """Check a model file and copy it into the workspace; returns the folder. Refuses a name that is taken.

    A trained model of nnU-Net 2 (results folder, exported zip, or a fold) becomes one of ours; see ``interop.nnunet``.
    """
    if name is not None:
        workspace.model(name)  # refused before hundreds of megabytes are read
    model: Bundle | Imported = read_nnunet(path) if is_nnunet(path) else load_bundle(path)
    target = workspace.model(name or (model.name if isinstance(model, Imported) else path.stem))
    if target.exists():
        raise AutosegError(f"{target} exists already; choose another --name")
    if isinstance(model, Bundle):
        copy_bundle(model, target)
    else:
        _store(model, target)
    tell_methods(target)
    return target


def _store(model: Imported, target: Path) -> None:
    """Save an imported model, the coarse stage of a cascade first."""
    if model.coarse:
        _store(model.coarse, target / COARSE)
    save_bundle(
        target,
        plan=model.plan,
        labels=model.labels,
        channels=model.channels,
        weights=model.weights,
        info=model.info,
        file_ending=model.file_ending,
        postprocessing=model.postprocessing,
    )
    add_scans(target, model.scans)
