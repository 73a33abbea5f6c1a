"""From one data set to one model: configurations are cross-validated and compared, and one is chosen with its postprocessing.

A ``Configuration`` is trained by a step (``TrainConfiguration``) that skips finished folds, by the identity of their training;
so the same call continues after an interruption. The requested settings are in ``study.json`` before training, and a call with
other settings is refused. The decisions (which configuration, which rules for components and holes, which temperature) are
values in the model, so that prediction needs no options.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.engines import LocalEngine, Outcome, engine_of, map_cases, reason_of
from autoseg.errors import AutosegError, ModelError, TrainingError, every
from autoseg.evaluation.groups import Groups, read_groups
from autoseg.evaluation.study_findings import MADE_BY
from autoseg.inference.bundle import load_bundle
from autoseg.locks import study_lock
from autoseg.networks.devices import choose_device, devices_for
from autoseg.options import Runtime, StudyOptions
from autoseg.room import check_writable
from autoseg.studies.configuration import (
    Configuration,
    CrossValidated,
    TrainConfiguration,
    TrainFold,
    configurations,
    read_configuration,
    refuse_changed,
)
from autoseg.studies.deciding import STUDY_FILE, Study, decide, model_name
from autoseg.studies.fold import Run, begin_anew
from autoseg.studies.folds import count_folds, fold_names
from autoseg.studies.lanes import device_names
from autoseg.studies.ready import choose_recipe, known_network, known_plans
from autoseg.studies.studied import Studied, StudyRecord
from autoseg.studies.trainable import refuse_untrainable
from autoseg.workspace import Workspace, read_record, write_json
from planners import NetworkSpec
from planners.records import digest, to_json

__all__ = ["STUDY_FILE", "Studied", "StudyRecord", "run_study", "trainings_of"]

logger = logging.getLogger(__name__)


def run_study(
    dataset: str | PathLike[str],
    workspace: Workspace,
    options: StudyOptions,
    runtime: Runtime,
) -> Studied:
    """Like ``autoseg.pipeline.study``, without the HTML report and the methods text."""
    groups = read_groups(options.groups) if options.groups else Groups()
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    groups = groups.among(case.id for case in spec.training)
    step, asked, items = _settle(spec, workspace, options, runtime)
    folder = workspace.study(spec.name, options.name)
    check_writable(folder)
    with study_lock(folder):  # without it, runs that another process is training would count as failed
        if not runtime.fresh:
            _refuse_others(workspace.model(model_name(spec, options)), options.name)
        _claim(folder / STUDY_FILE, StudyRecord(made_by=MADE_BY, asked=asked), runtime.fresh)
        found, failed = _cross_validated(step, items, spec)
        if not found:
            reasons = "\n  ".join(f"{name}: {why}" for name, why in failed.items())
            raise TrainingError(f"no configuration could be trained:\n  {reasons}")
        return decide(Study(spec, workspace, options, runtime, folder, asked, step.folds, groups), found, failed)


def trainings_of(
    spec: DatasetSpec, workspace: Workspace, options: StudyOptions, runtime: Runtime
) -> tuple[TrainConfiguration, tuple[Configuration, ...]]:
    """The step that trains, and the configurations of a study."""
    step, _, items = _settle(spec, workspace, options, runtime)
    return step, items


def _settle(
    spec: DatasetSpec, workspace: Workspace, options: StudyOptions, runtime: Runtime
) -> tuple[TrainConfiguration, dict[str, Any], tuple[Configuration, ...]]:
    """(the step that trains, the requested settings as JSON, the configurations)."""
    recipe, training = choose_recipe(options.training), options.training
    device = choose_device(device_names(runtime.device)[0], elsewhere=runtime.elsewhere)
    count = count_folds(spec)
    folds = fold_names(options.folds or f"0-{count - 1}", count)
    if len(folds) < 2:
        raise AutosegError(f"--folds {options.folds}: a study needs two folds or more of the {count} that there are")
    plans: Sequence[str | None] = options.plans or (training.plan,)
    networks: Sequence[str | None] = [_absolute(network) for network in options.networks] or (None,)
    # a wrong name is an error before anything is written, not a configuration that fails
    checks: list[Callable[[], object]] = [
        *(partial(known_plans, spec, workspace, plan) for plan in plans),
        *(partial(known_network, n) for n in networks),
    ]
    known = every(checks)
    asked = {
        "dataset": spec.name,
        "cases": digest([[case.id, case.patient] for case in spec.training]),
        "labels": digest([to_json(spec.labels), list(spec.channels)]),
        "plans": list(options.plans or filter(None, [training.plan])),
        "networks": list(options.networks),
        "network files": [to_json(network) for network in known if isinstance(network, NetworkSpec)],
        "folds": list(folds),
        "recipe": to_json(recipe),
        "length": {"seconds": training.seconds, "iterations": training.iterations},
        "seed": training.seed,
        "margin": options.margin,
        "device": device.type,
    }
    several = ("plans", "networks", "network files", "margin")  # part of the run names, or not relevant for training
    identity = digest({key: value for key, value in asked.items() if key not in several})
    items = configurations(plans, networks, identity[:8])
    step = TrainConfiguration(spec.folder, folds, workspace, training, runtime, options.at_once)
    return step, asked, items


def _absolute(network: str) -> str:
    """The absolute path of a network's JSON file, for processes in another folder; any other name unchanged."""
    return str(Path(network).absolute()) if network.endswith(".json") else network


