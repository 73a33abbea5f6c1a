"""Train folds; each ends with its validation cases predicted, scored and reported, and a model written."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.data.splits import make_splits, read_splits
from autoseg.errors import AutosegError, PlanError
from autoseg.evaluation import Report, evaluate_folder, write_report
from autoseg.inference.bundle import load_bundle, save_bundle
from autoseg.inference.cohort import predict_cohort
from autoseg.inference.predictor import Predictor
from autoseg.networks import NETWORKS
from autoseg.networks.machine import choose_device
from autoseg.pipeline.models import find_model
from autoseg.pipeline.prepare import case_digests, default_plan, plan_and_preprocess, prepare, refuse_on_errors, verify
from autoseg.pipeline.quiet import mute, silent
from autoseg.pipeline.versions import versions
from autoseg.training.fold import FoldTask, train_fold
from autoseg.training.loop import Length
from autoseg.training.recipe import RECIPES, Recipe, changed
from autoseg.workspace import read_json, read_record, write_json
from planners import PLANNERS, Plan
from planners.records import digest, to_json

__all__ = ["FoldResult", "train"]


@dataclass(frozen=True)
class FoldResult:
    """A trained fold: where its files lie, and the report on its validation cases (None for fold ``all``)."""

    fold: str
    folder: Path
    model: Path
    report: Report | None
    failures: tuple[str, ...]
    steps: int
    seconds: float

    def summary(self):
        lines = [f"fold {self.fold}: {self.steps} steps in {self.seconds / 60:.1f} min, model {self.model}"]
        if self.report is not None:
            lines += ["", self.report.table(), "", f"predictions and metrics: {self.folder / 'validation'}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Run:
    """What the folds of one run share."""

    spec: DatasetSpec
    task: FoldTask  # of all cases; a fold has its own share of them
    folder: Path
    prepared: Path
    model: Path
    device: torch.device
    start_weights: dict | None
    workers: int | None


def train(
    dataset,
    fold,
    workspace,
    *,
    plan=None,
    network=None,
    seconds=None,
    iterations=None,
    recipe="autoseg",
    settings=None,
    device="auto",
    seed=0,
    name=None,
    start=None,
    fresh=False,
    workers=None,
    say=mute,
    progress=silent,
):
    """Train folds; the same call continues what was interrupted.

    Args:
        dataset, workspace: as in ``verify``; data that are not planned or prepared yet are now.
        fold: ``"0"``, several as ``"0,1,2"``, or ``"all"`` for every case with none held back.
        plan, network: names; None for the default plan and its network.
        seconds, iterations: length of the training; None for the plan's iterations.
        recipe: a key of ``RECIPES`` or the path of a JSON file; ``settings`` changes single values of it.
        device, seed: as they say.
        name: of the run; None for plan and network.
        start: model whose weights to start with.
        fresh: begin anew.

    Returns:
        list of FoldResult.
    """
    torch_device, chosen_recipe = choose_device(device), _recipe(recipe, settings or {})
    if network:
        NETWORKS[network]  # an unknown name is an error that lists the known ones
    spec, the_plan, scans = _ready_to_train(dataset, workspace, plan, workers, say, progress)
    if network:
        the_plan = replace(the_plan, network=replace(the_plan.network, name=network))
    run_name = name or f"{the_plan.name}_{the_plan.network.name}"
    splits = _splits(spec, workspace)
    start_weights, start_digest = _start(start, workspace)
    task = FoldTask(
        plan=the_plan,
        labels=spec.labels,
        recipe=chosen_recipe,
        length=Length(seconds=seconds) if seconds else Length(steps=iterations or the_plan.iterations),
        seed=seed,
        training=tuple(case.id for case in spec.training),
        validation=(),
        prepared_digest=digest(case_digests(spec, scans, the_plan)),
        start=start_digest,
    )
    run = Run(
        spec=spec,
        task=task,
        folder=workspace.run(spec.name, run_name),
        prepared=workspace.prepared(spec.name, the_plan.name),
        model=workspace.model(f"{spec.name}_{run_name}"),
        device=torch_device,
        start_weights=start_weights,
        workers=workers,
    )
    return [_train_one(run, each, splits, fresh, say, progress) for each in _fold_names(fold, len(splits))]


def _train_one(run, fold, splits, fresh, say, progress):
    folder, task = run.folder / f"fold_{fold}", run.task
    if fold != "all":
        split = splits[int(fold)]
        task = replace(task, training=split.training, validation=split.validation)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    held_back = f"{len(task.training)} cases to learn from, {len(task.validation)} held back"
    say(f"{run.folder.name}, fold {fold}: {held_back}, on {run.device}")
    trained = train_fold(
        task, prepared=run.prepared, folder=folder, device=run.device, start_weights=run.start_weights, say=say
    )
    write_json(folder / "run.json", {"task": to_json(task), "device": str(run.device), "versions": versions()})
    state = trained.state
    bundle = save_bundle(
        run.model,
        plan=task.plan,
        labels=task.labels,
        channels=run.spec.channels,
        weights={fold: trained.weights},
        info={
            "folds": {fold: {"steps": state.step, "seconds": round(state.seconds, 1), "seed": task.seed}},
            "dataset": run.spec.name,
            "run": run.folder.name,
            "versions": versions(),
        },
        file_ending=run.spec.file_ending,
    )
    report, failed = _validate(run, task, bundle, fold, folder / "validation", progress) if task.validation else (None, ())
    return FoldResult(fold, folder, run.model, report, failed, state.step, state.seconds)


def _validate(run, task, bundle, fold, target, progress):
    """Predict and score the cases a fold held back; (Report, failures)."""
    cases = [case for case in run.spec.training if case.id in task.validation]
    done = predict_cohort(
        Predictor(bundle, folds=[fold], device=str(run.device)),
        cases,
        target,
        ending=run.spec.file_ending,
        on_done=progress("predict", len(cases)),
    )
    report = evaluate_folder(
        {case.id: case.label for case in cases}, target, task.labels, ending=run.spec.file_ending, workers=run.workers
    )
    write_report(report, target)
    return report, tuple(f"{case}: {message}" for case, message in done.failures)


def _ready_to_train(dataset, workspace, plan, workers, say, progress):
    """The data set, its plan, and its scans; whatever is missing is made now."""
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    known = {path.stem for path in workspace.plan(spec.name, "any").parent.glob("*.json")}
    if plan and plan not in known | set(PLANNERS):
        raise PlanError(f"no plan called {plan!r} for {spec.name}. There are: {', '.join(sorted(known)) or 'none yet'}")
    if not known or (plan and plan not in known):
        say(f"{spec.name} has no such plan yet: planning")
        planned = plan_and_preprocess(spec.folder, workspace, planner=plan, workers=workers, say=say, progress=progress)
        known = {made.name for made in planned.plans}
    the_plan = read_record(Plan, workspace.plan(spec.name, plan or default_plan(known)))
    verified = verify(spec.folder, workspace, workers=workers)
    refuse_on_errors(verified)
    prepare(spec, verified.scans, the_plan, workspace, workers=workers, progress=progress)
    return spec, the_plan, verified.scans


def _splits(spec, workspace):
    """The folds of a data set: the user's own splits.json, else ours, made once and kept while the cases are the same."""
    if (spec.folder / "splits.json").is_file():
        return read_splits(spec.folder / "splits.json", spec.training)
    kept = workspace.fingerprints(spec.name) / "splits.json"
    cases = {case.id for case in spec.training}
    if kept.is_file() and all(cases == {*fold["train"], *fold["val"]} for fold in read_json(kept)):
        return read_splits(kept, spec.training)
    splits = make_splits(spec.training)
    write_json(kept, [{"train": list(s.training), "val": list(s.validation)} for s in splits])
    return splits


def _fold_names(text, n_folds):
    if text == "all":
        return ["all"]
    names = [part.strip() for part in str(text).split(",")]
    for name in names:
        if not name.isdigit() or int(name) >= n_folds:
            raise AutosegError(f"fold {name!r}: expected a number from 0 to {n_folds - 1}, several as 0,1,2, or all")
    return [str(int(name)) for name in dict.fromkeys(names)]


def _recipe(text, settings):
    if str(text).endswith(".json"):
        return changed(Recipe(name=Path(text).stem), {**read_json(text), **settings})
    return changed(RECIPES[text], settings)


def _start(model, workspace):
    """(weights, digest) of the model to start with, the first of its folds."""
    if model is None:
        return None, ""
    bundle = load_bundle(find_model(model, workspace))
    return next(iter(bundle.folds.values()))(), bundle.digest
