"""One network of a comparison: its settled training run, its cost, and its run with a unique name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoseg.data.splits import Split
from autoseg.networks.cost import NetworkCost, match_operations, measure_cost
from autoseg.options import Runtime
from autoseg.studies.fold import fold_folder
from autoseg.studies.ready import Ready
from autoseg.training.fold import FoldTask, task_of
from autoseg.training.length import Length
from autoseg.training.recipe import Recipe
from autoseg.training.settle import Training, choose_batch, choose_network, settle
from autoseg.workspace import Workspace
from planners.change import refit
from planners.plan import Decision
from planners.records import digest

__all__ = ["ComparedRun", "ComparisonSetup", "compared_run"]


@dataclass(frozen=True)
class ComparisonSetup:
    """What all networks of a comparison have in common for one seed.

    Attributes:
        ready: data set and plan.
        cases_digest: digest of the prepared cases.
        voxels: number of voxels of all cases.
        fold, split: the comparison uses the validation cases of this fold.
        recipe: the requested recipe; ``recipe_words``: the same as arguments of the command line.
        workspace, length, seed, device, runtime: of the training runs.
    """

    ready: Ready
    cases_digest: str
    voxels: int
    fold: str
    split: Split
    recipe: Recipe
    recipe_words: tuple[str, ...]
    workspace: Workspace
    length: Length
    seed: int
    device: torch.device
    runtime: Runtime


@dataclass(frozen=True)
class ComparedRun:
    """One network of a comparison.

    Attributes:
        name: name of the network.
        training: the settled training run, as in ``autoseg train``.
        task: what to train.
        cost: cost of the network that is trained.
        run_name: name of its run; ``folder``: folder of the fold in it.
        warnings: notes for the user about this network under this plan.
    """

    name: str
    training: Training
    task: FoldTask
    cost: NetworkCost
    run_name: str
    folder: Path
    warnings: tuple[Decision, ...] = ()


def compared_run(setup: ComparisonSetup, name: str, operations: float | None = None) -> ComparedRun:
    """The network of that name as it will be trained, scaled to ``operations`` per pass unless that is None."""
    plan, recipe, device = setup.ready.plan, setup.recipe, setup.device.type
    chosen, decisions = choose_network(plan, name, recipe, device)
    if operations:
        network = settle(plan, recipe, setup.length, device, setup.voxels, name).plan.network  # with all its heads
        chosen = refit(chosen, match_operations(network, plan.patch_size, operations))
    given = replace(recipe, batch_size=choose_batch(recipe, chosen, device))
    training = settle(plan, given, setup.length, device, setup.voxels, chosen.network)
    known = replace(recipe, patch_curriculum=training.recipe.patch_curriculum, validations=training.recipe.validations)
    shared = (known, setup.length, setup.seed, setup.cases_digest, setup.split, device)
    run_name = f"compare_{name}_{digest([chosen, *shared])[:8]}"
    spec = setup.ready.spec
    return ComparedRun(
        name=name,
        training=training,
        task=task_of(training, spec.labels, setup.seed, setup.split, setup.cases_digest),
        cost=measure_cost(training.plan.network, plan.patch_size),
        run_name=run_name,
        folder=fold_folder(setup.workspace.run(spec.name, run_name), setup.fold),
        warnings=tuple(decision for decision in decisions if decision.warning),
    )
