"""Show the recipe of a training run, complete."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike

from autoseg.options import Runtime, TrainOptions
from autoseg.studies.folds import ALL
from autoseg.studies.settled import settled_run
from autoseg.studies.shown_recipe import ShownRecipe, show
from autoseg.workspace import Workspace

__all__ = ["show_recipe"]


def show_recipe(
    options: TrainOptions, dataset: str | PathLike[str] | None, workspace: Workspace, runtime: Runtime | None = None
) -> ShownRecipe:
    """Every setting with its value, its meaning and its origin. Nothing is written.

    Args:
        options: as in ``train``.
        dataset: also show what a training run on this data set would decide; None for the recipe alone.

    Raises:
        AutosegError: unknown recipe, setting, network, plan or data set.
    """
    settled = None
    if dataset is not None:
        dry = replace(options, dry_run=True)
        settled = settled_run(dataset, ALL, workspace, dry, runtime or Runtime()).training
    return show(options.training, settled)
