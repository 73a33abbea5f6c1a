"""One configuration of a study: a plan and a network, trained and cross-validated in its own process."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.data.dataset import DatasetSpec
from autoseg.errors import AutosegError
from autoseg.evaluation.calibration import CALIBRATION, Calibration
from autoseg.evaluation.comparison import Cost, Method
from autoseg.evaluation.report import REPORT_FILE, Report, ScoredFiles, read_report
from autoseg.networks.cost import measure_cost
from autoseg.options import Runtime, TrainingOptions, TrainOptions
from autoseg.records import read_fold
from autoseg.studies.crossval import CROSS_VALIDATION
from autoseg.studies.fold import Run, fold_folder
from autoseg.studies.lanes import device_names
from autoseg.studies.method import folds_of, has_page, is_trained, scores_of
from autoseg.studies.process import run_apart, train_words
from autoseg.studies.settled import settled_run
from autoseg.studies.trainable import refuse_unfit
from autoseg.training.checkpoint import read_state
from autoseg.training.fold import CHECKPOINT
from autoseg.workspace import Workspace, read_record
from planners.plan import Plan
from planners.records import digest

__all__ = [
    "Configuration",
    "CrossValidated",
    "TrainConfiguration",
    "TrainFold",
    "configurations",
    "files_of",
    "read_configuration",
    "refuse_changed",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Configuration:
    """A plan and a network; None for the default plan or the plan's network.

    ``name`` is for messages and tables, ``run`` is the name of its run.
    """

    plan: str | None
    network: str | None
    name: str
    run: str


def configurations(plans: Sequence[str | None], networks: Sequence[str | None], identity: str) -> tuple[Configuration, ...]:
    """Every plan with every network; ``identity`` makes the names of their runs unique among studies.

    Raises:
        AutosegError: two configurations would have the same name.
    """
    found = []
    for plan in dict.fromkeys(plans):
        for network in dict.fromkeys(networks):
            called = Path(network).stem if network and network.endswith(".json") else network
            whole = f"{called} ({plan})" if called and len(plans) > 1 else called or plan or "default"
            run = "_".join(["study", *filter(None, [plan, called]), identity])
            found.append(Configuration(plan, network, whole, run))
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise AutosegError(f"--networks: two configurations are called {name!r}. Give the file of one another name")
    return tuple(found)


@dataclass(frozen=True)
class TrainConfiguration:
    """The step that trains and cross-validates; its items are Configurations, each with what ``settled`` returned.

    Attributes:
        dataset: the raw folder.
        folds: their names.
        workspace: for runs and models.
        training: length, recipe and seed.
        runtime: where and how to run; ``fresh`` trains everything again.
        at_once: number of folds trained at the same time.
    """

    dataset: Path
    folds: tuple[str, ...]
    workspace: Workspace
    training: TrainingOptions
    runtime: Runtime
    at_once: int = 1

    def setup(self) -> TrainConfiguration:
        return self

    def settled(self, item: Configuration) -> Run:
        """The settled run of a configuration. Missing plans and prepared cases are made.

        Raises:
            AutosegError: a plan, network, recipe or data set does not exist.
        """
        runtime = replace(self.runtime, device=device_names(self.runtime.device)[0])
        return settled_run(self.dataset, ",".join(self.folds), self.workspace, self.options(item), runtime)

    def options(self, item: Configuration) -> TrainOptions:
        """The training options of a configuration."""
        training = replace(self.training, plan=item.plan)
        return TrainOptions(network=item.network, training=training, name=item.run, at_once=self.at_once)

    def refuse_unfit(self, item: tuple[Configuration, Run]) -> None:
        """Check what can be known before the first training run of a study, of a settled configuration that is not finished."""
        if not self.is_done(item[1]):
            refuse_unfit(item[1])

    def is_done(self, settled: Run) -> bool:
        """Whether a configuration is trained and cross-validated, and need not begin again."""
        if self.runtime.fresh or not settled.tasks.keys() <= folds_of(settled.model):
            return False
        trained = (is_trained(fold_folder(settled.folder, fold), task) for fold, task in settled.tasks.items())
        return has_page(settled.folder / CROSS_VALIDATION) and all(trained)

    def run(self, item: tuple[Configuration, Run]) -> Path:
        """Train a settled configuration unless it is finished; returns the folder of its run."""
        configuration, settled = item
        if self.is_done(settled):
            logger.info("%s: cross-validated already", configuration.name)
        else:
            run_apart(self.words(configuration, settled.device), configuration.name)
        return settled.folder

    def words(self, item: Configuration, device: object) -> list[str]:
        """The command line that trains a configuration."""
        devices = self.runtime.device if len(device_names(self.runtime.device)) > 1 else device
        words = train_words(self.dataset, self.folds, self.workspace, self.options(item), devices, self.runtime.workers)
        return [*words, *(["--fresh"] if self.runtime.fresh else [])]


@dataclass(frozen=True)
class TrainFold:
    """The step of a worker; its items are (Configuration, fold). A fold is resumed, not trained again.

    Attributes:
        study: how the folds are trained; its runs are settled and their folders exist.
        device: device to train on, of the kind that the runs are settled for.
    """

    study: TrainConfiguration
    device: str

    @property
    def folder(self) -> Path:
        """Folder of everything that the step writes."""
        return self.study.workspace.folder

    def setup(self) -> TrainFold:
        return self

    def run(self, item: tuple[Configuration, str]) -> None:
        """Train a fold and score its validation cases. The report on all folds is written elsewhere."""
        (configuration, fold), study = item, self.study
        options = replace(study.options(configuration), at_once=1, report=False)
        words = train_words(study.dataset, (fold,), study.workspace, options, self.device, study.runtime.workers)
        run_apart(words, f"{configuration.name}, fold {fold}")


def refuse_changed(runs: Mapping[str, Run]) -> None:
    """Raise AutosegError if a configuration of the same name was trained on other cases or with another plan."""
    for name, run in runs.items():
        tasks = [(one.folder, fold, task) for one in (run.coarse, run) if one for fold, task in one.tasks.items()]
        for folder, fold, task in tasks:
            state = read_state(fold_folder(folder, fold) / CHECKPOINT)
            if state and state.identity != digest(task):
                raise AutosegError(
                    f"{name}: fold {fold} of {folder.name} was trained on other data, or by another plan or network, than "
                    "there are now. Put them back as they were, or start the study again with --fresh"
                )


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """A configuration that has been cross-validated.

    Attributes:
        name: name of the configuration; ``about`` describes it in a sentence. ``plan`` is the name of its plan, '' for several.
        model: model with its folds.
        report: report on all cases.
        method: the same as a Method, for comparisons.
        operations_per_ml: operations of the networks of one fold per millilitre of scan, without overlap of windows.
        validation: fold -> its validation cases.
        files: case -> paths of its reference and of its prediction.
        calibration: None if no voxels for calibration are stored.
    """

    name: str
    model: Path
    report: Report
    method: Method
    operations_per_ml: float
    validation: dict[str, tuple[str, ...]]
    files: dict[str, ScoredFiles]
    calibration: Calibration | None = None
    about: str = ""
    plan: str = ""


def files_of(spec: DatasetSpec, reports: Mapping[Path, Report]) -> dict[str, ScoredFiles]:
    """Case -> paths of its reference and of its prediction; ``reports`` by the folder of the predictions."""
    labels = {case.id: case.label for case in spec.training}
    files: dict[str, ScoredFiles] = {}
    for folder, report in reports.items():
        for case, named in report.files.items():
            if case not in files and labels.get(case) is not None:
                files[case] = ScoredFiles(str(labels[case]), str(folder / named.predicted))
    return files


def read_configuration(item: Configuration, run: Path, model: Path, folds: Sequence[str], spec: DatasetSpec) -> CrossValidated:
    """Read the results of a configuration.

    Raises:
        AutosegError: its run is not complete.
    """
    report = read_report(run / CROSS_VALIDATION / REPORT_FILE)
    records = {fold: found for fold in folds if (found := read_fold(fold_folder(run, fold)))}
    for fold in folds:
        if fold not in records:
            raise AutosegError(f"{run}: has no record of fold {fold}. Run the command again with --fresh")
    record = records[folds[0]]
    plan = record.task.plan
    cost = measure_cost(plan.network, plan.patch_size)
    voxel_mm3 = plan.spacing_mm[0] * plan.spacing_mm[1] * plan.spacing_mm[2]
    voxels = plan.patch_size[0] * plan.patch_size[1] * plan.patch_size[2]
    method = Method(
        name=item.name,
        scores=scores_of(report),
        cost=Cost(parameters=cost.parameters, operations=cost.operations, device=record.device, batch_size=record.batch_size),
        failures=tuple(f"{failure.case}: {failure.reason}" for failure in report.failures),
    )
    path = run / CROSS_VALIDATION / CALIBRATION
    scored = [fold_folder(run, fold) / "validation" for fold in folds]
    return CrossValidated(
        name=item.name,
        model=model,
        report=report,
        method=method,
        operations_per_ml=cost.operations / voxels / voxel_mm3 * 1000,
        validation={fold: found.task.validation for fold, found in records.items()},
        files=files_of(spec, {folder: read_report(folder / REPORT_FILE) for folder in scored}),
        calibration=read_record(Calibration, path, strict=False) if path.is_file() else None,
        about=_about(plan, cost.parameters),
        plan=plan.name,
    )


def _about(plan: Plan, parameters: int) -> str:
    patch, mm = (" x ".join(f"{edge:.3g}" for edge in edges) for edges in (plan.patch_size, plan.spacing_mm))
    return f"plan {plan.name}, network {plan.network.name} ({parameters / 1e6:.2f} M parameters), patch {patch}, voxels {mm} mm"
