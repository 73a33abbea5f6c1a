"""Writes the chosen model to its folder. Existing files are never overwritten."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path

from autoseg.errors import ModelError
from autoseg.inference.bundle import Bundle, copy_bundle, identity_of, load_bundle

__all__ = ["only_folds", "ship"]

logger = logging.getLogger(__name__)


def ship(bundle: Bundle, target: Path, *, aside: bool) -> Bundle:
    """Write a model. An existing model with the same predictions stays unchanged, including later additions to it.

    Args:
        bundle: the model in memory.
        target: folder of the model.
        aside: move an existing different model aside instead of raising an error.

    Raises:
        ModelError: the folder holds another model or something else.
    """
    if not (target / "model.json").is_file():
        if target.is_dir() and any(path.name[0] != "." and path.suffix != ".safetensors" for path in target.glob("*.*")):
            raise ModelError(f"{target}: is a folder without a model in it, and stays as it is. Give the study another --name")
        return copy_bundle(bundle, target)
    there = load_bundle(target)
    if there.digest == identity_of(bundle):
        return there
    if not aside:
        raise ModelError(
            f"{target}: is another model than the one that this study has decided on, and stays as it is. "
            "Give the study another --name, which trains nothing again, or start it again with --fresh"
        )
    free = next(path for n in itertools.count(1) if not (path := target.with_name(f".{target.name}.old{n}")).exists())
    target.rename(free)
    logger.warning("the model of the earlier study was moved to %s", free)
    return copy_bundle(bundle, target)


def only_folds(bundle: Bundle, folds: tuple[str, ...]) -> Bundle:
    """The model with only these folds.

    Raises:
        ModelError: the model lacks one of them.
    """
    missing = [fold for fold in folds if fold not in bundle.folds]
    if missing:
        raise ModelError(
            f"{bundle.name}: has no fold {', '.join(missing)}, which the study has cross-validated. Give the command of the "
            "study again: a fold that is trained is added to the model without another step"
        )
    return replace(bundle, folds={fold: bundle.folds[fold] for fold in folds})
