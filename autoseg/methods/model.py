"""The methods text of a model: how it was planned and trained, ready for a paper."""

from __future__ import annotations

from pathlib import Path

from autoseg.inference.about import about_model
from autoseg.inference.bundle import load_bundle
from autoseg.methods import try_methods

__all__ = ["tell_methods"]


def tell_methods(model: Path) -> None:
    """Write the methods text of a model into its folder."""
    try_methods(model, about_model(load_bundle(model)))
