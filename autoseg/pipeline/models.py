"""Find, describe, export and import models."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError
from autoseg.inference import bundle as bundles
from autoseg.inference.bundle import load_bundle, save_bundle
from autoseg.places import MODEL, refuse_foreign
from autoseg.room import check_writable
from autoseg.workspace import Workspace, read_json
from planners.names import fault_of_name

__all__ = ["describe_model", "export_model", "find_model", "import_model"]


def find_model(model: str | PathLike[str] | None, workspace: Workspace) -> Path:
    """The path of a model given as path, as name or run's name in the workspace, or None for the only one there."""
    if model is not None:
        if Path(model).exists():
            return Path(model)
        if not fault_of_name(str(model)) and workspace.model(str(model)).is_dir():
            return workspace.model(str(model))
    known = workspace.models()
    names = ", ".join(path.name for path in known) or "none"
    if model is not None:
        of_run = [path for path in known if read_json(path / "model.json").get("info", {}).get("run") == str(model)]
        if len(of_run) == 1:
            return of_run[0]
        if of_run:
            raise AutosegError(
                f"{model!r} is a run of {len(of_run)} models; say which: {', '.join(path.name for path in of_run)}"
            )
        raise AutosegError(f"{model!r} is neither a model folder or zip, nor a model of {workspace.folder}. It has: {names}")
    if len(known) != 1:
        raise AutosegError(f"{workspace.folder} has {len(known)} models ({names}); say which one with -m")
    return known[0]


def export_model(model: str | PathLike[str], path: Path, workspace: Workspace, *, fresh: bool = False) -> Path:
    """Write a model as one zip; returns its path. What lies there and is no model stays, unless asked for a ``fresh`` start."""
    found = find_model(model, workspace)
    if found.is_file():
        raise AutosegError(f"{found} is one file already; copy it")
    if not fresh:
        refuse_foreign(path, MODEL)
    check_writable(Path(path).parent)
    return bundles.export_model(found, path)


def import_model(path: Path, workspace: Workspace, *, name: str | None = None) -> Path:
    """Check a model file and copy it into the workspace; returns the folder. Refuses a name that is taken."""
    target = workspace.model(path.stem if name is None else name)
    bundle = load_bundle(path)
    if target.exists():
        raise AutosegError(f"{target} exists already; choose another --name")
    weights = {fold: load() for fold, load in bundle.folds.items()}
    save_bundle(
        target,
        plan=bundle.plan,
        labels=bundle.labels,
        channels=bundle.channels,
        weights=weights,
        learned_from=bundle.learned_from,
        info=bundle.info,
        file_ending=bundle.file_ending,
    )
    return target


def describe_model(model: str | PathLike[str], workspace: Workspace) -> dict[str, Any]:
    """What a model is, as a dictionary for people and programs."""
    bundle = load_bundle(find_model(model, workspace))
    return {
        "model": bundle.name,
        "digest": bundle.digest,
        "channels": list(bundle.channels),
        "structures": list(bundle.labels.structures),
        "folds": list(bundle.folds),
        "plan": bundle.plan.name,
        "network": bundle.plan.network.name,
        "spacing_mm": list(bundle.plan.spacing_mm),
        "patch_size": list(bundle.plan.patch_size),
        "info": bundle.info,
    }
