"""Refuses a settled run that cannot be trained, before the user reads what was decided and before any training."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import ModelError
from autoseg.inference.bundle import COARSE, refuse_other_model
from autoseg.locks import run_lock
from autoseg.networks import build_network
from autoseg.room import check_writable
from autoseg.studies.fold import Run, fold_folder, folds_of_others
from autoseg.studies.method import is_trained
from autoseg.training.checkpoint import read_state, refuse_other
from autoseg.training.fold import CHECKPOINT, refuse_task
from autoseg.training.transfer import frozen_parameters, load_matching, meaning_of
from planners.records import digest

__all__ = ["refuse_unfit", "refuse_untrainable"]

logger = logging.getLogger(__name__)


def refuse_untrainable(run: Run) -> None:
    """Check what can be known before training.

    With ``fresh`` a model with another plan, other labels or another coarse stage is moved aside.

    Raises:
        TrainingError: another command trains a fold of it; otherwise as ``refuse_unfit``.
    """
    refuse_unfit(run)
    folders = [fold_folder(run.folder, fold) for fold in _left(run)]
    if run.coarse:
        folders += [fold_folder(run.coarse.folder, fold) for fold in folds_of_others(run.coarse)]
    for folder in folders if run.runtime.fresh else folders[:1]:  # before the others begin, another command may end with them
        with run_lock(folder):
            pass
    for model in _models_in_the_way(run) if run.runtime.fresh else ():
        aside = next(p for n in itertools.count(1) if not (p := model.with_name(f".{model.name}.old{n}")).exists())
        model.rename(aside)
        logger.warning("the model of the earlier run has another plan or another coarse stage, and was moved to %s", aside)


def refuse_unfit(run: Run) -> None:
    """Check what can be known long before training, also of a run that waits for others; nothing is written.

    Raises:
        FileError: its places cannot be written.
        TrainingError: a fold was begun with other settings, or needs too much memory.
        ModelError: the network cannot be built, initialised, or added to the model of the run.
    """
    check_writable(run.folder)
    check_writable(run.model)
    for stage in _stages(run) if not run.runtime.fresh else ():
        _refuse_other_settings(stage)
    for fold in _left(run)[:1]:  # folds differ in their cases alone
        refuse_task(run.tasks[fold], run.device, run.ranks)
    for stage in _stages(run):
        _refuse_network(stage)
        if misfit := _refusal(stage.folder, stage):  # where no model is, so it is about channels and labels
            raise misfit
    for folder, stage in _models(run) if not run.runtime.fresh else ():
        if fault := _refusal(folder, stage):
            remedy = "Train under another name (autoseg train --name), or start it again with --fresh"
            raise ModelError(f"{fault}\n{remedy}") from fault


def _stages(run: Run) -> tuple[Run, ...]:
    return (run.coarse, run) if run.coarse else (run,)


def _left(run: Run) -> list[str]:
    """The folds to train."""
    is_fresh = run.runtime.fresh
    return [fold for fold, task in run.tasks.items() if is_fresh or not is_trained(fold_folder(run.folder, fold), task)]


def _refuse_other_settings(run: Run) -> None:
    for fold, task in run.tasks.items():
        path = fold_folder(run.folder, fold) / CHECKPOINT
        if state := read_state(path):
            refuse_other(path, state, digest(task))


def _refuse_network(run: Run) -> None:
    """Check that the network can be built and initialised."""
    plan = run.training.plan
    network = build_network(plan.network)
    transfer = None
    for start in run.starts.values():
        transfer = load_matching(network, start.load(), start.source, start.meaning, meaning_of(plan, run.spec.labels))
    frozen_parameters(network, run.training.recipe.freeze, transfer)  # raises an error for unknown names


def _models(run: Run) -> Iterator[tuple[Path, Run]]:
    """The model folders that a run writes to, each with the stage whose folds it gets."""
    yield run.model, run
    if run.coarse:
        yield run.coarse.model, run.coarse
        yield run.model / COARSE, run.coarse


def _refusal(folder: Path, run: Run) -> ModelError | None:
    """Why the folds of a run cannot be added to the model in a folder; None if they can."""
    plan, spec = run.training.plan, run.spec
    try:
        refuse_other_model(folder, plan=plan, labels=spec.labels, channels=spec.channels, file_ending=spec.file_ending)
    except ModelError as fault:
        return fault
    return None


def _models_in_the_way(run: Run) -> list[Path]:
    """The models that a run cannot add its folds to; its own also if the folds there learned from other coarse labels."""
    found = [run.model] if run.coarse and folds_of_others(run.coarse) and run.model.exists() else []
    refused = (folder for folder, stage in _models(run) if _refusal(folder, stage))
    found += [run.model if folder.is_relative_to(run.model) else folder for folder in refused]
    return list(dict.fromkeys(found))
