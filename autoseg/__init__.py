"""autoseg: a folder of scans and labels in; masks, measurements and a report out.

Public names are imported on first use, so that ``import autoseg`` does not import torch.
"""

import importlib
import logging

logging.getLogger("autoseg").addHandler(logging.NullHandler())  # silent as a library; the command line shows it

__version__ = "0.1.0"

_HOMES = {
    "AutosegError": "autoseg.errors",
    "Geometry": "autoseg.imaging.geometry",
    "LabelVolume": "autoseg.imaging.volume",
    "Volume": "autoseg.imaging.volume",
    "read_volume": "autoseg.imaging.files",
    "read_label_volume": "autoseg.imaging.files",
    "write_volume": "autoseg.imaging.files",
    "write_label_volume": "autoseg.imaging.files",
    "read_dataset": "autoseg.data.dataset",
    "check_dataset": "autoseg.data.check",
    "measure_fingerprint": "autoseg.data.measure",
    "make_splits": "autoseg.data.splits",
    "LabelSchema": "autoseg.data.labels",
    "prepare_case": "autoseg.preprocess.case",
    "prepare_volume": "autoseg.preprocess.case",
    "NORMALIZATIONS": "autoseg.preprocess.normalize",
    "NETWORKS": "autoseg.networks",
    "build_network": "autoseg.networks",
    "LOSSES": "autoseg.training.losses",
    "RECIPES": "autoseg.training.recipe",
    "Recipe": "autoseg.training.recipe",
    "load_bundle": "autoseg.inference.bundle",
    "Predictor": "autoseg.inference.predictor",
    "SurfaceMesh": "autoseg.imaging.mesh",
    "write_mesh": "autoseg.imaging.mesh",
    "surfaces_from_scores": "autoseg.reconstruct.surface",
    "surfaces_from_labels": "autoseg.reconstruct.surface",
    "isotropic_labels": "autoseg.reconstruct.surface",
    "measure_structures": "autoseg.reconstruct.measure",
    "METRICS": "autoseg.evaluation",
    "evaluate_case": "autoseg.evaluation",
    "evaluate_folder": "autoseg.evaluation",
    "write_report": "autoseg.evaluation",
    "plan_and_preprocess": "autoseg.pipeline",
    "train": "autoseg.pipeline",
    "predict": "autoseg.pipeline",
    "evaluate": "autoseg.pipeline",
    "compare": "autoseg.pipeline",
    "study": "autoseg.pipeline",
    "Workspace": "autoseg.workspace",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'autoseg' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
