"""Train one fold of a run, predict and score its validation cases, and write a model."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.data.dataset import DatasetSpec
from autoseg.data.unlike import TrainingScans
from autoseg.errors import AutosegError, TrainingError
from autoseg.evaluation import Report
from autoseg.evaluation.report_files import FILES
from autoseg.inference.bundle import COARSE, MODEL, Bundle, add_scans, copy_bundle, load_bundle, save_bundle, store_windows
from autoseg.inference.calibration import MOST_CASES, calibrate, can_spare
from autoseg.inference.predictor import Predictor
from autoseg.locks import run_lock
from autoseg.methods.folder import about_training
from autoseg.names import counted, remove_folder
from autoseg.networks.devices import peak_memory_mib
from autoseg.options import InferenceOptions, Runtime
from autoseg.outputs.calibration import CalibrationSamples
from autoseg.preprocess.case import one_hot
from autoseg.preprocess.store import StoredCase
from autoseg.records import FoldRecord, TrainedAbout, as_recorded, read_fold, write_fold
from autoseg.studies.coarse import FOLDER, BringCoarse, bring_coarse, predictions_of
from autoseg.studies.restoration import restoration_table, validate_restoration
from autoseg.studies.scoring import predict_and_score, predict_shard
from autoseg.studies.starting import learned_from
from autoseg.training.checkpoint import read_state
from autoseg.training.fold import CHECKPOINT, Cases, FoldTask, TrainedFold, train_fold
from autoseg.training.follow import FollowCores
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.recipe import Recipe
from autoseg.training.settle import RATES, Training
from autoseg.training.transfer import Start
from autoseg.versions import versions
from planners.plan import Plan
from planners.records import digest, to_json

__all__ = [
    "FoldResult",
    "Run",
    "begin_anew",
    "calibrate_fold",
    "coarse_labels",
    "fold_folder",
    "folds_of_others",
    "threads_begun_with",
    "train_one",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldResult:
    """A trained fold: the paths of its files, and the report on its validation cases (None for fold ``all``).

    ``restoration`` is the result of ``validate_restoration``; None if the network does not restore images.
    """

    fold: str
    folder: Path
    model: Path
    report: Report | None
    failures: tuple[str, ...]
    steps: int
    seconds: float
    restoration: Any = None

    def summary(self) -> str:
        lines = [f"fold {self.fold}: {counted(self.steps, 'step')} in {self.seconds / 60:.1f} min, model {self.model}"]
        lines += [f"failed: {failure}" for failure in self.failures]
        if self.report is not None:
            lines += ["", self.report.table(), ""]
            lines += [restoration_table(self.restoration), ""] if self.restoration else []
            lines += [f"predictions and metrics: {self.folder / 'validation'}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Run:
    """What the folds of one run have in common, and the task of each.

    Attributes:
        spec: the data set.
        training: the settled Training.
        asked: the requested recipe, which is stored for the user.
        tasks: fold -> what to train.
        starts: fold -> initial weights, for folds that start from a model.
        images: case -> digest of its images.
        scans: statistics of the scans of the data set.
        folder: folder of the run; ``prepared``, ``model``: folders of the prepared cases and the model.
        device: device to train on.
        runtime: where and how to run.
        coarse: the run of the coarse stage with all its folds, if the plan is the fine stage of a cascade.
        ranks: the processes that train together, and which of them this one is.
    """

    spec: DatasetSpec
    training: Training
    asked: Recipe
    tasks: dict[str, FoldTask]
    starts: dict[str, Start]
    images: dict[str, str]
    scans: TrainingScans | None
    folder: Path
    prepared: Path
    model: Path
    device: torch.device
    runtime: Runtime
    coarse: Run | None = None
    ranks: Ranks = ALONE


def fold_folder(run: Path, fold: str) -> Path:
    """The folder of a fold in the folder of its run."""
    return run / f"fold_{fold}"


def threads_begun_with(run: Run, fold: str) -> int:
    """The number of CPU threads that a fold began with; 0 if it has not begun, begins again, or this is unknown."""
    state = None if run.runtime.fresh else read_state(fold_folder(run.folder, fold) / CHECKPOINT)
    return state.threads if state and run.device.type == "cpu" else 0


def begin_anew(run: Run) -> None:
    """Remove all folds of a run before the first one is trained, so that a resumed run finds no old folds.

    Folds of its coarse stage go only where they cannot be used (``folds_of_others``).

    Raises:
        TrainingError: another command is training one of them.
    """
    folds = [(run.folder, fold) for fold in run.tasks]
    if run.coarse:
        others = folds_of_others(run.coarse)
        is_other = run.ranks.from_first([float(fold in others) for fold in run.coarse.tasks])
        folds += [(run.coarse.folder, fold) for fold, removed in zip(run.coarse.tasks, is_other, strict=True) if removed]
        if any(is_other):
            logger.info("%s was made with other settings, data or plan, and begins again too", run.coarse.folder.name)
    for owner, fold in folds:
        folder = fold_folder(owner, fold)
        with run.ranks.held(run_lock(folder)):
            run.ranks.alone(partial(remove_folder, folder, owner=owner))


def folds_of_others(run: Run) -> list[str]:
    """The folds in the folder of a run that were begun with other settings than its own, or are damaged."""

    def is_other(fold: str, task: FoldTask) -> bool:
        try:
            state = read_state(fold_folder(run.folder, fold) / CHECKPOINT)
        except TrainingError:
            return True
        return state is not None and state.identity != digest(task)

    return [fold for fold, task in run.tasks.items() if is_other(fold, task)]


def train_one(run: Run, fold: str) -> FoldResult:
    """Train or resume a fold of a run; a finished fold is validated again. Only the first of several ranks has the report."""
    folder, task, start, ranks = fold_folder(run.folder, fold), run.tasks[fold], run.starts.get(fold), run.ranks
    coarse = coarse_labels(run, run.coarse) if run.coarse else None
    cases = f"{counted(len(task.training), 'training case')}, {counted(len(task.validation), 'validation case')}"
    logger.info("%s, fold %s: %s, on %s", run.folder.name, fold, cases, run.device)
    after = FollowCores() if run.runtime.follow else lambda: None
    trained = train_fold(
        task,
        prepared=run.prepared,
        folder=folder,
        device=run.device,
        start=start,
        coarse=coarse,
        ranks=ranks,
        after_step=after,
    )
    bundle = ranks.alone(lambda: _save(run, fold, trained, about_training(folder, _write_record(run, task, folder, trained))))
    report, restoration = None, None
    failures: tuple[str, ...] = ()
    if task.validation:
        if ranks.count > 1:
            _predict_share(run, task, fold, folder / "validation")
        if bundle:
            calibrate_fold(run, task, fold)
            report, failures, restoration = _validate(run, task, bundle, fold, folder / "validation")
    return FoldResult(fold, folder, run.model, report, failures, trained.state.step, trained.state.seconds, restoration)


def coarse_labels(run: Run, coarse: Run) -> Path:
    """The coarse labels of all cases, each from the fold not trained on it. Missing folds of the coarse stage are trained."""
    folders, ranks = {fold: fold_folder(coarse.folder, fold) for fold in coarse.tasks}, run.ranks
    for fold, folder in folders.items():
        (done,) = ranks.from_first([float(ranks.is_first and _is_validated(coarse, fold))])
        if not done:
            with ranks.held(run_lock(folder)):
                train_one(coarse, fold)
    validation = {fold: task.validation for fold, task in coarse.tasks.items()}
    predictions = predictions_of(folders, validation, run.spec.file_ending)
    step = BringCoarse(run.folder / FOLDER, run.training.plan, run.spec.labels, predictions)
    ranks.alone(lambda: bring_coarse(step, {case.id: case for case in run.spec.training}, run.runtime))
    return step.folder


def _is_validated(run: Run, fold: str) -> bool:
    """Whether a fold was trained with these settings, its weights are in the model and its validation cases are scored."""
    folder = fold_folder(run.folder, fold)
    reached, record = read_state(folder / CHECKPOINT), folder / "validation" / FILES[-1]
    finished = reached is not None and reached.finished and reached.identity == digest(run.tasks[fold])
    return finished and record.is_file() and (run.model / MODEL).is_file() and fold in load_bundle(run.model).folds


def _write_record(run: Run, task: FoldTask, folder: Path, trained: TrainedFold) -> FoldRecord:
    """Write the record of a fold: task, device, batches, versions, and peak memory in MiB."""
    earlier = read_fold(folder)
    memory = [peak_memory_mib(run.device), earlier.memory_mib if earlier else None]
    asked = replace(task.recipe, **{name: getattr(run.asked, name) for name in ("batch_size", *RATES)})
    record = FoldRecord(
        task=as_recorded(replace(task, recipe=asked)),
        device=str(run.device),
        batch_size=task.recipe.batch_size,
        versions=versions(),
        memory_mib=max(filter(None, memory), default=None),
        transfer=to_json(trained.transfer) if trained.transfer else None,
        decisions=run.training.decisions,
        applied=to_json(trained.applied),
    )
    write_fold(folder, record)
    return record


def _save(run: Run, fold: str, trained: TrainedFold, about: TrainedAbout) -> Bundle:
    """Add the fold to the model of its run, with the facts about its training."""
    task, state = run.tasks[fold], trained.state
    if run.coarse:
        copy_bundle(load_bundle(run.coarse.model), run.model / COARSE)
    save_bundle(
        run.model,
        plan=task.plan,
        labels=task.labels,
        channels=run.spec.channels,
        weights={fold: trained.weights},
        learned_from={fold: learned_from(task.training, run.images, run.starts.get(fold))},
        info={
            "folds": {fold: to_json(replace(about, steps=state.step, seconds=round(state.seconds, 1)))},
            "dataset": run.spec.name,
            "run": run.folder.name,
            "versions": versions(),
        },
        file_ending=run.spec.file_ending,
    )
    return add_scans(run.model, run.scans)


def _predict_share(run: Run, task: FoldTask, fold: str, target: Path) -> None:
    """Predict this rank's part of the validation cases, and wait for the others. Failed cases are tried again later."""
    runtime = Runtime(device=str(run.device), workers=run.runtime.workers)
    shard = run.ranks.index, run.ranks.count
    predict_shard(run.model, run.spec, task.validation, target, _inference(fold), runtime, shard=shard, more=_samples(run))
    run.ranks.alone(lambda: None)


