"""Verify, measure, plan, prepare: from a raw folder to cases that a network can be trained on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import planners
from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.data.measure import measure_fingerprint
from autoseg.data.scan import CaseScan
from autoseg.errors import PlanError
from autoseg.options import PlanOptions, Runtime
from autoseg.pipeline.prepare import PreparedCases, prepare
from autoseg.pipeline.verification import look_through, store_scans
from autoseg.room import check_writable
from autoseg.workspace import Workspace, read_json, read_record, write_json
from planners import Budget, Fingerprint, Plan
from planners.records import to_json

__all__ = ["Planned", "default_plan", "plan_and_preprocess"]


@dataclass(frozen=True)
class Planned:
    """The fingerprint and plans of a data set, and what was prepared by ``plan``; ``kept`` are names of edited plans."""

    dataset: DatasetSpec
    scans: tuple[CaseScan, ...]
    fingerprint: Fingerprint
    plan: Plan
    plans: tuple[Plan, ...]
    kept: tuple[str, ...]
    cases: PreparedCases
    folder: Path
    seconds: float

    @property
    def failures(self) -> tuple[str, ...]:
        return self.cases.failures

    def summary(self) -> str:
        spacing = " x ".join(f"{s:.3g}" for s in self.plan.spacing_mm)
        patch = " x ".join(str(n) for n in self.plan.patch_size)
        lines = [
            f"{self.dataset.name}: {len(self.fingerprint.cases)} cases, {len(self.dataset.channels)} channels, "
            f"structures {_some(self.dataset.labels.structures)}",
            f"plan {self.plan.name}: spacing {spacing} mm, patch {patch}, batch {self.plan.batch_size}, network "
            f"{self.plan.network.name} with {len(self.plan.network.features)} stages",
            "plans: " + ", ".join(p.name + (" (kept as edited)" if p.name in self.kept else "") for p in self.plans),
            f"prepared {self.cases.made} cases, {self.cases.ready} were ready, {self.seconds:.1f} s: {self.folder}",
            *(f"failed: {failure}" for failure in self.failures),
        ]
        return "\n".join(lines)


def plan_and_preprocess(
    dataset: str | PathLike[str], workspace: Workspace, options: PlanOptions | None = None, runtime: Runtime | None = None
) -> Planned:
    """Verify, measure, plan and prepare a data set; what is done already is not repeated.

    Args:
        dataset: as in ``verify``.
        workspace: for the plans and the prepared cases.
        options: how to plan; a dry run writes nothing.
        runtime: where and how; ``fresh`` makes everything anew, in place of plans that were edited too (they stay as
            NAME.json.old1 and so on).

    Raises:
        DatasetError: the data set has errors (all of them in the message). PlanError: a planner or preset that does not exist.
    """
    begun, options, runtime = time.monotonic(), options or PlanOptions(), runtime or Runtime()
    if not options.dry_run:
        check_writable(workspace.folder)
    verified = look_through(read_dataset(workspace.dataset_folder(str(dataset))), workspace, runtime)
    verified.refuse_errors()
    spec = verified.dataset
    fingerprint = measure_fingerprint(spec, verified.scans)
    plan, plans, kept = _plans(workspace, fingerprint, options, runtime.fresh)
    if not options.dry_run:
        workspace.remember_dataset(spec.folder, spec.name)
        store_scans(verified, workspace)
        write_json(workspace.fingerprints(spec.name) / "fingerprint.json", fingerprint)
        for made in plans:
            if made.name not in kept:
                _write_plan(workspace.plan(spec.name, made.name), made)
    cases = PreparedCases()
    if options.preprocess and not options.dry_run:
        cases = prepare(spec, verified.scans, plan, workspace, runtime, look=True)
    folder, seconds = workspace.prepared(spec.name, plan.name), time.monotonic() - begun
    return Planned(spec, verified.scans, fingerprint, plan, plans, kept, cases, folder, seconds)


def default_plan(names: Collection[str]) -> str:
    """The plan that a data set is prepared for and trained with when none is named.

    Raises:
        PlanError: neither of the two is among ``names``.
    """
    for name in ("fullres_3d", "slices_2d"):
        if name in names:
            return name
    raise PlanError(f"there are several plans, say which one is meant with --plan: {', '.join(sorted(names))}")


def _plans(
    workspace: Workspace, fingerprint: Fingerprint, options: PlanOptions, fresh: bool
) -> tuple[Plan, tuple[Plan, ...], tuple[str, ...]]:
    """(plan to prepare for, all plans, names of those that are kept as stored, because a person may have edited them).

    Another preset or budget makes a plan of another name (``fullres_3d_m``, ``fullres_3d_4gb``), so none replaces another.
    """
    budget, wanted = Budget(gpu_memory_gb=options.memory_gb, parity=options.parity), options.planner
    names = [options.preset] if options.preset != "classic" else []
    names += [f"{budget.gpu_memory_gb:g}gb"] if budget.gpu_memory_gb is not None else []
    names += ["parity"] if budget.parity else []
    try:
        made = list(planners.plan_all(fingerprint, budget, options.preset))
        if wanted and wanted not in [plan.name for plan in made]:
            made.append(planners.get_planner(wanted, options.preset).plan(fingerprint, budget))
    except ValueError as fault:
        raise PlanError(str(fault)) from fault
    default = wanted or default_plan([plan.name for plan in made])
    plans = {plan.name: replace(plan, name="_".join([plan.name, *names])) for plan in made}
    kept = {} if fresh else {key: stored for key, plan in plans.items() if (stored := _edited(workspace, plan)) is not None}
    plans |= kept
    return plans[default], tuple(plans.values()), tuple(plan.name for plan in kept.values())


def _edited(workspace: Workspace, plan: Plan) -> Plan | None:
    """The stored plan of that name, where it was made from the same fingerprint and differs from ``plan``."""
    path = workspace.plan(plan.dataset, plan.name)
    stored = read_record(Plan, path) if path.is_file() else plan
    return stored if stored != plan and stored.fingerprint_digest == plan.fingerprint_digest else None


def _write_plan(path: Path, plan: Plan) -> None:
    """Write a plan; another one that stands there, which may have been edited, stays beside it as NAME.json.old1, 2, ..."""
    if path.is_file() and (stored := read_json(path)) != to_json(plan):
        write_json(next(old for n in itertools.count(1) if not (old := path.with_name(f"{path.name}.old{n}")).exists()), stored)
    write_json(path, plan)


def _some(names: Sequence[str], most: int = 12) -> str:
    """Names for a line of text, the first ones where there are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
