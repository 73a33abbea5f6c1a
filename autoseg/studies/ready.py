"""The inputs of a training run: a plan, prepared cases, a recipe, a network and a length."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.dataset import DatasetSpec
from autoseg.data.scan import CaseScan
from autoseg.data.unlike import TrainingScans, training_scans
from autoseg.data.verified import look_through
from autoseg.errors import DatasetError, PlanError, TrainingError
from autoseg.networks import NETWORKS
from autoseg.options import PlanOptions, Runtime, TrainingOptions
from autoseg.plans import default_plan
from autoseg.preprocess.case import network_shape
from autoseg.preprocess.cases import voxels_of
from autoseg.preprocess.planned import plan_and_prepare
from autoseg.preprocess.prepare import prepare
from autoseg.preprocess.step import case_digests
from autoseg.preprocess.store import open_case
from autoseg.training.augment import PRESETS
from autoseg.training.length import Length
from autoseg.training.losses import LOSSES
from autoseg.training.recipe import RECIPES, Recipe, changed
from autoseg.workspace import Workspace, read_json, read_record
from planners import NetworkSpec, Plan, planner_names
from planners.records import digest

__all__ = ["Ready", "choose_recipe", "known_network", "known_plans", "length_of", "ready_to_train"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A data set with the plan for training.

    Attributes:
        spec: the data set.
        plan: the plan as stored.
        scans: the scans of all cases.
        prepared: folder of the prepared cases.
        dry: nothing was written, so the cases may not exist.
    """

    spec: DatasetSpec
    plan: Plan
    scans: tuple[CaseScan, ...]
    prepared: Path
    dry: bool = False

    @property
    def digest(self) -> str:
        """Digest of all prepared cases."""
        return digest(case_digests(self.spec.labels, self.scans, self.plan))

    @property
    def ranges(self) -> TrainingScans | None:
        """Statistics of the scans; None if the plan does not reorient scans, because the numbers are for one orientation."""
        return training_scans(self.spec.channels, self.scans) if self.plan.orientation == "canonical" else None

    @property
    def voxels(self) -> int:
        """Number of voxels of all cases, on the network's grid."""
        if self.dry:
            return voxels_of(self._grid(scan) for scan in self.scans)
        return voxels_of(open_case(self.prepared / case.id).shape for case in self.spec.training)

    def _grid(self, scan: CaseScan) -> list[int]:
        """Shape of a case after preparation; [0] if its image could not be read."""
        if scan.shape is None or scan.spacing_mm is None:
            return [0]
        order = self.plan.axis_order
        return network_shape([scan.shape[axis] for axis in order], [scan.spacing_mm[axis] for axis in order], self.plan)


def known_plans(spec: DatasetSpec, workspace: Workspace, plan: str | None) -> set[str]:
    """The names of the stored plans of a data set; PlanError if ``plan`` is neither one of them nor a planner."""
    known = {path.stem for path in workspace.plan(spec.name, "any").parent.glob("*.json")}
    if plan and plan not in known | set(planner_names()):
        raise PlanError(f"no plan called {plan!r} for {spec.name}. There are: {', '.join(sorted(known)) or 'none yet'}")
    return known


def ready_to_train(spec: DatasetSpec, workspace: Workspace, plan: str | None, runtime: Runtime, *, dry: bool = False) -> Ready:
    """Plan and prepare a data set if necessary.

    Args:
        plan: name of the plan; None for the default plan.
        dry: prepare nothing and write nothing.

    Raises:
        PlanError: no such plan. DatasetError: the data set has errors, or a case could not be prepared.
    """
    known = known_plans(spec, workspace, plan)
    runtime = Runtime(workers=runtime.workers, progress=runtime.progress)  # a fresh run can use existing cases
    if not known or (plan and plan not in known):
        logger.info("%s has no such plan yet: planning", spec.name)
        planned = plan_and_prepare(spec, workspace, PlanOptions(planner=plan, dry_run=dry), runtime)
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


def choose_recipe(options: TrainingOptions) -> Recipe:
    """The recipe given by a name or a file, with single settings changed. Its loss and augmentation are checked."""
    text, settings = str(options.recipe), dict(options.settings)
    recipe = changed(_read_recipe(text) if text.endswith(".json") else RECIPES[text], settings)
    LOSSES[recipe.loss], PRESETS[recipe.augmentation]  # an unknown name is an error that lists the known ones
    return recipe


def _read_recipe(path: str) -> Recipe:
    """The Recipe in a JSON file of settings."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise TrainingError(f"{path}: expected an object of settings, found a {type(found).__name__}. Correct it there")
    try:
        return changed(Recipe(name=Path(path).stem), found)
    except TrainingError as fault:
        raise TrainingError(f"{path}: {fault}") from fault


def known_network(network: Any) -> str | NetworkSpec | None:
    """The given name, NetworkSpec or None, or the NetworkSpec in a JSON file; AutosegError for an unknown name."""
    found: str | NetworkSpec | None = read_record(NetworkSpec, network) if str(network).endswith(".json") else network
    if found:
        NETWORKS[found if isinstance(found, str) else found.name]
    return found


def length_of(options: TrainingOptions, plan: Plan, batches_at_once: int = 1) -> Length:
    """The requested length, else the plan's, which is a number of batches, divided by the batches in a step."""
    if options.seconds:
        return Length(seconds=options.seconds)
    return Length(steps=-(-plan.iterations // batches_at_once) if options.iterations is None else options.iterations)