def _samples(run: Run) -> tuple[CalibrationSamples]:
    return (CalibrationSamples(run.prepared),)


def _inference(fold: str) -> InferenceOptions:
    return InferenceOptions(folds=(fold,), windows="all")


def _validate(run: Run, task: FoldTask, bundle: Bundle, fold: str, target: Path) -> tuple[Report, tuple[str, ...], Any]:
    """Predict, restore and score the validation cases of a fold; (Report, failures, result of the restoration)."""
    inference = _inference(fold)
    runtime = Runtime(device=str(run.device), workers=run.runtime.workers, progress=run.runtime.progress)
    more = _samples(run)
    report, failures = predict_and_score(run.model, run.spec, task.validation, target, inference, runtime, more=more)
    if not task.plan.network.restoration:
        return report, failures, None
    predictor = Predictor(bundle, inference, device=str(run.device), scratch=target)
    return report, failures, validate_restoration(predictor, run.prepared, task.validation, target / "restoration.json")


def _input_of(case: StoredCase, plan: Plan) -> np.ndarray:
    """The network input of a case: (C, z, y, x) float32."""
    image = case.image[:]
    if plan.coarse is None:
        return image
    return np.concatenate([image, one_hot(case.coarse[:], plan.coarse.count).astype(np.float32)])


def calibrate_fold(run: Run, task: FoldTask, fold: str) -> None:
    """Find on validation cases which windows the fold can skip, unless this is known, and store the result in the model."""
    inference = _inference(fold)
    there = Cases(run.prepared, run.folder / FOLDER if run.coarse else None)
    cases = [there.open(name) for name in task.validation]
    larger = [case for case in cases if can_spare(task.plan, case.shape, inference.step)]
    bundle = load_bundle(run.model)
    if not larger or fold in bundle.windows:
        return
    largest = sorted(larger, key=lambda case: math.prod(case.shape))[-MOST_CASES:]
    logger.info("finding which windows can be skipped, on %s", counted(len(largest), "validation case"))
    predictor = Predictor(bundle, inference, device=str(run.device), scratch=run.folder)
    try:
        found = calibrate(predictor, (_input_of(case, task.plan) for case in largest))
    except AutosegError as fault:
        logger.warning("the model is written, but which windows it can skip is not known: %s", fault)
        return
    if found is not None:
        store_windows(run.model, {fold: found})
