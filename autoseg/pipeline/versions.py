"""Versions of what matters for a result, for records."""

import platform

import numpy
import torch

from autoseg import __version__

__all__ = ["versions"]


def versions():
    """Name -> version, with the system."""
    return {
        "autoseg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": platform.platform(),
    }
