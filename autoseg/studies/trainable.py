"""Refuses a settled run that cannot be trained, before the user reads what was decided and before any training."""

from __future__ import annotations

import itertools
import logging

from autoseg.errors import ModelError
from autoseg.inference.bundle import refuse_other_model
from autoseg.locks import run_lock
from autoseg.networks import build_network
from autoseg.room import check_writable
from autoseg.studies.fold import Run, fold_folder
from autoseg.studies.method import is_trained
from autoseg.training.checkpoint import read_state, refuse_other
from autoseg.training.fold import CHECKPOINT, refuse_task
from autoseg.training.transfer import frozen_parameters, load_matching, meaning_of
from planners.records import digest

__all__ = ["refuse_untrainable"]

logger = logging.getLogger(__name__)


def refuse_untrainable(run: Run) -> None:
    """Check what can be known before training.

    With ``fresh`` a model with another plan or other labels is moved aside.

    Raises:
        FileError: its places cannot be written.
        TrainingError: a fold was begun with other settings, needs too much memory, or is trained by another command.
        ModelError: the network cannot be added to the model of the run.
    """
    check_writable(run.folder)
    check_writable(run.model)
    for stage in filter(None, (run.coarse, run)):
        if not stage.runtime.fresh:
            _refuse_other_settings(stage)
    fresh = run.runtime.fresh
    left = [fold for fold, task in run.tasks.items() if fresh or not is_trained(fold_folder(run.folder, fold), task)]
    for fold in left[:1]:  # folds differ in their cases alone
        refuse_task(run.tasks[fold], run.device, run.ranks)
    for fold in left if fresh else left[:1]:  # until the others begin, another command may have ended with them
        with run_lock(fold_folder(run.folder, fold)):
            pass
    _check_model(run)


def _refuse_other_settings(run: Run) -> None:
    for fold, task in run.tasks.items():
        path = fold_folder(run.folder, fold) / CHECKPOINT
        if state := read_state(path):
            refuse_other(path, state, digest(task))


def _check_model(run: Run) -> None:
    """Check that the network can be built and initialised, and its model added to the run's other folds."""
    plan, labels, channels = run.training.plan, run.spec.labels, run.spec.channels
    if run.coarse:
        _check_model(run.coarse)
    network = build_network(plan.network)
    transfer = None
    for start in run.starts.values():
        transfer = load_matching(network, start.load(), start.source, start.meaning, meaning_of(plan, labels))
    frozen_parameters(network, run.training.recipe.freeze, transfer)  # raises an error for unknown names
    try:
        refuse_other_model(run.model, plan=plan, labels=labels, channels=channels, file_ending=run.spec.file_ending)
    except ModelError as fault:
        if not run.runtime.fresh:
            raise ModelError(
                f"{fault}\nTrain under another name (autoseg train --name), or start it again with --fresh"
            ) from fault
        aside = next(p for n in itertools.count(1) if not (p := run.model.with_name(f".{run.model.name}.old{n}")).exists())
        run.model.rename(aside)
        logger.warning("the model of the earlier run has another plan and was moved to %s", aside)
