"""Train folds; each ends with its validation cases predicted, scored and reported, and a model written."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from os import PathLike

from autoseg.data.dataset import read_dataset
from autoseg.data.splits import Split
from autoseg.errors import ModelError, TrainingError
from autoseg.inference.bundle import refuse_other_model
from autoseg.locks import run_lock
from autoseg.names import plain_name
from autoseg.networks import build_network
from autoseg.networks.devices import choose_device
from autoseg.options import Runtime, TrainOptions
from autoseg.pipeline.fold import FoldResult, Run, train_one
from autoseg.pipeline.folds import ALL, count_folds, draw_splits, fold_names
from autoseg.pipeline.ready import Ready, choose_recipe, known_network, length_of, ready_to_train
from autoseg.pipeline.starting import image_digests, open_model, start_of
from autoseg.room import check_writable
from autoseg.training.fold import task_of
from autoseg.training.memory import told_when_short_of_memory
from autoseg.training.settle import Training, settle
from autoseg.training.transfer import load_matching
from autoseg.workspace import Workspace
from planners.plan import Decision

__all__ = ["FoldResult", "tell", "train"]

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
) -> list[FoldResult]:
    """Train folds; the same call continues what was interrupted.

    Args:
        dataset: as in ``verify``; data that are not planned or prepared yet are now.
        fold: ``"0"``, several as ``"0,1,2"``, or ``"all"`` for every case with none held back.
        workspace: for the run and the model.
        options: how to train; after a dry run the list is empty, and nothing was written.
        runtime: where and how; ``fresh`` begins anew: a model of the run with another plan is moved aside.
        on_training: called with the settled training before it begins.
        on_fold: called with each FoldResult as it comes.

    Raises:
        AutosegError: the call or the data set is wrong; nothing was trained.
    """
    options, runtime = options or TrainOptions(), runtime or Runtime()
    run = _settle_run(dataset, str(fold), workspace, options, runtime)
    on_training(run.training)
    if options.dry_run:
        return []
    check_writable(run.folder)
    check_writable(run.model)
    _check_model(run)
    results = []
    for name in run.tasks:
        with run_lock(run.folder / f"fold_{name}"), told_when_short_of_memory():
            results.append(train_one(run, name))
        on_fold(results[-1])
    return results


def tell(decisions: tuple[Decision, ...]) -> None:
    """Log what was decided; warnings as such."""
    for one in decisions:
        numbers = f" ({one.numbers})" if one.numbers else ""
        logger.log(logging.WARNING if one.warning else logging.INFO, "%s: %s%s", one.chosen, one.rule, numbers)


def _settle_run(dataset: str | PathLike[str], fold: str, workspace: Workspace, options: TrainOptions, runtime: Runtime) -> Run:
    """Everything that is decided before the first step."""
    if options.name is not None:
        plain_name(options.name, what="run", where="--name", error=TrainingError)
    asked, network = choose_recipe(options.training), known_network(options.network)
    device, spec = choose_device(runtime.device), read_dataset(workspace.dataset_folder(str(dataset)))
    folds = (ALL,) if fold == ALL else fold_names(fold, count_folds(spec))
    model = open_model(options.start, workspace)
    ready = ready_to_train(spec, workspace, options.training.plan, runtime, dry=options.dry_run)
    splits = _splits_of(folds, ready, workspace)
    length = length_of(options.training, ready.plan)
    training = settle(ready.plan, asked, length, device.type, ready.voxels, network)
    tell(training.decisions)
    images, seed, prepared = image_digests(ready.scans), options.training.seed, ready.digest
    starts = {name: start_of(model, name, split.validation, images) for name, split in splits.items()} if model else {}
    name = options.name or f"{training.plan.name}_{training.plan.network.name}"
    return Run(
        spec=spec,
        training=training,
        asked=asked,
        tasks={
            fold: task_of(training, spec.labels, seed, split, prepared, starts[fold].identity if fold in starts else "")
            for fold, split in splits.items()
        },
        starts=starts,
        images=images,
        folder=workspace.run(spec.name, name),
        prepared=ready.prepared,
        model=workspace.model(f"{spec.name}_{name}"),
        device=device,
        runtime=runtime,
    )


def _splits_of(folds: tuple[str, ...], ready: Ready, workspace: Workspace) -> dict[str, Split]:
    """Which cases each fold learns from and which it holds back."""
    if folds == (ALL,):
        return {ALL: Split(tuple(case.id for case in ready.spec.training), ())}
    splits = draw_splits(ready.spec, ready.scans, workspace, keep=not ready.dry)
    return {fold: splits[int(fold)] for fold in folds}


def _check_model(run: Run) -> None:
    """Find out before the training whether its model can be written: built, started, and added to the run's other folds.

    With ``fresh`` a model of another plan, or of other labels, is moved aside.
    """
    plan, labels, channels = run.training.plan, run.spec.labels, run.spec.channels
    network = build_network(plan.network)
    for start in run.starts.values():
        load_matching(network, start.load(), start.source)
    try:
        refuse_other_model(run.model, plan=plan, labels=labels, channels=channels, file_ending=run.spec.file_ending)
    except ModelError as fault:
        if not run.runtime.fresh:
            raise ModelError(f"{fault}\nGive the run another --name, or start it anew with --fresh") from fault
        aside = next(p for n in itertools.count(1) if not (p := run.model.with_name(f".{run.model.name}.old{n}")).exists())
        run.model.rename(aside)
        logger.warning("the model of the earlier run has another plan and was moved to %s", aside)
