"""Train folds. Each ends by predicting, scoring and reporting its validation cases, and by writing a model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from os import PathLike

from autoseg.engines import saying, usable_cores
from autoseg.evaluation.groups import Groups, read_groups
from autoseg.locks import run_lock
from autoseg.methods.model import tell_methods
from autoseg.networks.cpu import use_threads
from autoseg.options import Runtime, TrainOptions
from autoseg.pipeline.reporting import try_report
from autoseg.studies.crossval import CrossValidation, cross_validate
from autoseg.studies.fold import FoldResult, Run, begin_anew, coarse_labels, fold_folder, threads_begun_with, train_one
from autoseg.studies.lanes import device_names
from autoseg.studies.settled import settled_run, tell_decisions
from autoseg.studies.side_by_side import choose_lanes, train_side_by_side
from autoseg.studies.trainable import refuse_untrainable
from autoseg.training.memory import told_when_short_of_memory
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.settle import Training
from autoseg.workspace import Workspace
from planners.records import digest

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
    ranks: Ranks = ALONE,
) -> list[FoldResult]:
    """Train folds. The same call continues an interrupted run.

    Args:
        dataset: as in ``verify``. Planning and preparation are done first if necessary.
        fold: ``"0"``, several as ``"0,1,2"`` or ``"0-4"``, or ``"all"`` for every case, without validation.
        workspace: for the run and the model.
        options: how to train. A dry run returns an empty list and writes nothing.
        runtime: where and how to run; ``fresh`` starts again, and a model of the run with another plan is moved aside.
            Several devices are separated by commas, ``cuda:0,cuda:1``: each trains folds at the same time.
        on_training: called with the settled training run before it begins.
        on_fold: called with each FoldResult when it is finished.
        on_report: called with the combined result of several folds, which is also written.
        ranks: the processes that train together. All make the same call; only the first one calls back and writes.

    Raises:
        AutosegError: the call or the data set is wrong. Nothing was trained. Withdrawn: another rank ended.
    """
    options, runtime = options or TrainOptions(), runtime or Runtime()
    groups = read_groups(options.groups) if options.groups else Groups()
    devices = runtime.device
    runtime = replace(runtime, device=device_names(devices)[0])
    if options.threads:
        use_threads(options.threads)
    run = ranks.in_order(lambda: settled_run(dataset, str(fold), workspace, options, runtime, ranks))
    groups = groups.among(case.id for case in run.spec.training)
    ranks.refuse_unless_same("what is to be trained", " ".join(digest(task) for task in run.tasks.values()))
    if not options.dry_run:
        ranks.alone(lambda: refuse_untrainable(run))
    tell_decisions(run)
    if ranks.is_first:
        on_training(run.training)
    if options.dry_run:
        return []
    if runtime.fresh:
        begin_anew(run)
    if run.coarse:
        coarse_labels(run, run.coarse)  # before the lanes start, which all need them
    lanes = choose_lanes(run, options.at_once, devices) if ranks.count == 1 else None
    if lanes is not None:
        results = train_side_by_side(run, lanes, workspace, options, runtime)
        for result in results:
            on_fold(result)
    else:
        results = _train_in_a_row(run, on_fold, ranks, options.threads)
    if options.report and ranks.is_first and sum(one.report is not None for one in results) > 1:
        together = cross_validate(run, results, groups)
        try_report(together.folder, runtime=Runtime(workers=runtime.workers, fresh=runtime.fresh))
        on_report(together)
    return results


def _train_in_a_row(run: Run, on_fold: Callable[[FoldResult], object], ranks: Ranks, threads: int | None) -> list[FoldResult]:
    """Train all folds of a run in this process and its ranks. A resumed fold uses the number of threads that it began with, so
    that it ends like an uninterrupted one, unless ``threads`` gives another number."""
    results, runtime = [], Runtime(workers=run.runtime.workers, fresh=run.runtime.fresh)
    for name in run.tasks:
        called = saying(f"fold {name}" if len(run.tasks) > 1 else "")
        with called, ranks.held(run_lock(fold_folder(run.folder, name))), told_when_short_of_memory():
            if not threads and (begun := threads_begun_with(run, name)):
                use_threads(min(begun, usable_cores()))
            results.append(train_one(run, name))
            if ranks.is_first:
                tell_methods(run.model)
                try_report(results[-1].folder, runtime=runtime)  # the last file, by which a fold is known to be done
        if ranks.is_first:
            on_fold(results[-1])
    return results
