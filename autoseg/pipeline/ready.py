"""Before a training run: whatever is missing of its plan and its prepared cases is made."""

from __future__ import annotations

import logging
from dataclasses import replace
from os import PathLike

from autoseg.data.dataset import DatasetSpec
from autoseg.errors import DatasetError, PlanError
from autoseg.options import PlanOptions, Runtime, TrainOptions
from autoseg.pipeline.planning import plan_and_preprocess
from autoseg.pipeline.prepare import prepare
from autoseg.pipeline.verification import look_through
from autoseg.plans import default_plan
from autoseg.studies.fold import Run
from autoseg.studies.folds import count_folds
from autoseg.studies.ready import Ready
from autoseg.studies.settled import Asked, asked_run, run_name, settle_run
from autoseg.training.ranks import ALONE, Ranks
from autoseg.workspace import Workspace, read_record
from planners import Plan, planner_names

__all__ = ["ready_to_train", "settled_run"]

logger = logging.getLogger(__name__)


def ready_to_train(spec: DatasetSpec, workspace: Workspace, plan: str | None, runtime: Runtime, *, dry: bool = False) -> Ready:
    """Plan and prepare a data set where that has not been done.

    Args:
        plan: its name; None for the default plan.
        dry: prepare nothing and write nothing.

    Raises:
        PlanError: there is no such plan. DatasetError: the data set has errors, or a case could not be prepared.
    """
    known = {path.stem for path in workspace.plan(spec.name, "any").parent.glob("*.json")}
    if plan and plan not in known | set(planner_names()):
        raise PlanError(f"no plan called {plan!r} for {spec.name}. There are: {', '.join(sorted(known)) or 'none yet'}")
    runtime = Runtime(workers=runtime.workers, progress=runtime.progress)  # a fresh training has no need of fresh cases
    if not known or (plan and plan not in known):
        logger.info("%s has no such plan yet: planning", spec.name)
        planned = plan_and_preprocess(spec.folder, workspace, PlanOptions(planner=plan, dry_run=dry), runtime)
        the_plan, scans, failures = planned.plan, planned.scans, planned.failures
    else:
        the_plan = read_record(Plan, workspace.plan(spec.name, plan or default_plan(known)))
        verified = look_through(spec, workspace, Runtime(workers=runtime.workers))
        verified.refuse_errors()
        scans = verified.scans
        failures = () if dry else prepare(spec, scans, the_plan, workspace, runtime).failures
    if failures:
        raise DatasetError("cases could not be prepared:\n  " + "\n  ".join(failures))
    return Ready(spec, the_plan, scans, workspace.prepared(spec.name, the_plan.name), dry)


def settled_run(
    dataset: str | PathLike[str],
    fold: str,
    workspace: Workspace,
    options: TrainOptions,
    runtime: Runtime,
    ranks: Ranks = ALONE,
) -> Run:
    """Everything that is decided before the first step of a run; what is missing of plan and cases is made.

    Raises:
        AutosegError: something of it does not exist, or the data set has errors.
    """
    asked = asked_run(dataset, fold, workspace, options, runtime)
    ready = ready_to_train(asked.spec, workspace, options.training.plan, runtime, dry=options.dry_run)
    coarse = _coarse_run(asked, ready, workspace, options, runtime, ranks)
    return replace(settle_run(asked, ready, workspace, options, runtime, ranks, coarse), coarse=coarse)


def _coarse_run(
    asked: Asked, ready: Ready, workspace: Workspace, options: TrainOptions, runtime: Runtime, ranks: Ranks
) -> Run | None:
    """The run of the coarse stage, where the plan has one: all its folds, as long and by the same recipe as the fine stage's.

    Its name is that of the run with ``_coarse`` behind it.
    """
    if ready.plan.coarse is None:
        return None
    training = replace(options.training, plan=ready.plan.coarse.plan)
    network = asked.network if isinstance(asked.network, str) else None
    name = f"{run_name(options.name, ready.plan, asked.network)}_coarse"
    wanted = replace(options, training=training, network=network, name=name, start=None)
    folds = f"0-{count_folds(asked.spec) - 1}"
    return settled_run(asked.spec.folder, folds, workspace, wanted, replace(runtime, fresh=False), ranks)
