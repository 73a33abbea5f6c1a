"""The story: raw folder in, masks and report out; one file per chapter.

Each stage is the same three beats: is the artefact there and made from these inputs? If not, call the function that makes
it, then write it. Every verb of the command line is one function here; none of them prints.
"""

import importlib

_HOMES = {
    "convert": "conversion",
    "verify": "prepare",
    "plan_and_preprocess": "prepare",
    "train": "training",
    "predict": "prediction",
    "reconstruct": "reconstruction",
    "evaluate": "evaluation",
    "report": "reporting",
    "compare": "comparison",
    "describe_model": "models",
    "find_model": "models",
    "export_model": "models",
    "import_model": "models",
    "demo": "demonstration",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'autoseg.pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"autoseg.pipeline.{_HOMES[name]}"), name)
