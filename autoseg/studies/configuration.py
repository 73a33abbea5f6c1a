"""One configuration of a study: a plan and a network, trained and cross-validated in a process of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.data.dataset import DatasetSpec
from autoseg.errors import AutosegError
from autoseg.evaluation.calibration import Calibration
from autoseg.evaluation.comparison import Cost, Method
from autoseg.evaluation.report import REPORT_FILE, Report, ScoredFiles, read_report
from autoseg.networks.cost import measure_cost
from autoseg.options import Runtime, TrainingOptions, TrainOptions
from autoseg.records import read_fold
from autoseg.studies.crossval import CALIBRATION, CROSS_VALIDATION
from autoseg.studies.fold import Run, fold_folder
from autoseg.studies.method import is_trained, scores_of
from autoseg.studies.process import recipe_words, run_apart
from autoseg.workspace import Workspace, read_record

__all__ = ["Configuration", "CrossValidated", "SettledRun", "TrainConfiguration", "files_of", "name_of", "read_configuration"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Configuration:
    """A plan and a network; None for the default plan, or the plan's own network. ``run`` is the name of its run."""

    plan: str | None
    network: str | None
    run: str

    @property
    def name(self) -> str:
        """For people and files."""
        return name_of(self.plan, self.network)


def name_of(plan: str | None, network: str | None) -> str:
    """What a plan and a network, which may be a JSON file, are called together."""
    return "_".join(
        [plan or "default_plan", *([Path(network).stem if network.endswith(".json") else network] if network else [])]
    )


SettledRun = Callable[[Path, str, Workspace, TrainOptions, Runtime], Run]


@dataclass(frozen=True)
class TrainConfiguration:
    """The step that trains and cross-validates; its items are Configurations.

    Attributes:
        dataset: the raw folder.
        folds: their names.
        workspace: for runs and models.
        training: length, recipe and seed.
        runtime: where and how; ``fresh`` trains all anew.
        settled_run: decides on a run, ``autoseg.pipeline.ready.settled_run``.
    """

    dataset: Path
    folds: tuple[str, ...]
    workspace: Workspace
    training: TrainingOptions
    runtime: Runtime
    settled_run: SettledRun

    def setup(self) -> TrainConfiguration:
        return self

    def run(self, item: Configuration) -> Path:
        """Train one, unless that is done; returns the folder of its run."""
        options = TrainOptions(network=item.network, training=replace(self.training, plan=item.plan), name=item.run)
        runtime = replace(self.runtime, fresh=False)
        settled = self.settled_run(self.dataset, ",".join(self.folds), self.workspace, options, runtime)
        scored = (settled.folder / CROSS_VALIDATION / REPORT_FILE).is_file()
        done = all(is_trained(fold_folder(settled.folder, fold), task) for fold, task in settled.tasks.items())
        if done and scored and not self.runtime.fresh:
            logger.info("%s: cross-validated already", item.name)
        else:
            run_apart(self.words(item, settled.device), item.name)
        return settled.folder

    def words(self, item: Configuration, device: object) -> list[str]:
        """The command line that trains a configuration."""
        asked, runtime = self.training, self.runtime
        words = ["train", str(self.dataset), ",".join(self.folds), "--name", item.run]
        words += ["--workspace", str(self.workspace.folder)]
        words += ["--plan", item.plan] if item.plan else []
        words += ["--network", item.network] if item.network else []
        words += ["--time", f"{asked.seconds}s"] if asked.seconds else []
        words += ["--iterations", str(asked.iterations)] if asked.iterations else []
        words += [*recipe_words(asked), "--seed", str(asked.seed), "--device", str(device)]
        words += ["--workers", str(runtime.workers)] if runtime.workers else []
        return [*words, *(["--fresh"] if runtime.fresh else [])]


@dataclass(frozen=True)
class CrossValidated:
    """A configuration that has been cross-validated.

    Attributes:
        name: of the configuration.
        model: that its folds have made.
        report: on all cases.
        method: the same for comparisons.
        operations_per_ml: of the networks of one fold, for a millilitre of scan, without overlap of windows.
        validation: fold -> the cases that it did not see.
        files: case -> paths of its reference and of what was predicted of it.
        calibration: None where no voxels to calibrate by are known.
    """

    name: str
    model: Path
    report: Report
    method: Method
    operations_per_ml: float
    validation: dict[str, tuple[str, ...]]
    files: dict[str, ScoredFiles]
    calibration: Calibration | None = None


def files_of(spec: DatasetSpec, reports: Mapping[Path, Report]) -> dict[str, ScoredFiles]:
    """Case -> paths of its reference and of what was predicted of it; ``reports`` by the folder of the predictions."""
    labels = {case.id: case.label for case in spec.training}
    files: dict[str, ScoredFiles] = {}
    for folder, report in reports.items():
        for case, named in report.files.items():
            if case not in files and labels.get(case) is not None:
                files[case] = ScoredFiles(str(labels[case]), str(folder / named.predicted))
    return files


def read_configuration(item: Configuration, run: Path, model: Path, folds: Sequence[str], spec: DatasetSpec) -> CrossValidated:
    """What a configuration came to.

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
    )
