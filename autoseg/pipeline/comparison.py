"""Several networks under one plan, one recipe and one budget, on the same cases.

Every network is trained by ``autoseg train`` in a process of its own, so that its memory is its own and none can take the
others down; what it leaves in its run folder is read back, scored in pairs and written as tables. The name of a run holds a
digest of all that it depends on: the same call continues what was interrupted and repeats nothing that is finished.
"""

import json
import re
import shutil
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.data.splits import Split
from autoseg.engines import run_command
from autoseg.errors import AutosegError, TrainingError
from autoseg.evaluation.comparison import Comparison, Contender, average_trainings, compare_scores
from autoseg.evaluation.comparison_report import as_markdown, write_comparison
from autoseg.inference.bundle import load_bundle
from autoseg.inference.predictor import Predictor
from autoseg.networks import NETWORKS, attention_blocks, close_gates
from autoseg.networks.cost import NetworkCost, match_operations, measure_cost
from autoseg.networks.machine import choose_device
from autoseg.pipeline.prepare import case_digests
from autoseg.pipeline.quiet import mute, silent
from autoseg.pipeline.training import (
    choose_network,
    choose_recipe,
    draw_splits,
    fold_names,
    predict_and_score,
    ready_to_train,
)
from autoseg.pipeline.versions import machine, versions
from autoseg.room import check_writable
from autoseg.training.checkpoint import read_state
from autoseg.training.loop import Length
from autoseg.training.memory import told_when_short_of_memory
from autoseg.training.recipe import Recipe, with_batch_size
from autoseg.workspace import Workspace, read_json, write_json
from planners import NetworkSpec, Plan
from planners.change import refit
from planners.records import digest, to_json

__all__ = ["Compared", "compare"]


@dataclass(frozen=True)
class Compared:
    """The comparison, the folder of its files, and sentences about what failed."""

    folder: Path
    comparison: Comparison
    about: dict
    failures: tuple[str, ...]

    def summary(self):
        return f"{as_markdown(self.comparison, self.about)}\ntables and plot: {self.folder}"


@dataclass(frozen=True)
class Study:
    """What all networks of a comparison share, trained with one seed."""

    spec: DatasetSpec
    workspace: Workspace
    fold: str
    plan: Plan
    recipe: Recipe
    recipe_words: tuple[str, ...]  # as the command line takes it
    length: Length
    seed: int
    device: torch.device
    cases_digest: str
    split: Split
    workers: int | None
    fresh: bool


@dataclass(frozen=True)
class Entrant:
    """One network of a study: its spec, batch and cost, and the name of its run, which tells it from any other."""

    name: str
    spec: NetworkSpec
    batch_size: int
    cost: NetworkCost
    run: str
    folder: Path


def compare(
    dataset,
    fold,
    workspace,
    *,
    networks=None,
    seconds=None,
    iterations=None,
    match_flops=False,
    plan=None,
    recipe="autoseg",
    settings=None,
    device="auto",
    seed=0,
    repeats=1,
    margin=0.005,
    target=None,
    fresh=False,
    workers=None,
    say=mute,
    progress=silent,
):
    """Train, predict and score several networks alike, and say what the scores support; the same call continues.

    Args:
        dataset, workspace: as in ``verify``; data that are not planned or prepared yet are now.
        fold: its validation cases are what the networks are compared on.
        networks: names; None for all in NETWORKS. The first one is paired with each of the others.
        seconds, iterations: length of each training; None for the plan's iterations.
        match_flops: scale the widths of the others so that their operations per patch equal those of the first.
        plan, recipe, settings, device, seed, workers: as in ``train``.
        repeats: train each network so often, with ``seed`` and the seeds that follow; scores are means over these trainings.
        margin: mean Dice (0 to 1) within which two networks may be called equivalent.
        target: folder for the tables; None for one in the workspace, named after what is compared.
        fresh: train all anew.

    Returns:
        Compared. A network that fails is named there, the others are compared.

    Raises:
        AutosegError: the call or the data set is wrong; nothing was trained.
    """
    names = tuple(dict.fromkeys(networks or NETWORKS))
    for name in names:
        NETWORKS[name]  # an unknown name is an error that lists the known ones
    device, chosen = choose_device(device), choose_recipe(recipe, settings or {})
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    splits = draw_splits(spec, workspace)
    folds = fold_names(fold, len(splits))
    if len(folds) > 1 or folds == ["all"]:
        raise AutosegError(f"fold {fold!r}: a comparison needs the held-back cases of one fold, 0 to {len(splits) - 1}")
    the_plan, scans = ready_to_train(spec, workspace, plan, workers, say, progress)
    splits = draw_splits(spec, workspace)  # again, now that the structures of each case are known
    study = Study(
        spec=spec,
        workspace=workspace,
        fold=folds[0],
        plan=the_plan,
        recipe=chosen,
        recipe_words=_recipe_words(recipe, settings or {}),
        length=Length(seconds=seconds) if seconds else Length(steps=iterations or the_plan.iterations),
        seed=seed,
        device=device,
        cases_digest=digest(case_digests(spec, scans, the_plan)),
        split=splits[int(folds[0])],
        workers=workers,
        fresh=fresh,
    )
    seeds = range(seed, seed + repeats)
    folder = Path(target) if target else workspace.folder / "comparisons" / _study_name(study, seeds, names, match_flops)
    check_writable(folder)
    trained, closed, failed, entrants = {}, {}, {}, {}
    operations = _entrant(study, names[0], None).cost.operations if match_flops else None
    for one in (replace(study, seed=number) for number in seeds):  # all networks with one seed, then with the next
        if repeats > 1:
            say(f"trainings with seed {one.seed}")
        for name in names:
            what = name if repeats == 1 else f"{name}, seed {one.seed}"
            try:
                entrant = _entrant(one, name, operations if name != names[0] else None)
                entrants.setdefault(name, entrant)
                trained.setdefault(name, {})[one.seed] = _contender(one, entrant, say)
                what += ", with closed gates"
                with told_when_short_of_memory():
                    without = _with_closed_gates(one, entrant, say, progress)
                if without:
                    closed.setdefault(name, {})[one.seed] = without
            except AutosegError as fault:
                failed[what] = str(fault)
                say(f"{what}: failed: {fault}")
    merge = average_trainings if repeats > 1 else lambda found: found[seed]
    contenders = [merge(trained[name]) for name in names if name in trained]
    gates_closed = {name: merge(found) for name, found in closed.items()}
    comparison = compare_scores(contenders, margin=margin, failed=failed, gates_closed=gates_closed)
    about = _about(study, seeds, list(entrants.values()), match_flops, margin)
    write_comparison(comparison, about, folder)
    failures = [f"{name}: {reason}" for name, reason in failed.items()]
    failures += [f"{c.name}: {failure}" for c in contenders for failure in c.failures]
    return Compared(folder, comparison, about, tuple(failures))


