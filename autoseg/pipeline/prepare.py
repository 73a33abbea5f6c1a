"""Prepare the cases of a data set by a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.data.dataset import DatasetSpec
from autoseg.data.scan import CaseScan
from autoseg.engines import LocalEngine
from autoseg.options import Runtime
from autoseg.preprocess.step import Prepare
from autoseg.preprocess.store import preparation_digest
from autoseg.workspace import Workspace
from planners import Plan

__all__ = ["PreparedCases", "case_digests", "prepare"]


@dataclass(frozen=True)
class PreparedCases:
    """How many cases were ``made``, how many were ``ready``, and sentences about those that failed."""

    made: int = 0
    ready: int = 0
    failures: tuple[str, ...] = ()


def prepare(spec: DatasetSpec, scans: Sequence[CaseScan], plan: Plan, workspace: Workspace, runtime: Runtime) -> PreparedCases:
    """Prepare every training case that is not there yet, or was made from something else.

    A case that fails does not stop the others.
    """
    step = Prepare(workspace.prepared(spec.name, plan.name), plan, spec.labels, case_digests(spec, scans, plan))
    todo = [case for case in spec.training if runtime.fresh or not step.is_done(case)]
    engine, on_done = LocalEngine(runtime.workers), runtime.progress("prepare", len(todo))
    outcomes = engine.map(step, todo, name=lambda case: case.id, on_done=on_done)
    failures = tuple(f"{o.name}: {o.error}" for o in outcomes if o.error is not None)
    return PreparedCases(len(todo) - len(failures), len(spec.training) - len(todo), failures)


def case_digests(spec: DatasetSpec, scans: Sequence[CaseScan], plan: Plan) -> dict[str, str]:
    """Case -> digest of all that its prepared form depends on."""
    return {scan.case: preparation_digest(scan.digests, spec.labels, plan) for scan in scans}
