"""Which model a user means."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.workspace import Workspace, read_json
from planners.names import fault_of_name

__all__ = ["find_model"]


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
        of_run = [path for path in known if _run_of(path) == str(model)]
        if len(of_run) == 1:
            return of_run[0]
        if of_run:
            raise AutosegError(
                f"{model!r} is a run of {len(of_run)} models; say which: {', '.join(path.name for path in of_run)}"
            )
        raise AutosegError(
            f"{model!r} is neither a model folder or zip, nor a model of {workspace.folder}, which has: {names}. Correct the "
            "name or path"
        )
    if not known:
        raise AutosegError(f"{workspace.folder} has no model. Train one, or name a model folder or zip with -m")
    if len(known) > 1:
        raise AutosegError(f"{workspace.folder} has {len(known)} models ({names}). Choose one with -m")
    return known[0]


def _run_of(model: Path) -> str | None:
    """The run that a model says it comes from; None of one that says nothing, or is damaged, which is told where it is used."""
    try:
        found = read_json(model / "model.json")
    except AutosegError:
        return None
    info = found.get("info") if isinstance(found, dict) else None
    return str(info.get("run")) if isinstance(info, dict) else None
