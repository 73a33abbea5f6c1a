"""Train folds; each ends with its validation cases predicted, scored and reported, and a model written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from os import PathLike

from autoseg.evaluation.groups import Groups, read_groups
from autoseg.locks import run_lock
from autoseg.options import Runtime, TrainOptions
from autoseg.pipeline.ready import settled_run
from autoseg.pipeline.reporting import try_report
from autoseg.pipeline.telling import tell_methods
from autoseg.room import check_writable
from autoseg.studies.crossval import CrossValidation, cross_validate
from autoseg.studies.fold import FoldResult, train_one
from autoseg.studies.settled import check_model
from autoseg.training.memory import told_when_short_of_memory
from autoseg.training.settle import Training
from autoseg.workspace import Workspace

__all__ = ["FoldResult", "train"]

logger = logging.getLogger(__name__)


def train(
    dataset: str | PathLike[str],
    fold: str,
    workspace: Workspace,
    options: TrainOptions | None = None,
    runtime: Runtime | None = None,
    *,
    on_training: Callable[[Training], object] = lambda training: None,
    on_fold: Callable[[FoldResult], object] = lambda result: None,
    on_report: Callable[[CrossValidation], object] = lambda found: None,
) -> list[FoldResult]:
    """Train folds; the same call continues what was interrupted.

    Args:
        dataset: as in ``verify``; data that are not planned or prepared yet are now.
        fold: ``"0"``, several as ``"0,1,2"`` or ``"0-4"``, or ``"all"`` for every case, without validation.
        workspace: for the run and the model.
        options: how to train; after a dry run the list is empty, and nothing was written.
        runtime: where and how; ``fresh`` begins anew: a model of the run with another plan is moved aside.
        on_training: called with the settled training before it begins.
        on_fold: called with each FoldResult as it comes.
        on_report: called with what several folds came to together, which is also written.

    Raises:
        AutosegError: the call or the data set is wrong; nothing was trained.
    """
    options, runtime = options or TrainOptions(), runtime or Runtime()
    groups = read_groups(options.groups) if options.groups else Groups()
    run = settled_run(dataset, str(fold), workspace, options, runtime)
    on_training(run.training)
    if options.dry_run:
        return []
    check_writable(run.folder)
    check_writable(run.model)
    check_model(run)
    results = []
    for name in run.tasks:
        with run_lock(run.folder / f"fold_{name}"), told_when_short_of_memory():
            results.append(train_one(run, name))
            try_report(results[-1].folder, runtime=Runtime(workers=runtime.workers, fresh=runtime.fresh))
            tell_methods(run.model)
        on_fold(results[-1])
    if sum(one.report is not None for one in results) > 1:
        together = cross_validate(run, results, groups)
        try_report(together.folder, runtime=Runtime(workers=runtime.workers, fresh=runtime.fresh))
        on_report(together)
    return results