def _refuse_others(target: Path, name: str) -> None:
    """Raise ModelError, before any training, if the target folder holds a model that no study of this name made."""
    if not (target / "model.json").is_file():
        return
    made = load_bundle(target).info.get("study")
    if not isinstance(made, dict) or made.get("name") != name:
        raise ModelError(
            f"{target}: is a model that this study did not make, and stays as it is. Give the study another --name"
        )


def _claim(path: Path, record: StudyRecord, fresh: bool) -> None:
    """Store the requested settings; refuse a study that has other settings."""
    if path.exists() and not fresh:
        earlier = read_record(StudyRecord, path, strict=False).asked
        other = [key for key, value in to_json(record.asked).items() if key in earlier and earlier[key] != value]
        if other:
            told = "; ".join(f"{key} was {earlier[key]}, is {record.asked[key]}" for key in other)
            raise AutosegError(
                f"{path.parent}: is a study with other settings: {told}. Give the settings it began with, another --name, "
                "or start it again with --fresh"
            )
        return
    write_json(path, record, seal=True)


def _cross_validated(
    step: TrainConfiguration, items: Sequence[Configuration], spec: DatasetSpec
) -> tuple[list[CrossValidated], dict[str, str]]:
    """(the configurations that were trained, why others failed). What cannot be trained is told first."""
    settled = map_cases(step.settled, items, workers=1, name=lambda item: item.name)
    runs = {outcome.name: outcome.value for outcome in settled if outcome.error is None}
    if not step.runtime.fresh:
        refuse_changed(runs)
    there = [(item, runs[item.name]) for item in items if item.name in runs]
    checked = map_cases(step.refuse_unfit, there, workers=1, name=lambda item: item[0].name)
    refused = _told(_failures((*settled, *checked)), "cannot be trained, and is left out")
    ready = [(item, run) for item, run in there if item.name not in refused]
    broken = {}
    if step.runtime.engine != "local":
        broken = _train_on_workers(step, ready)
        step = replace(step, runtime=replace(step.runtime, fresh=False))  # finds all folds trained
    trained = LocalEngine(1).map(step, [one for one in ready if one[0].name not in broken], name=lambda item: item[0].name)
    failed = refused | _told(broken | _failures(trained), "failed")
    found = [
        read_configuration(item, run.folder, run.model, step.folds, spec) for item, run in ready if item.name not in failed
    ]
    return found, failed


def _failures(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """{configuration: why it failed}."""
    return {one.name: reason_of(one.error) for one in outcomes if one.error is not None}


def _told(failed: dict[str, str], what: str) -> dict[str, str]:
    """The same failures, each with a warning."""
    for name, reason in failed.items():
        logger.warning("%s: %s: %s", name, what, reason)
    return failed


def _train_on_workers(step: TrainConfiguration, ready: Sequence[tuple[Configuration, Run]]) -> dict[str, str]:
    """Train the folds of settled configurations; {configuration: why a fold of it failed}."""
    runtime, given = step.runtime, device_names(step.runtime.device)
    devices = given if len(given) > 1 else devices_for(given[0])
    for _, run in ready if runtime.fresh else ():
        refuse_untrainable(run)  # moves other models aside
        begin_anew(run)
    items = [(item, fold) for item, run in ready for fold in run.tasks]
    engine = engine_of(runtime.engine, step.at_once if step.at_once > 1 else None, devices)
    worker = replace(step, runtime=replace(runtime, engine="local"))
    kind = ready[0][1].device.type if ready else "cpu"  # all are settled for this kind
    on_done = runtime.progress("train", len(items))
    outcomes = engine.map(TrainFold(worker, kind), items, name=lambda item: item[0].name, on_done=on_done)
    broken: dict[str, str] = {}
    for (item, fold), outcome in zip(items, outcomes, strict=True):
        if outcome.error is not None:
            broken.setdefault(item.name, f"fold {fold}: {reason_of(outcome.error)}")
    return broken
