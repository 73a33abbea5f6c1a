"""The pipeline from a raw folder to masks and a report, one file per stage.

Each stage has the same three steps: check whether the artefact exists and was made from these inputs; if not, call the function
that makes it; write it. Every verb of the command line is one function here. None of them prints.
"""

from __future__ import annotations

import gc
import importlib
from typing import Any

_HOMES = {
    "convert": "autoseg.pipeline.conversion",
    "verify": "autoseg.pipeline.verification",
    "plan_and_preprocess": "autoseg.pipeline.planning",
    "train": "autoseg.pipeline.training",
    "predict": "autoseg.pipeline.prediction",
    "watch": "autoseg.pipeline.station",
    "reconstruct": "autoseg.pipeline.reconstruction",
    "evaluate": "autoseg.pipeline.evaluation",
    "report": "autoseg.pipeline.reporting",
    "compare": "autoseg.pipeline.comparison",
    "calibrate_model": "autoseg.pipeline.calibration",
    "study": "autoseg.pipeline.studying",
    "describe_model": "autoseg.inference.about",
    "find_model": "autoseg.inference.find",
    "export_model": "autoseg.pipeline.exporting",
    "import_model": "autoseg.pipeline.importing",
    "networks": "autoseg.networks.listing",
    "show_recipe": "autoseg.pipeline.recipes",
    "demo": "autoseg.pipeline.demonstration",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autoseg.pipeline' has no attribute {name!r}")
    collects = gc.isenabled()
    gc.disable()  # objects created by imports are never garbage; collecting among them takes a tenth of the time
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    finally:
        if collects:
            gc.enable()
