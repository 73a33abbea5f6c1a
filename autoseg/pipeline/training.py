"""Train folds; each ends with its validation cases predicted, scored and reported, and a model written."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.data.splits import FOLDS, checked_splits, make_splits, own_splits, read_splits, structures_present
from autoseg.errors import AutosegError, DatasetError, ModelError, PlanError, TrainingError
from autoseg.evaluation import Report
from autoseg.inference.bundle import load_bundle, refuse_other_model, save_bundle
from autoseg.inference.predictor import Predictor
from autoseg.names import plain_name, remove_folder
from autoseg.networks import NETWORKS, build_network
from autoseg.networks.machine import choose_device, peak_memory_mib
from autoseg.options import InferenceOptions, Runtime
from autoseg.pipeline.models import find_model
from autoseg.pipeline.prepare import (
    case_digests,
    default_plan,
    known_scans,
    plan_and_preprocess,
    prepare,
    refuse_on_errors,
    verify,
)
from autoseg.pipeline.quiet import mute, silent
from autoseg.pipeline.reporting import try_report
from autoseg.pipeline.restoration import restoration_table, validate_restoration
from autoseg.pipeline.scoring import predict_and_score
from autoseg.pipeline.versions import versions
from autoseg.preprocess.normalize import UNIT_SCHEMES
from autoseg.preprocess.store import open_case
from autoseg.records import FoldRecord, as_recorded, read_fold, write_fold
from autoseg.training.augment import PRESETS
from autoseg.training.fold import FoldTask, load_matching, train_fold
from autoseg.training.loop import Length
from autoseg.training.losses import LOSSES
from autoseg.training.memory import told_when_short_of_memory
from autoseg.training.recipe import RECIPES, Recipe, changed, is_mirrored, steps_of_an_epoch, with_batch_size
from autoseg.workspace import read_json, read_record, write_json
from planners import PLANNERS, NetworkSpec, Plan, with_network
from planners.change import CHANGED
from planners.records import digest

__all__ = [
    "FoldResult",
    "choose_mirroring",
    "choose_network",
    "choose_recipe",
    "fold_names",
    "ready_to_train",
    "train",
]


@dataclass(frozen=True)
class FoldResult:
    """A trained fold: where its files lie, and the report on its validation cases (None for fold ``all``).

    ``restoration`` is what ``validate_restoration`` found, None where the network does not restore images.
    """

    fold: str
    folder: Path
    model: Path
    report: Report | None
    failures: tuple[str, ...]
    steps: int
    seconds: float
    restoration: dict | None = None

    def summary(self):
        lines = [f"fold {self.fold}: {self.steps} steps in {self.seconds / 60:.1f} min, model {self.model}"]
        lines += [f"failed: {failure}" for failure in self.failures]
        if self.report is not None:
            lines += ["", self.report.table(), ""]
            lines += [restoration_table(self.restoration), ""] if self.restoration else []
            lines += [f"predictions and metrics: {self.folder / 'validation'}"]
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
    on_fold=mute,
    say=mute,
    progress=silent,
):
    """Train folds; the same call continues what was interrupted.

    Args:
        dataset, workspace: as in ``verify``; data that are not planned or prepared yet are now.
        fold: ``"0"``, several as ``"0,1,2"``, or ``"all"`` for every case with none held back.
        plan: name; None for the default plan.
        network: name, NetworkSpec, or path of a JSON file of one; None for the plan's.
        seconds, iterations: length of the training; None for the plan's iterations.
        recipe: a key of ``RECIPES`` or the path of a JSON file; ``settings`` changes single values of it.
        device, seed: as they say.
        name: of the run; None for plan and network.
        start: model whose weights to start with.
        fresh: begin anew; a model of the run with another plan is moved aside.
        on_fold: called with each FoldResult as it comes.

    Returns:
        list of FoldResult.
    """
    if name is not None:
        plain_name(name, what="run", where="--name", error=TrainingError)
    torch_device, chosen_recipe = choose_device(device), choose_recipe(recipe, settings or {})
    network = _known_network(network)
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    splits = () if fold == "all" else draw_splits(spec, workspace)
    folds, (start_weights, start_digest) = fold_names(fold, len(splits)), _start(start, workspace)
    the_plan, scans = ready_to_train(spec, workspace, plan, workers, say, progress)
    splits = () if fold == "all" else draw_splits(spec, workspace)  # again, now that the structures of each case are known
    if 0 < len(splits) < FOLDS and not own_splits(spec.folder):
        say(f"{len(splits)} patients are as many folds, each with one patient held back; five or more make five folds")
    the_plan = choose_network(the_plan, network, chosen_recipe, torch_device, say)
    the_plan, chosen_recipe = _settle_restoration(the_plan, chosen_recipe, say)
    length = Length(seconds=seconds) if seconds else Length(steps=the_plan.iterations if iterations is None else iterations)
    prepared = workspace.prepared(spec.name, the_plan.name)
    cases = [open_case(prepared / case.id) for case in spec.training]
    the_plan = choose_mirroring(the_plan, chosen_recipe, length, torch_device, cases, say)
    run_name = name or f"{the_plan.name}_{the_plan.network.name}"
    task = FoldTask(
        plan=the_plan,
        labels=spec.labels,
        recipe=chosen_recipe,
        length=length,
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
        prepared=prepared,
        model=workspace.model(f"{spec.name}_{run_name}"),
        device=torch_device,
        start_weights=start_weights,
        workers=workers,
    )
    _check_model(run, fresh, say)
    results = []
    for name in folds:
        with told_when_short_of_memory():
            results.append(_train_one(run, name, splits, fresh, say, progress))
        on_fold(results[-1])
    return results


def choose_network(plan, network, recipe, device, say=mute):
    """The plan with the network that will be trained.

    Args:
        network: a name, None for the plan's own, or a NetworkSpec, which is taken as it is.
        recipe, device: on a CPU a network has ``recipe.cpu_width`` times the features of the plan.
    """
    if isinstance(network, NetworkSpec):
        return replace(plan, network=network)
    if network:
        plan = with_network(plan, network)
        for decision in (d for d in plan.decisions if d.warning and d.what == CHANGED):
            say(f"warning: {decision.chosen}: {decision.rule} ({decision.numbers})")
    if device.type != "cpu" or recipe.cpu_width == 1:
        return plan
    narrow = plan.network.scaled(recipe.cpu_width)
    say(f"on a CPU {narrow.name} has {', '.join(map(str, narrow.features))} features (--set cpu_width=1 for the plan's)")
    return replace(plan, network=narrow)


def choose_mirroring(plan, recipe, length, device, cases, say=mute):
    """The plan with the axes along which this training mirrors: its own, or none (``is_mirrored``).

    Args:
        length: Length.
        cases: what is there to learn from, each with a ``shape`` on the network grid.
    """
    epochs = None
    if length.steps:
        epochs = length.steps / steps_of_an_epoch(with_batch_size(recipe, plan, device.type), plan, cases)
    if not plan.mirror_axes or is_mirrored(recipe, epochs, device.type):
        return plan
    say("not mirrored, neither in training nor in prediction (--set mirror=true for the plan's axes)")

    def settled(decision):
        rule = "for a short training, which learns faster so, or because the recipe says so"
        return replace(decision, chosen="none", rule=rule, numbers=f"planned: {decision.chosen}")

    decisions = tuple(settled(d) if d.what == "mirroring" else d for d in plan.decisions)
    return replace(plan, mirror_axes=(), decisions=decisions)


def _known_network(network):
    """The name, NetworkSpec or None that is given, or the NetworkSpec in a JSON file; AutosegError for an unknown name."""
    if str(network).endswith(".json"):
        network = read_record(NetworkSpec, network)
    if network:
        NETWORKS[getattr(network, "name", network)]
    return network


def _settle_restoration(plan, recipe, say):
    """Plan and recipe, agreed on whether the network also restores the image."""
    others = [how.channel for how in plan.normalization if how.scheme not in UNIT_SCHEMES]
    if recipe.restoration_weight and others:
        say(f"the image is not restored: {', '.join(others)} is not scaled to [0, 1] by this plan")
        recipe = replace(recipe, restoration_weight=0.0)
    restores = recipe.restoration_weight > 0
    return replace(plan, network=replace(plan.network, restoration=restores)), recipe


def _check_model(run, fresh, say):
    """Find out before the training whether its model can be written: built, started, and added to the run's other folds.

    With ``fresh`` a model of another plan, or of other labels, is moved aside.
    """
    network = build_network(run.task.plan.network)
    if run.start_weights:
        load_matching(network, run.start_weights)
    kind = {"plan": run.task.plan, "labels": run.task.labels, "channels": run.spec.channels}
    try:
        refuse_other_model(run.model, **kind, file_ending=run.spec.file_ending)
    except ModelError as fault:
        if not fresh:
            raise ModelError(f"{fault}\nGive the run another --name, or start it anew with --fresh") from fault
        aside = next(p for n in itertools.count(1) if not (p := run.model.with_name(f".{run.model.name}.old{n}")).exists())
        run.model.rename(aside)
        say(f"the model of the earlier run has another plan and was moved to {aside}")


def _train_one(run, fold, splits, fresh, say, progress):
    folder, task = run.folder / f"fold_{fold}", run.task
    if fold != "all":
        split = splits[int(fold)]
        task = replace(task, training=split.training, validation=split.validation)
    if fresh:
        remove_folder(folder, owner=run.folder)
    held_back = f"{len(task.training)} cases to learn from, {len(task.validation)} held back"
    say(f"{run.folder.name}, fold {fold}: {held_back}, on {run.device}")
    trained = train_fold(
        task, prepared=run.prepared, folder=folder, device=run.device, start_weights=run.start_weights, say=say
    )
    _write_record(folder, task, run.device)
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
    report, failures, restoration = None, (), None
    if task.validation:
        report, failures, restoration = _validate(run, task, bundle, fold, folder / "validation", progress)
    try_report(folder, runtime=Runtime(workers=run.workers))
    return FoldResult(fold, folder, run.model, report, failures, state.step, state.seconds, restoration)


def _write_record(folder, task, device):
    """What was trained, where, in which batches, with which versions, and the most memory a session of it needed, in MiB."""
    earlier = read_fold(folder)
    memory = [peak_memory_mib(device), earlier.memory_mib if earlier else None]
    record = FoldRecord(
        task=as_recorded(task),
        device=str(device),
        batch_size=with_batch_size(task.recipe, task.plan, device.type).batch_size,
        versions=versions(),
        memory_mib=max(filter(None, memory), default=None),
    )
    write_fold(folder, record)


def _validate(run, task, bundle, fold, target, progress):
    """Predict, restore and score the cases a fold held back; (Report, failures, what was found about restoration)."""
    inference = InferenceOptions(folds=(fold,))
    runtime = Runtime(device=str(run.device), workers=run.workers, progress=progress)
    report, failures = predict_and_score(run.model, run.spec, task.validation, target, inference, runtime)
    restoration = None
    if task.plan.network.restoration:
        predictor = Predictor(bundle, inference, device=str(run.device), scratch=target)
        restoration = validate_restoration(predictor, run.prepared, task.validation, target / "restoration.json")
    return report, failures, restoration


def ready_to_train(spec, workspace, plan, workers, say, progress):
    """The plan of a data set and its scans; whatever is missing is made now."""
    known = {path.stem for path in workspace.plan(spec.name, "any").parent.glob("*.json")}
    if plan and plan not in known | set(PLANNERS):
        raise PlanError(f"no plan called {plan!r} for {spec.name}. There are: {', '.join(sorted(known)) or 'none yet'}")
    if not known or (plan and plan not in known):
        say(f"{spec.name} has no such plan yet: planning")
        planned = plan_and_preprocess(spec.folder, workspace, planner=plan, workers=workers, say=say, progress=progress)
        known = {made.name for made in planned.plans}
    the_plan = read_record(Plan, workspace.plan(spec.name, plan or default_plan(known)))
    verified = verify(spec.folder, workspace, workers=workers, keep=False)
    refuse_on_errors(verified)
    _, _, failed = prepare(spec, verified.scans, the_plan, workspace, workers=workers, progress=progress)
    if failed:
        raise DatasetError("cases could not be prepared:\n  " + "\n  ".join(failed))
    return the_plan, verified.scans


def draw_splits(spec, workspace):
    """The folds of a data set: the user's own, else ours, kept while cases and patients are the same.

    Before the data set has been planned, nobody knows which case has which structure: the folds are not kept then.
    """
    if own := own_splits(spec.folder):
        return read_splits(own, spec.training)
    path = workspace.fingerprints(spec.name) / "splits.json"
    patients = [[case.id, case.patient] for case in spec.training]
    stored = read_json(path) if path.is_file() else {}
    if stored.get("patients") != patients:
        present = structures_present(spec.training, known_scans(path.with_name("scan.json")), spec.labels)
        splits = make_splits(spec.training, present=present)
        if present is None:
            return splits
        folds = [{"train": list(s.training), "val": list(s.validation)} for s in splits]
        stored = {"patients": patients, "folds": folds}
        write_json(path, stored)
    return checked_splits(stored["folds"], spec.training, path)


def fold_names(text, n_folds):
    if text == "all":
        return ["all"]
    names = [part.strip() for part in str(text).split(",")]
    for name in names:
        if not name.isdigit() or int(name) >= n_folds:
            raise AutosegError(f"fold {name!r}: expected a number from 0 to {n_folds - 1}, several as 0,1,2, or all")
    return [str(int(name)) for name in dict.fromkeys(names)]


def choose_recipe(text, settings):
    """The recipe meant by a name or a file, with single settings changed; its loss and augmentation exist."""
    base = RECIPES[text] if not str(text).endswith(".json") else Recipe(name=Path(text).stem)
    if str(text).endswith(".json"):
        settings = {**read_settings(text), **settings}
    recipe = changed(base, settings)
    LOSSES[recipe.loss], PRESETS[recipe.augmentation]  # an unknown name is an error that lists the known ones
    return recipe


def read_settings(path):
    """The object in a JSON file of settings."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise TrainingError(f"{path}: expected an object of settings, found a {type(found).__name__}")
    return found


def _start(model, workspace):
    """(weights, digest) of the model to start with, the first of its folds."""
    if model is None:
        return None, ""
    bundle = load_bundle(find_model(model, workspace))
    return next(iter(bundle.folds.values()))(), bundle.digest