def _recipe_words(recipe, settings):
    """The recipe and its changes as arguments of ``autoseg train``."""
    name = str(Path(recipe).absolute()) if str(recipe).endswith(".json") else recipe
    return ("--recipe", name, *(word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")))


def _entrant(study, name, operations):
    """The network as it will be trained, scaled to so many ``operations`` if that is not None."""
    plan = choose_network(study.plan, name, study.recipe, study.device)
    if operations:
        plan = refit(study.plan, match_operations(plan.network, plan.patch_size, operations))
    cost = measure_cost(plan.network, plan.patch_size)
    shared = (study.recipe, study.length, study.seed, study.cases_digest, study.split, study.device.type)
    run = f"compare_{name}_{digest([plan, *shared])[:8]}"
    batch = with_batch_size(study.recipe, plan, study.device.type).batch_size
    return Entrant(name, plan.network, batch, cost, run, study.workspace.run(study.spec.name, run) / f"fold_{study.fold}")


def _contender(study, entrant, say):
    """Train a network, unless that is finished, and read what it came to.

    Raises:
        TrainingError: with the last words of a training that failed.
    """
    if study.fresh or not _is_finished(entrant.folder):
        _train(study, entrant, say)
    state, record = read_state(entrant.folder / "checkpoint.safetensors"), read_json(entrant.folder / "run.json")
    metrics = read_json(entrant.folder / "validation" / "metrics.json")
    cost = {
        "parameters": entrant.cost.parameters,
        "operations": entrant.cost.operations,
        "steps": state.step,
        "seconds": state.seconds,
        "seconds_per_step": state.seconds / max(state.step, 1),
        "memory_mib": record["memory_mib"],
        "predict_seconds": _predict_seconds(entrant.folder / "validation"),
        "device": record["device"],
        "precision": "bfloat16" if state.bf16 else "float32",
        "mirrored": "yes" if record["task"]["plan"]["mirror_axes"] else "no",
        "features": list(entrant.spec.features),
        "batch_size": entrant.batch_size,
    }
    return Contender(
        name=entrant.name,
        scores=_scores(metrics),
        restored=_restored(entrant.folder / "validation" / "restoration.json"),
        cost=cost,
        failures=_failures(metrics),
    )


def _is_finished(folder):
    state, metrics = read_state(folder / "checkpoint.safetensors"), folder / "validation" / "metrics.json"
    return bool(state and state.finished and metrics.is_file() and not _failures(read_json(metrics)))


def _train(study, entrant, say):
    """``autoseg train`` in a process of its own."""
    write_json(entrant.folder.parent / "network.json", entrant.spec)
    length = study.length
    words = ["train", study.spec.folder, study.fold, "--workspace", study.workspace.folder, "--plan", study.plan.name]
    words += ["--network", entrant.folder.parent / "network.json", "--name", entrant.run, "--seed", study.seed]
    words += ["--time", f"{length.seconds}s"] if length.seconds else ["--iterations", length.steps]
    words += [*study.recipe_words, "--set", f"batch_size={entrant.batch_size}", "--device", study.device]
    words += ["--workers", study.workers] if study.workers else []
    words += ["--fresh"] if study.fresh else []
    lines = []

    def on_line(line):
        lines.append(line)
        say(f"{entrant.name}: {line}")

    status = run_command(words, on_line=on_line)
    crashed = any(line.startswith("Traceback") for line in lines)  # also ends with status 1
    if status not in (0, 1) or crashed:  # 1: some cases could not be predicted, and metrics.json names them
        raise TrainingError(_last_words(lines, status))


def _last_words(lines, status):
    """Why a process ended, from its status and what it said."""
    if status < 0:
        return f"its process was killed by signal {-status}; that is how a want of memory (signal 9) shows itself"
    if status == 130:
        return "its training was stopped; the same command goes on from there"
    begins = [i for i, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return "\n".join(lines[begins[-1] :] if begins else lines[-3:]) or f"its process ended with status {status}"


def _with_closed_gates(study, entrant, say, progress):
    """The Contender that a trained network is with its gates closed; None for a network without gates."""
    bundle = load_bundle(study.workspace.model(f"{study.spec.name}_{entrant.run}"))
    options = read_json(entrant.folder / "validation" / "run.json")
    predictor = Predictor(bundle, folds=[study.fold], device=str(study.device), precision=options["precision"])
    if not any(attention_blocks(network) for network in predictor.networks):
        return None
    for network in predictor.networks:
        close_gates(network)
    say(f"{entrant.name}: predicting with closed gates")
    target = entrant.folder / "validation_gates_closed"
    if study.fresh:
        shutil.rmtree(target, ignore_errors=True)
    predict_and_score(predictor, study.spec, study.split.validation, target, workers=study.workers, progress=progress)
    return Contender(f"{entrant.name}, gates closed", _scores(read_json(target / "metrics.json")))


def _scores(metrics):
    return {(row["case"], row["structure"]): row["values"] for row in metrics["cases"]}


def _failures(metrics):
    return tuple(f"{failure['case']}: {failure['reason']}" for failure in metrics["failures"])


def _restored(path):
    """What was found of restored intensities; empty where nothing was restored."""
    return tuple(read_json(path)["rows"]) if path.is_file() else ()


def _predict_seconds(folder):
    """Mean seconds that the networks took for a validation case; None where none is known."""
    records = [read_json(path) for path in folder.glob("*.json")]
    seconds = [record["seconds"]["infer"] for record in records if isinstance(record, dict) and record.get("state") == "done"]
    return statistics.fmean(seconds) if seconds else None


def _study_name(study, seeds, names, match_flops):
    shared = [study.plan, study.recipe, study.length, list(seeds), study.cases_digest, study.split, study.device.type]
    return f"{study.spec.name}_{study.plan.name}_fold_{study.fold}_{digest([*shared, names, match_flops])[:8]}"


def _about(study, seeds, entrants, match_flops, margin):
    """Title, conditions in words, and the same as values."""
    plan, here = study.plan, machine(study.device)
    patch = " x ".join(str(edge) for edge in plan.patch_size)
    share = study.recipe.cpu_width if study.device.type == "cpu" else 1
    features = "the plan's features" if share == 1 else f"{share:g} times the plan's features"
    recipe = " ".join([study.recipe.name, *study.recipe_words[2:]])
    length = f"{study.length.seconds / 60:.3g} min" if study.length.seconds else f"{study.length.steps} steps"
    drawn = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    trainings = "One training each: intervals and tests speak of other cases, not of other trainings."
    if len(seeds) > 1:
        trainings = (
            f"{len(seeds)} trainings each: scores are their means, case by case. A difference counts where it holds over cases "
            "(bootstrap, Wilcoxon) and over trainings (Student's t)"
            + (", which two trainings hardly allow: three or more do." if len(seeds) == 2 else ".")
        )
    conditions = [
        f"Each network: plan {plan.name} (patch {patch}), recipe {recipe}, {features}, "
        f"{length} of training, {drawn}, {len(study.split.training)} cases to learn from and "
        f"{len(study.split.validation)} held back, on {here['device']} ({here['cores']} cores), {here['date']}.",
        trainings,
    ]
    if match_flops and entrants:
        target = entrants[0].cost.operations
        ratios = ", ".join(
            f"{e.name} {e.cost.operations / target:.2f} (widths {', '.join(map(str, e.spec.features))})" for e in entrants
        )
        conditions.append(f"Widths were scaled to the operations of {entrants[0].name}; achieved, as a ratio: {ratios}.")
    return {
        "title": f"{study.spec.name}, fold {study.fold}: networks compared",
        "conditions": conditions,
        "dataset": study.spec.name,
        "fold": study.fold,
        "plan": plan.name,
        "recipe": to_json(study.recipe),
        "length": to_json(study.length),
        "seeds": list(seeds),
        "match_flops": match_flops,
        "margin": margin,
        "machine": here,
        "versions": versions(),
    }
