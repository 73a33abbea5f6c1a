"""A finished model: everything needed for prediction and nothing that can run code.

A *bundle* on disk is a folder, or one zip of it, with ``model.json`` (plan, labels, channel names, digests of the weights,
``info``) and one ``fold_NAME.safetensors`` per fold. It needs neither the data, nor a workspace, nor the training code.
The fine stage of a cascade has its coarse stage, a complete model, in the folder ``coarse``. An ensemble of two plans has its
second model in the folder ``beside``.
Weights are read on demand and refused if they are not the bytes described in ``model.json``. A zip is read in memory and never
unpacked, so the names inside it cannot point anywhere.
"""

from autoseg.inference.bundle.exporting import export_model
from autoseg.inference.bundle.identity import identity_of
from autoseg.inference.bundle.reading import load_bundle
from autoseg.inference.bundle.record import BESIDE, COARSE, MODEL, ModelRecord, WeightFile
from autoseg.inference.bundle.updating import add_scans, store_windows
from autoseg.inference.bundle.value import Bundle
from autoseg.inference.bundle.weights import load_networks
from autoseg.inference.bundle.writing import copy_bundle, refuse_other_model, save_bundle

__all__ = [
    "BESIDE",
    "COARSE",
    "MODEL",
    "Bundle",
    "ModelRecord",
    "WeightFile",
    "add_scans",
    "copy_bundle",
    "export_model",
    "identity_of",
    "load_bundle",
    "load_networks",
    "refuse_other_model",
    "save_bundle",
    "store_windows",
]
