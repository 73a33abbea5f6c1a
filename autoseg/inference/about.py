"""The description of a model, without its weights."""

from __future__ import annotations

from os import PathLike
from typing import Any

from autoseg.inference.bundle import Bundle, load_bundle
from autoseg.inference.find import find_model
from autoseg.records import ModelAbout, ModelInfo
from autoseg.workspace import Workspace
from planners.records import RecordError, from_json

__all__ = ["about_model", "describe_model"]


def about_model(bundle: Bundle) -> ModelAbout:
    """The model as a record, with the known fields of its free-form ``info``; without it if it has another form."""
    try:
        info = from_json(ModelInfo, bundle.info, strict=False)
    except RecordError:
        info = ModelInfo()
    return ModelAbout(
        plan=bundle.plan,
        labels=bundle.labels,
        channels=bundle.channels,
        postprocessing=tuple(map(str, bundle.postprocessing)),
        temperatures=bundle.temperatures,
        networks=tuple(dict.fromkeys(bundle.networks.values())),
        info=info,
    )


def describe_model(model: str | PathLike[str], workspace: Workspace) -> dict[str, Any]:
    """The description of a model as a dictionary, for people and programs."""
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
