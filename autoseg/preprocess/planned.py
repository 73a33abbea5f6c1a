"""From a raw folder to plans and prepared cases."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from autoseg.data.dataset import DatasetSpec
from autoseg.data.measure import measure_fingerprint
from autoseg.data.scan import CaseScan
from autoseg.data.verified import look_through, store_scans
from autoseg.names import counted, first_of
from autoseg.options import PlanOptions, Runtime
from autoseg.plans import make_plans, write_plan
from autoseg.preprocess.prepare import PreparedCases, prepare
from autoseg.room import check_writable
from autoseg.workspace import Workspace, write_json
from planners import Fingerprint, Plan

__all__ = ["Planned", "plan_and_prepare"]


@dataclass(frozen=True)
class Planned:
    """The fingerprint and plans of a data set, and the cases prepared with ``plan``; ``kept`` are names of edited plans."""

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
            f"{self.dataset.name}: {counted(len(self.fingerprint.cases), 'case')}, "
            f"channels {', '.join(self.dataset.channels)}, structures {first_of(self.dataset.labels.structures, 12)}",
            f"plan {self.plan.name}: spacing {spacing} mm, patch {patch}, batch {self.plan.batch_size}, network "
            f"{self.plan.network.name} with {len(self.plan.network.features)} stages",
            "plans: " + ", ".join(p.name + (" (kept as edited)" if p.name in self.kept else "") for p in self.plans),
            f"prepared {counted(self.cases.made, 'case')}, {self.cases.ready} were ready, {self.seconds:.1f} s: {self.folder}",
            *(f"failed: {failure}" for failure in self.failures),
        ]
        return "\n".join(lines)


def plan_and_prepare(spec: DatasetSpec, workspace: Workspace, options: PlanOptions, runtime: Runtime) -> Planned:
    """Like ``autoseg.pipeline.plan_and_preprocess``, for a data set that has been read."""
    begun = time.monotonic()
    if not options.dry_run:
        check_writable(workspace.folder)
        workspace.refuse_other_dataset(spec.folder, spec.name)
    verified = look_through(spec, workspace, runtime)
    verified.refuse_errors()
    fingerprint = measure_fingerprint(spec, verified.scans)
    plan, plans, kept = make_plans(workspace, fingerprint, options, runtime.fresh)
    if not options.dry_run:
        workspace.remember_dataset(spec.folder, spec.name)
        store_scans(verified, workspace)
        write_json(workspace.fingerprints(spec.name) / "fingerprint.json", fingerprint)
        for made in plans:
            if made.name not in kept:
                write_plan(workspace.plan(spec.name, made.name), made)
    cases = PreparedCases()
    if options.preprocess and not options.dry_run:
        cases = prepare(spec, verified.scans, plan, workspace, runtime, look=True)
    folder, seconds = workspace.prepared(spec.name, plan.name), time.monotonic() - begun
    return Planned(spec, verified.scans, fingerprint, plan, plans, kept, cases, folder, seconds)
