"""Say what a model is."""

from __future__ import annotations

from os import PathLike
from typing import Any

from autoseg.inference.bundle import Bundle, load_bundle
from autoseg.inference.find import find_model
from autoseg.workspace import Workspace

__all__ = ["describe_model"]


def describe_model(model: str | PathLike[str], workspace: Workspace) -> dict[str, Any]:
    """What a model is, as a dictionary for people and programs."""
    return _described(load_bundle(find_model(model, workspace)))


def _described(bundle: Bundle) -> dict[str, Any]:
    stage = {name: _described(one) for name, one in (("coarse", bundle.coarse), ("beside", bundle.beside)) if one}
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
        "windows": {fold: str(found) for fold, found in bundle.windows.items()},
        "postprocessing": [str(rule) for rule in bundle.postprocessing],
        "temperatures": list(bundle.temperatures),
        "info": bundle.info,
        **stage,
    }
