"""Settles a run of folds: everything that is decided before the first step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch

from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.data.splits import Split
from autoseg.errors import TrainingError
from autoseg.inference.bundle import Bundle
from autoseg.names import plain_name
from autoseg.networks.devices import choose_device
from autoseg.options import Runtime, TrainOptions
from autoseg.studies.fold import Run, fold_folder
from autoseg.studies.folds import ALL, count_folds, draw_splits, fold_names
from autoseg.studies.ready import Ready, choose_recipe, known_network, length_of, ready_to_train
from autoseg.studies.starting import image_digests, open_model, start_of
from autoseg.training.checkpoint import read_state
from autoseg.training.fold import CHECKPOINT, FoldTask, task_of
from autoseg.training.losses import refuse_deaf_loss
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.recipe import Recipe
from autoseg.training.settle import Training, as_before, batches_at_once, settle
from autoseg.workspace import Workspace
from planners import NetworkSpec, Plan
from planners.plan import Decision
from planners.records import digest, identity

__all__ = ["settled_run", "tell", "tell_decisions"]

logger = logging.getLogger(__name__)


def tell(decisions: tuple[Decision, ...]) -> None:
    """Log decisions, warnings as warnings."""
    for one in decisions:
        numbers = f" ({one.numbers})" if one.numbers else ""
        logger.log(logging.WARNING if one.warning else logging.INFO, "%s: %s%s", one.chosen, one.rule, numbers)


def tell_decisions(run: Run) -> None:
    """Log what was decided for a run, and before that for its coarse stage."""
    if run.coarse:
        tell_decisions(run.coarse)
    tell(run.training.decisions)


def settled_run(
    dataset: str | PathLike[str],
    fold: str,
    workspace: Workspace,
    options: TrainOptions,
    runtime: Runtime,
    ranks: Ranks = ALONE,
) -> Run:
    """Everything that is decided before the first step of a run. Missing plans and prepared cases are made.

    Raises:
        AutosegError: a plan, network, recipe, device or model does not exist, or the data set has errors.
    """
    asked = _asked_run(dataset, fold, workspace, options, runtime)
    ready = ready_to_train(asked.spec, workspace, options.training.plan, runtime, dry=options.dry_run)
    coarse = _coarse_run(asked, ready, workspace, options, runtime, ranks)
    return _settle_run(asked, ready, workspace, options, runtime, ranks, coarse)


@dataclass(frozen=True)
class _Asked:
    """The requested settings of a run, checked before anything is made.

    Attributes:
        spec: the data set.
        folds: ``0`` and so on, or ``all``.
        recipe: the requested recipe.
        network: a name, a NetworkSpec, or None for the plan's.
        device: device to train on.
        model: model to start from; None for none.
    """

    spec: DatasetSpec
    folds: tuple[str, ...]
    recipe: Recipe
    network: str | NetworkSpec | None
    device: torch.device
    model: Bundle | None


def _asked_run(
    dataset: str | PathLike[str], fold: str, workspace: Workspace, options: TrainOptions, runtime: Runtime
) -> _Asked:
    """Look up the requested settings of a run.

    Raises:
        AutosegError: something that was named does not exist.
    """
    if options.name is not None:
        plain_name(options.name, what="run", where="--name", error=TrainingError)
    recipe, network = choose_recipe(options.training), known_network(options.network)
    chosen, spec = (
        choose_device(runtime.device, elsewhere=runtime.elsewhere),
        read_dataset(workspace.dataset_folder(str(dataset))),
    )
    folds = (ALL,) if fold == ALL else fold_names(fold, count_folds(spec))
    return _Asked(spec, folds, recipe, network, chosen, open_model(options.start, workspace))


def _run_name(asked: str | None, plan: Plan, network: str | NetworkSpec | None) -> str:
    """The name of a run: the requested one, else its plan and its network."""
    chosen = network.name if isinstance(network, NetworkSpec) else network or plan.network.name
    return asked or f"{plan.name}_{chosen}"


def _settle_run(
    asked: _Asked,
    ready: Ready,
    workspace: Workspace,
    options: TrainOptions,
    runtime: Runtime,
    ranks: Ranks,
    coarse: Run | None,
) -> Run:
    """Everything that is decided before the first step. ``coarse`` is the run of the coarse stage, if the plan has one."""
    spec, splits = asked.spec, _splits_of(asked.folds, ready, workspace)
    if any(case.unlabelled for case in spec.training):
        refuse_deaf_loss(asked.recipe.loss)
    length = length_of(options.training, ready.plan, batches_at_once(asked.recipe, ranks.count))
    images, seed, prepared = image_digests(ready.scans), options.training.seed, ready.digest
    model = asked.model
    starts = (
        {name: start_of(model, name, split.validation, images, unseen=options.unseen) for name, split in splits.items()}
        if model
        else {}
    )
    name = _run_name(options.name, ready.plan, asked.network)
    folder = workspace.run(spec.name, name)

    def settled(recipe: Recipe) -> tuple[Training, dict[str, FoldTask]]:
        training = settle(ready.plan, recipe, length, asked.device.type, ready.voxels, asked.network, ranks.count)
        tasks = {
            fold: replace(
                task_of(training, spec.labels, seed, split, prepared, starts[fold].identity if fold in starts else ""),
                coarse=digest([identity(task) for task in coarse.tasks.values()]) if coarse else "",
            )
            for fold, split in splits.items()
        }
        return training, tasks

    (training, tasks), before = settled(asked.recipe), settled(as_before(asked.recipe))
    if not runtime.fresh and before[1] != tasks and _is_begun(folder, before[1]):
        training, tasks = before
    return Run(
        spec=spec,
        training=training,
        asked=asked.recipe,
        tasks=tasks,
        starts=starts,
        images=images,
        scans=ready.ranges,
        folder=folder,
        prepared=ready.prepared,
        model=workspace.model(f"{spec.name}_{name}"),
        device=asked.device,
        runtime=runtime,
        ranks=ranks,
        coarse=coarse,
    )


def _coarse_run(
    asked: _Asked, ready: Ready, workspace: Workspace, options: TrainOptions, runtime: Runtime, ranks: Ranks
) -> Run | None:
    """The run of the coarse stage, if the plan has one: all its folds, with the length and recipe of the fine stage.

    Its name is the name of the run with the suffix ``_coarse``.
    """
    if ready.plan.coarse is None:
        return None
    training = replace(options.training, plan=ready.plan.coarse.plan)
    network = asked.network if isinstance(asked.network, str) else None
    name = f"{_run_name(options.name, ready.plan, asked.network)}_coarse"
    wanted = replace(options, training=training, network=network, name=name, start=None)
    folds = f"0-{count_folds(asked.spec) - 1}"
    return settled_run(asked.spec.folder, folds, workspace, wanted, runtime, ranks)


def _is_begun(folder: Path, tasks: Mapping[str, FoldTask]) -> bool:
    """Whether a run in ``folder`` has begun with one of these tasks."""
    states = {fold: read_state(fold_folder(folder, fold) / CHECKPOINT) for fold in tasks}
    return any(state is not None and state.identity == digest(tasks[fold]) for fold, state in states.items())


def _splits_of(folds: tuple[str, ...], ready: Ready, workspace: Workspace) -> dict[str, Split]:
    """The training and validation cases of each fold."""
    if folds == (ALL,):
        return {ALL: Split(tuple(case.id for case in ready.spec.training), ())}
    splits = draw_splits(ready.spec, ready.scans, workspace, keep=not ready.dry)
    return {fold: splits[int(fold)] for fold in folds}
