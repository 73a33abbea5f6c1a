"""Verify, measure, plan, prepare: from a raw folder to cases that a network can be trained on."""

import itertools
import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import planners
from autoseg.atomic import remove_leftovers
from autoseg.data.check import Finding, check_dataset
from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.data.findings import findings_table
from autoseg.data.measure import measure_fingerprint
from autoseg.data.scan import CaseScan, scan_dataset
from autoseg.engines import map_cases
from autoseg.errors import AutosegError, DatasetError, PlanError
from autoseg.locks import prepare_lock
from autoseg.pipeline.quiet import mute, silent
from autoseg.preprocess.case import prepare_case
from autoseg.preprocess.store import MOST_COMPRESSED, is_stored, is_whole, preparation_digest, store_case
from autoseg.room import check_writable
from autoseg.workspace import read_json, read_record, write_json
from planners import Budget, Fingerprint, Plan
from planners.records import RecordError, from_json, to_json

__all__ = [
    "Planned",
    "Verified",
    "case_digests",
    "default_plan",
    "known_scans",
    "plan_and_preprocess",
    "prepare",
    "refuse_on_errors",
    "verify",
]


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """A data set that has been looked through: every case's scan, and all findings."""

    dataset: DatasetSpec
    scans: tuple[CaseScan, ...]
    findings: tuple[Finding, ...]


def verify(dataset, workspace, *, workers=None, progress=silent, keep=True, fresh=False):
    """Look through every file of a data set once.

    Args:
        dataset: folder, or a name or number that the workspace knows.
        workspace: Workspace; scans of unchanged files are taken from it and, with ``keep``, stored in it.
        fresh: read every file again.

    Returns:
        Verified

    Raises:
        DatasetError: no such data set, or its dataset.json is wrong. Defects of cases are findings, not errors.
    """
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    if keep:
        check_writable(workspace.folder)
    store = workspace.fingerprints(spec.name) / "scan.json"
    known = () if fresh else known_scans(store)
    scans = scan_dataset(spec, workers=workers, known=known, on_done=progress("verify", len(spec.training)))
    findings = check_dataset(spec, scans)
    if keep:
        workspace.remember_dataset(spec.folder, spec.name)
        if scans != known:
            write_json(store, {"cases": scans}, seal=True)
        write_json(workspace.fingerprints(spec.name) / "findings.json", findings)
    return Verified(spec, scans, findings)


@dataclass(frozen=True)
class Planned:
    """The fingerprint and plans of a data set, and what was prepared."""

    dataset: DatasetSpec
    fingerprint: Fingerprint
    plan: Plan
    plans: tuple[Plan, ...]
    kept: tuple[str, ...]
    prepared: int
    reused: int
    failures: tuple[str, ...]
    folder: Path
    seconds: float

    def summary(self):
        spacing = " x ".join(f"{s:.3g}" for s in self.plan.spacing_mm)
        patch = " x ".join(str(n) for n in self.plan.patch_size)
        lines = [
            f"{self.dataset.name}: {len(self.fingerprint.cases)} cases, {len(self.dataset.channels)} channels, "
            f"structures {_some(self.dataset.labels.structures)}",
            f"plan {self.plan.name}: spacing {spacing} mm, patch {patch}, batch {self.plan.batch_size}, network "
            f"{self.plan.network.name} with {len(self.plan.network.features)} stages",
            "plans: " + ", ".join(p.name + (" (kept as edited)" if p.name in self.kept else "") for p in self.plans),
            f"prepared {self.prepared} cases, {self.reused} were ready, {self.seconds:.1f} s: {self.folder}",
            *(f"failed: {failure}" for failure in self.failures),
        ]
        return "\n".join(lines)


def plan_and_preprocess(
    dataset,
    workspace,
    *,
    planner=None,
    preset="classic",
    memory_gb=None,
    parity=False,
    preprocess=True,
    dry_run=False,
    workers=None,
    fresh=False,
    say=mute,
    progress=silent,
):
    """Verify, measure, plan and prepare a data set; what is done already is not repeated.

    Args:
        dataset, workspace: as in ``verify``.
        planner: name of the plan to prepare the cases for; None for ``default_plan``.
        preset: ``classic``, ``m``, ``l`` or ``xl``.
        memory_gb: graphics memory to plan for; None for the preset's own.
        parity: decide as nnU-Net does, to the number.
        preprocess: False stops after planning.
        dry_run: write nothing.
        fresh: make everything anew, in place of plans that were edited too (they stay as NAME.json.old1 and so on).

    Returns:
        Planned

    Raises:
        DatasetError: the data set has errors (all of them in the message). PlanError: a planner or preset that does not exist.
    """
    begun = time.monotonic()
    if not dry_run:
        check_writable(workspace.folder)
    verified = verify(dataset, workspace, workers=workers, progress=progress, keep=False, fresh=fresh)
    spec = verified.dataset
    refuse_on_errors(verified)
    with nullcontext() if dry_run else prepare_lock(workspace.prepared(spec.name, "any").parent):
        fingerprint = measure_fingerprint(spec, verified.scans)
        budget = Budget(gpu_memory_gb=memory_gb, parity=parity)
        plan, plans, kept = _plans(workspace, fingerprint, planner, preset, budget, fresh)
        if not dry_run:
            folder = workspace.fingerprints(spec.name)
            workspace.remember_dataset(spec.folder, spec.name)
            write_json(folder / "scan.json", {"cases": verified.scans}, seal=True)
            write_json(folder / "findings.json", verified.findings)
            write_json(folder / "fingerprint.json", fingerprint)
            for made in plans:
                if made.name not in kept:
                    _write_plan(workspace.plan(spec.name, made.name), made)
        done, ready, failed = 0, 0, ()
        if preprocess and not dry_run:
            how = {"workers": workers, "fresh": fresh, "look": True, "progress": progress}
            done, ready, failed = prepare(spec, verified.scans, plan, workspace, **how)
    return Planned(
        dataset=spec,
        fingerprint=fingerprint,
        plan=plan,
        plans=plans,
        kept=kept,
        prepared=done,
        reused=ready,
        failures=failed,
        folder=workspace.prepared(spec.name, plan.name),
        seconds=time.monotonic() - begun,
    )


