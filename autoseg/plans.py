"""The plans of a data set in a workspace: make them, keep those that were edited, and write them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import planners
from autoseg.errors import PlanError
from autoseg.options import PlanOptions
from autoseg.workspace import Workspace, read_json, read_record, write_json
from planners import Budget, Fingerprint, Plan
from planners.records import RecordError, from_json

__all__ = ["default_plan", "make_plans", "write_plan"]


def default_plan(names: Collection[str]) -> str:
    """The plan for preparation and training if none is named: ``fullres_3d``, or else ``slices_2d``.

    Raises:
        PlanError: neither of the two is among ``names``.
    """
    for name in ("fullres_3d", "slices_2d"):
        if name in names:
            return name
    raise PlanError(f"there are several plans; choose one with --plan: {', '.join(sorted(names))}")


def make_plans(
    workspace: Workspace, fingerprint: Fingerprint, options: PlanOptions, fresh: bool
) -> tuple[Plan, tuple[Plan, ...], tuple[str, ...]]:
    """(plan to prepare for, all plans, names of the stored plans that are kept because they may have been edited).

    Plans of another preset or budget have other names (``fullres_3d_m``, ``fullres_3d_4gb``), so none replaces another.

    Args:
        fresh: keep no stored plans.

    Raises:
        PlanError: no plan can be made for these options.
    """
    budget, wanted = Budget(gpu_memory_gb=options.memory_gb, parity=options.parity), options.planner
    names = [options.preset] if options.preset != "classic" else []
    names += [f"{budget.gpu_memory_gb:g}gb"] if budget.gpu_memory_gb is not None else []
    names += ["parity"] if budget.parity else []
    try:
        made = list(planners.plan_all(fingerprint, budget, options.preset))
        more = [wanted] if wanted else []
        while more:
            if (name := more.pop()) not in [plan.name for plan in made]:
                made.append(planners.get_planner(name, options.preset).plan(fingerprint, budget))
                more += [coarse.plan] if (coarse := made[-1].coarse) else []
    except ValueError as fault:
        raise PlanError(str(fault)) from fault
    default = wanted or default_plan([plan.name for plan in made])
    plans = {plan.name: _renamed(plan, names) for plan in made}
    kept = {} if fresh else {key: stored for key, plan in plans.items() if (stored := _edited(workspace, plan)) is not None}
    plans |= kept
    return plans[default], tuple(plans.values()), tuple(plan.name for plan in kept.values())


def _renamed(plan: Plan, more: Sequence[str]) -> Plan:
    """The plan with ``more`` appended to its name, and to that of the plan for its coarse labels."""
    coarse = plan.coarse and replace(plan.coarse, plan="_".join([plan.coarse.plan, *more]))
    return replace(plan, name="_".join([plan.name, *more]), coarse=coarse)


def _edited(workspace: Workspace, plan: Plan) -> Plan | None:
    """The stored plan of that name if it was made from the same fingerprint and differs from ``plan``; otherwise None."""
    path = workspace.plan(plan.dataset, plan.name)
    stored = read_record(Plan, path) if path.is_file() else plan
    return stored if stored != plan and stored.fingerprint_digest == plan.fingerprint_digest else None


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan; a different one in its place, which may have been edited, is kept as NAME.json.old1, 2, ...

    A file with an equal plan is not rewritten, even if it is of an older version.
    """
    stored = read_json(path) if path.is_file() else None
    if stored is not None:
        if _as_plan(stored) == plan:
            return
        write_json(next(old for n in itertools.count(1) if not (old := path.with_name(f"{path.name}.old{n}")).exists()), stored)
    write_json(path, plan)


def _as_plan(stored: Any) -> Plan | None:
    try:
        return from_json(Plan, stored)
    except RecordError:
        return None
