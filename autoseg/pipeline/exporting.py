"""Export a model."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from autoseg.errors import AutosegError, ModelError
from autoseg.inference.bundle import Bundle, load_bundle, load_networks
from autoseg.inference.bundle import export_model as write_zip
from autoseg.inference.find import find_model
from autoseg.interop.nnunet_export import write_nnunet
from autoseg.interop.onnx_export import write_onnx
from autoseg.places import MODEL, refuse_foreign
from autoseg.room import check_writable
from autoseg.workspace import Workspace
from planners.records import to_json

__all__ = ["export_model"]


def export_model(
    model: str | PathLike[str],
    path: str | PathLike[str],
    workspace: Workspace,
    *,
    format: str = "autoseg",
    fresh: bool = False,
) -> Path:
    """Export a model so that others can use it; returns the path. Its methods text is included.

    Args:
        model: name or folder.
        path: zip, ``.onnx`` file, or folder to write.
        workspace: workspace that holds the model.
        format: ``autoseg`` for one zip, ``onnx`` for one file and a JSON beside it, ``nnunet`` for a results folder for
            prediction with nnU-Net 2.
        fresh: a zip replaces any file at ``path``; without it, only a model is replaced. Other formats replace nothing.

    Raises:
        AutosegError: no such model, or the format cannot hold it. Nothing was written.
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
        return write_zip(found, path)
    bundle = load_bundle(found)
    if bundle.coarse:
        raise ModelError(f"{found}: a cascade has two networks, and {format} files have one. Export it in the format autoseg")
    if bundle.beside:
        raise ModelError(f"{found}: an ensemble of two plans, and {format} files have one. Export it in the format autoseg")
    return (_as_onnx if format == "onnx" else _as_nnunet)(bundle, path)


def _as_onnx(bundle: Bundle, path: Path) -> Path:
    about = {
        "model": bundle.digest,
        "folds": list(bundle.folds),
        "channels": list(bundle.channels),
        "postprocessing": to_json(bundle.postprocessing),
        "temperatures": list(bundle.temperatures),
    }
    return write_onnx(path, list(load_networks(bundle).values()), plan=bundle.plan, labels=bundle.labels, about=about)


def _as_nnunet(bundle: Bundle, path: Path) -> Path:
    if bundle.networks:
        raise AutosegError(
            f"{bundle.name}: is an ensemble of networks, and a model of nnU-Net has one. Export it in another format"
        )
    return write_nnunet(
        path,
        plan=bundle.plan,
        labels=bundle.labels,
        channels=bundle.channels,
        file_ending=bundle.file_ending,
        weights={fold: load() for fold, load in bundle.folds.items()},
        postprocessing=bundle.postprocessing,
    )