def _some(names, most=12):
    """Names for a line of text, the first ones where there are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def prepare(spec, scans, plan, workspace, *, workers=None, fresh=False, look=False, progress=silent):
    """Prepare every training case that is not there yet, or was made from something else.

    Args:
        look: also at every byte of those that are there, and prepare damaged ones anew.

    Returns:
        (number of cases made, number that were ready, failures as text); a case that fails does not stop the others.
    """
    folder = workspace.prepared(spec.name, plan.name)
    digests = case_digests(spec, scans, plan)

    def is_ready(case):
        if fresh or not is_stored(folder / case.id, digests[case.id]):
            return False
        remove_leftovers(folder / case.id)  # of a kill right after the case was whole
        if whole := not look or is_whole(folder / case.id):
            return whole
        logger.warning("%s: the prepared case was damaged and is prepared anew", case.id)
        return False

    ready = map_cases(is_ready, spec.training, workers=workers, name=lambda case: case.id)
    todo = [case for case, found in zip(spec.training, ready, strict=True) if not found.value]

    if todo:
        names = {case.id for case in todo}
        check_writable(folder, sum(_voxels(scan, plan) for scan in scans if scan.case in names) * 4 // MOST_COMPRESSED)

    def make(case):
        store_case(folder / case.id, prepare_case(case, spec.labels, plan), digests[case.id])

    outcomes = map_cases(make, todo, workers=workers, name=lambda case: case.id, on_done=progress("prepare", len(todo)))
    failed = tuple(f"{o.name}: {o.error}" for o in outcomes if o.error is not None)
    return len(todo) - len(failed), len(spec.training) - len(todo), failed


def _voxels(scan, plan):
    """Numbers in the prepared image of a case, roughly."""
    edges_mm = (edge * spacing for edge, spacing in zip(scan.shape, scan.spacing_mm, strict=True))
    return int(len(scan.channels) * math.prod(edges_mm) / math.prod(plan.spacing_mm))


def default_plan(names):
    """The plan that a data set is prepared for and trained with when none is named.

    Raises:
        PlanError: neither of the two is among ``names``.
    """
    for name in ("fullres_3d", "slices_2d"):
        if name in names:
            return name
    raise PlanError(f"there are several plans, say which one is meant with --plan: {', '.join(sorted(names))}")


def _write_plan(path, plan):
    """Write a plan; another one that stands there, which may have been edited, stays beside it as NAME.json.old1, 2, ..."""
    if path.is_file() and (stored := read_json(path)) != to_json(plan):
        write_json(next(old for n in itertools.count(1) if not (old := path.with_name(f"{path.name}.old{n}")).exists()), stored)
    write_json(path, plan)


def _plans(workspace, fingerprint, wanted, preset, budget, fresh):
    """Plans by name, and the names of those that are kept as they are stored, because a person may have edited them.

    Another preset or budget makes a plan of another name (``fullres_3d_m``, ``fullres_3d_4gb``), so none replaces another.
    """
    names = [preset] if preset != "classic" else []
    names += [f"{budget.gpu_memory_gb:g}gb"] if budget.gpu_memory_gb is not None else []
    names += ["parity"] if budget.parity else []
    try:
        made = list(planners.plan_all(fingerprint, budget, preset))
        if wanted and wanted not in [plan.name for plan in made]:
            made.append(planners.get_planner(wanted, preset).plan(fingerprint, budget))
    except ValueError as fault:
        raise PlanError(str(fault)) from fault
    default = wanted or default_plan([plan.name for plan in made])
    plans = {plan.name: replace(plan, name="_".join([plan.name, *names])) for plan in made}
    kept = {}
    for key, plan in plans.items():
        path = workspace.plan(fingerprint.dataset, plan.name)
        if path.is_file() and not fresh:
            stored = read_record(Plan, path)
            if stored.fingerprint_digest == plan.fingerprint_digest and stored != plan:
                kept[key] = stored
    plans |= kept
    return plans[default], tuple(plans.values()), tuple(plan.name for plan in kept.values())


def known_scans(path):
    """The scans in a ``scan.json``, () where there is none, or a damaged one."""
    if not path.is_file():
        return ()
    try:
        found = read_json(path)
        return tuple(from_json(CaseScan, scan) for scan in (found["cases"] if isinstance(found, dict) else found))
    except (RecordError, AutosegError, KeyError, TypeError):
        return ()  # damaged, or of a version that wrote other records: scan again


def refuse_on_errors(verified):
    errors = [finding for finding in verified.findings if finding.severity == "error"]
    if errors:
        raise DatasetError(f"{verified.dataset.folder} has {len(errors)} errors; nothing was written\n{findings_table(errors)}")


def case_digests(spec, scans, plan):
    return {scan.case: preparation_digest(scan.digests, spec.labels, plan) for scan in scans}
