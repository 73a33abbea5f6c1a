"""Import a model into the workspace."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from autoseg.atomic import making_folder
from autoseg.errors import AutosegError
from autoseg.inference.bundle import COARSE, Bundle, add_scans, copy_bundle, load_bundle, save_bundle
from autoseg.interop.nnunet import Imported, is_nnunet, read_nnunet
from autoseg.methods.model import tell_methods
from autoseg.workspace import Workspace

__all__ = ["import_model"]


def import_model(path: str | PathLike[str], workspace: Workspace, *, name: str | None = None) -> Path:
    """Check a model and copy it into the workspace; returns its folder there.

    Args:
        path: zip or folder of a model, or a trained model of nnU-Net 2 (results folder, exported zip, or a fold), which is
            converted; see ``interop.nnunet``.
        workspace: for the model and its methods text.
        name: name in the workspace. None for the name of the file, or the data set and configuration of an nnU-Net model.

    Raises:
        AutosegError: no model at ``path``, a damaged model, or a name already in use. Nothing was written.
    """
    path = Path(path)
    if name is not None:
        workspace.model(name)  # refuse a bad name before hundreds of megabytes are read
    model: Bundle | Imported = read_nnunet(path) if is_nnunet(path) else load_bundle(path)
    target = workspace.model(name or (model.name if isinstance(model, Imported) else path.stem))
    if target.exists():
        raise AutosegError(f"{target} exists already; choose another --name")
    with making_folder(target) as draft:
        if isinstance(model, Bundle):
            copy_bundle(model, draft)
        else:
            _store(model, draft)
        tell_methods(draft)
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
