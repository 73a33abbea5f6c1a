"""Prepare the cases of a data set by a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.data.dataset import DatasetSpec
from autoseg.data.scan import CaseScan
from autoseg.engines import engine_of, map_cases, reason_of
from autoseg.locks import prepare_lock
from autoseg.options import Runtime
from autoseg.preprocess.step import Prepare, case_digests
from autoseg.preprocess.store import MOST_COMPRESSED
from autoseg.room import check_writable
from autoseg.workspace import Workspace
from planners import Plan

__all__ = ["PreparedCases", "prepare"]


@dataclass(frozen=True)
class PreparedCases:
    """How many cases were ``made``, how many were ``ready``, and sentences about those that failed."""

    made: int = 0
    ready: int = 0
    failures: tuple[str, ...] = ()


def prepare(
    spec: DatasetSpec, scans: Sequence[CaseScan], plan: Plan, workspace: Workspace, runtime: Runtime, *, look: bool = False
) -> PreparedCases:
    """Prepare every training case that is missing or was made from other inputs.

    A case that fails does not stop the others. Only one command at a time prepares a data set; others wait.

    Args:
        look: also check every byte of existing cases, and prepare damaged ones again.
    """
    step = Prepare(workspace.prepared(spec.name, plan.name), plan, spec.labels, case_digests(spec.labels, scans, plan))
    with prepare_lock(step.folder.parent):
        done = map_cases(
            lambda case: not runtime.fresh and step.is_done(case, look=look), spec.training, workers=runtime.workers
        )
        todo = [case for case, found in zip(spec.training, done, strict=True) if not found.value]
        if todo:
            names = {case.id for case in todo}
            check_writable(step.folder, sum(_numbers(s, plan) for s in scans if s.case in names) * 4 // MOST_COMPRESSED)
        engine, on_done = engine_of(runtime.engine, runtime.workers), runtime.progress("prepare", len(todo))
        outcomes = engine.map(step, todo, name=lambda case: case.id, on_done=on_done)
    failures = tuple(f"{o.name}: {reason_of(o.error)}" for o in outcomes if o.error is not None)
    return PreparedCases(len(todo) - len(failures), len(spec.training) - len(todo), failures)


def _numbers(scan: CaseScan, plan: Plan) -> int:
    """Approximate number of values in the prepared image of a case."""
    if scan.shape is None or scan.spacing_mm is None:
        return 0
    edges_mm = (edge * spacing for edge, spacing in zip(scan.shape, scan.spacing_mm, strict=True))
    return int(len(scan.channels) * math.prod(edges_mm) / math.prod(plan.spacing_mm))
