"""What a model says of itself, without its weights, for whoever tells about it."""

from __future__ import annotations

from autoseg.inference.bundle import Bundle
from autoseg.records import ModelAbout, ModelInfo
from planners.records import RecordError, from_json

__all__ = ["about_model"]


def about_model(bundle: Bundle) -> ModelAbout:
    """The model as a record; of its free-form ``info`` what is known, nothing where it is of another form."""
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
