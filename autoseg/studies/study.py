"""From one data set to one model: configurations are cross-validated, compared and decided, and so is what comes after them.

A ``Configuration`` is trained by a step (``TrainConfiguration``) that skips what is done, by the identity of each fold's
training; so the same call goes on where it was interrupted. What was asked for stands in ``study.json`` before training,
and a call that asks for something else is refused. The decisions (which configuration, which rules for pieces and holes, which
temperature) are values in the model, so that prediction needs no option.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.engines import LocalEngine, reason_of
from autoseg.errors import AutosegError, TrainingError
from autoseg.evaluation import Report, evaluate_folder, write_report
from autoseg.evaluation.calibration import Calibration
from autoseg.evaluation.comparison import Comparison, compare_scores
from autoseg.evaluation.comparison_report import About, as_markdown, write_comparison
from autoseg.evaluation.groups import Groups, read_groups
from autoseg.evaluation.lesions import LesionRule
from autoseg.imaging.files import read_label_volume, write_label_volume
from autoseg.imaging.pictures import label_ending
from autoseg.imaging.volume import LabelVolume
from autoseg.inference.bundle import copy_bundle, load_bundle
from autoseg.names import remove_folder
from autoseg.networks.devices import choose_device
from autoseg.options import Runtime, StudyOptions
from autoseg.reconstruct.components import LabelRule, apply_rules
from autoseg.room import check_writable
from autoseg.studies.choice import choose, is_better
from autoseg.studies.cleaning import decide_rules, voxel_volume_ml
from autoseg.studies.configuration import (
    Configuration,
    CrossValidated,
    SettledRun,
    TrainConfiguration,
    name_of,
    read_configuration,
)
from autoseg.studies.ensemble import SECOND, cross_validate_ensemble, share_a_grid
from autoseg.studies.folds import count_folds, fold_names
from autoseg.studies.ready import choose_recipe, known_network
from autoseg.workspace import Workspace, read_record, write_json, write_text
from planners.plan import Decision
from planners.records import digest, to_json

__all__ = ["STUDY_FILE", "Studied", "StudyRecord", "run_study"]

logger = logging.getLogger(__name__)

STUDY_FILE, TEXT_FILE, CLEANED, ENSEMBLE = "study.json", "study.md", "cross_validated", "ensemble"
MADE_BY = "autoseg study"


@dataclass(frozen=True)
class StudyRecord:
    """``study.json``.

    Attributes:
        made_by: this verb.
        asked: what was asked for, as JSON; a study is gone on with only by a call that asks for the same.
        model: name of the model that it left; '' while it goes on.
        chosen: the configuration of that model.
        decisions: what was decided, and why.
        rules: for pieces and holes.
        calibration: None where no voxels to calibrate by are known.
        failed: configuration -> why it could not be trained.
    """

    made_by: str
    asked: dict[str, Any]
    model: str = ""
    chosen: str = ""
    decisions: tuple[Decision, ...] = ()
    rules: tuple[LabelRule, ...] = ()
    calibration: Calibration | None = None
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Studied:
    """A study that has ended: its ``folder``, the ``model`` that it left, and the report on that model's cross-validation."""

    folder: Path
    model: Path
    record: StudyRecord
    comparison: str
    report: Report

    @property
    def failures(self) -> tuple[str, ...]:
        failed = [f"{name}: {reason}" for name, reason in self.record.failed.items()]
        return (*failed, *(f"{failure.case}: {failure.reason}" for failure in self.report.failures))

    def text(self) -> str:
        """What ``study.md`` says, without folders of this machine: it is handed on."""
        lines = [self.comparison, "Decided:", ""]
        lines += [f"- {one.what}: {one.chosen}. {one.rule}. {one.numbers}".rstrip(". ") for one in self.record.decisions]
        lines += ["", f"Cross-validated, as the model {self.model.name} predicts:", "", self.report.table()]
        lines += [self.record.calibration.table(), ""] if self.record.calibration else []
        return "\n".join(lines)

    def summary(self) -> str:
        return f"{self.text()}\nmodel: {self.model}\ntables and page: {self.folder}"


def run_study(
    dataset: str | PathLike[str],
    workspace: Workspace,
    settled_run: SettledRun,
    options: StudyOptions | None = None,
    runtime: Runtime | None = None,
) -> Studied:
    """As ``autoseg.pipeline.study``, without the page; ``settled_run`` decides on a run, and makes what it needs."""
    options, runtime = options or StudyOptions(), runtime or Runtime()
    groups = read_groups(options.groups) if options.groups else Groups()
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    step, asked, items = _settle(spec, workspace, options, runtime, settled_run)
    folder = workspace.study(spec.name, options.name)
    check_writable(folder)
    _claim(folder / STUDY_FILE, StudyRecord(MADE_BY, asked), runtime.fresh)
    outcomes = LocalEngine(1).map(step, items, name=lambda item: item.name)
    failed = {one.name: reason_of(one.error) for one in outcomes if one.error is not None}
    for name, reason in failed.items():
        logger.warning("%s: failed: %s", name, reason)
    models = {item.name: workspace.model(f"{spec.name}_{item.run}") for item in items}
    pairs = zip(items, outcomes, strict=True)
    folds = [str(fold) for fold in asked["folds"]]
    found = [read_configuration(item, one.value, models[item.name], folds, spec) for item, one in pairs if one.error is None]
    if not found:
        raise TrainingError("no configuration could be trained:\n  " + "\n  ".join(f"{n}: {why}" for n, why in failed.items()))
    return _decide(_Study(spec, workspace, options, runtime, folder, asked, groups), found, failed)


@dataclass(frozen=True)
class _Study:
    """What a study works with."""

    spec: DatasetSpec
    workspace: Workspace
    options: StudyOptions
    runtime: Runtime
    folder: Path
    asked: dict[str, Any]
    groups: Groups


def _settle(
    spec: DatasetSpec, workspace: Workspace, options: StudyOptions, runtime: Runtime, settled_run: SettledRun
) -> tuple[TrainConfiguration, dict[str, Any], list[Configuration]]:
    """(the step that trains, what is asked for as JSON, the configurations)."""
    recipe, device, training = choose_recipe(options.training), choose_device(runtime.device), options.training
    count = count_folds(spec)
    folds = fold_names(options.folds or f"0-{count - 1}", count)
    if len(folds) < 2:
        raise AutosegError(f"--folds {options.folds}: a study needs two folds or more of the {count} that there are")
    networks: Sequence[str | None] = [absolute(network) for network in options.networks] or (None,)
    for network in networks:
        known_network(network)
    plans: Sequence[str | None] = options.plans or (training.plan,)
    asked = {
        "dataset": spec.name,
        "plans": list(options.plans or filter(None, [training.plan])),
        "networks": list(options.networks),
        "folds": list(folds),
        "recipe": to_json(recipe),
        "length": {"seconds": training.seconds, "iterations": training.iterations},
        "seed": training.seed,
        "margin": options.margin,
        "device": device.type,
    }
    identity = digest({key: value for key, value in asked.items() if key not in ("plans", "networks", "margin")})
    items = [
        Configuration(plan, network, f"study_{name_of(plan, network)}_{identity[:8]}")
        for plan in dict.fromkeys(plans)
        for network in networks
    ]
    return TrainConfiguration(spec.folder, folds, workspace, training, runtime, settled_run), asked, items


def absolute(network: str) -> str:
    """The path of a network's JSON file for a process that begins in another folder; any other name as it is."""
    return str(Path(network).absolute()) if network.endswith(".json") else network


def _claim(path: Path, record: StudyRecord, fresh: bool) -> None:
    """Write down what was asked for; refuse a study that was asked for something else."""
    if path.exists() and not fresh:
        earlier = read_record(StudyRecord, path, strict=False)
        now = to_json(record.asked)
        other = [key for key in now if earlier.asked.get(key) != now[key]]
        if other:
            told = "; ".join(f"{key} was {earlier.asked.get(key)}, is {now[key]}" for key in other)
            raise AutosegError(
                f"{path.parent}: is a study with other settings: {told}. Give the settings it began with, another --name, "
                "or start it again with --fresh"
            )
        return
    write_json(path, record, seal=True)


def _decide(about: _Study, found: Sequence[CrossValidated], failed: dict[str, str]) -> Studied:
    """Compare what was cross-validated, decide, and write model, record, tables and page."""
    costs = {one.name: one.operations_per_ml for one in found}
    name, why = choose([one.method for one in found], costs, about.options.margin)
    single = next(one for one in found if one.name == name)
    chosen, more, tried = _consider_ensemble(about, single, found)
    cleaning = decide_rules(chosen.files, chosen.report.labels, LocalEngine(about.runtime.workers))
    calibration = chosen.calibration
    temperatures = calibration.temperatures if calibration else ()
    record = StudyRecord(
        made_by=MADE_BY,
        asked=about.asked,
        model=f"{about.spec.name}_{about.options.name}",
        chosen=chosen.name,
        decisions=(why, *more, *cleaning.decisions, *_about_rules(cleaning.rules), *_about_temperature(calibration)),
        rules=cleaning.rules,
        calibration=calibration,
        failed=failed,
    )
    model = _ship(about, chosen, record, temperatures)
    comparison = compare_scores([one.method for one in tried], margin=about.options.margin, failed=failed)
    told = _write_comparison(about, comparison)
    report = replace(_final_report(about, chosen, cleaning.rules), groups=about.groups)
    write_report(report, about.folder, fresh=about.runtime.fresh)
    write_json(about.folder / STUDY_FILE, record, seal=True)
    studied = Studied(about.folder, model, record, told, report)
    write_text(about.folder / TEXT_FILE, f"# {about.spec.name}: {about.options.name}\n\n{studied.text().rstrip()}\n")
    return studied


def _consider_ensemble(
    about: _Study, single: CrossValidated, found: Sequence[CrossValidated]
) -> tuple[CrossValidated, tuple[Decision, ...], list[CrossValidated]]:
    """(what is shipped, decisions, all that was cross-validated): the two of highest Dice together, where that is better."""
    ranked = sorted(found, key=lambda one: -(one.method.mean_of("dice") or 0.0))
    if len(ranked) < 2:
        return single, (), list(found)
    bundles = [load_bundle(one.model) for one in ranked[:2]]
    pair = f"{ranked[0].name} and {ranked[1].name}"
    if not share_a_grid(bundles[0].plan, bundles[1].plan):
        why = "their plans prepare scans differently, and only logits on one grid are averaged"
        return single, (Decision("ensemble", "not tried", f"{pair}: {why}"),), list(found)
    plan, runtime = bundles[0].plan, replace(about.runtime, fresh=False)
    prepared = about.workspace.prepared(about.spec.name, plan.name)
    if about.runtime.fresh:
        remove_folder(about.folder / ENSEMBLE, owner=about.folder)
    both = cross_validate_ensemble(ranked[0], ranked[1], about.spec, prepared, about.folder / ENSEMBLE, runtime)
    better, evidence = is_better(both.method, single.method, about.options.margin)
    told = f"{pair} minus {single.name}: {evidence}"
    if better:
        return (
            both,
            (Decision("ensemble", pair, "better than one alone, and the data support it", told),),
            [*found, both],
        )
    return single, (Decision("ensemble", "none", "the data do not support that two are better than one", told),), [*found, both]


def _about_rules(rules: Sequence[LabelRule]) -> tuple[Decision, ...]:
    if rules:
        return (Decision("post-processing", "; ".join(map(str, rules)), "kept in the model, and applied to what it predicts"),)
    return (Decision("post-processing", "none", "no rule was shown to help"),)


def _about_temperature(found: Calibration | None) -> tuple[Decision, ...]:
    if found is None:
        return (Decision("temperature", "none", "the predictions left no voxels to calibrate by"),)
    numbers = f"negative log likelihood {found.loss_before:.4f} before, {found.loss_after:.4f} after, on folds held out"
    chosen = ", ".join(f"{value:.3f}" for value in found.temperatures) or "none"
    why = "held-out voxels are likelier with it" if found.temperatures else "held-out voxels are no likelier with one"
    return (Decision("temperature", chosen, why, numbers),)


def _ship(about: _Study, chosen: CrossValidated, record: StudyRecord, temperatures: tuple[float, ...]) -> Path:
    """Write the final model; one of an earlier call that says the same stays as it is."""
    target = about.workspace.model(record.model)
    bundle = load_bundle(chosen.model)
    wanted = {fold for name in map(str, about.asked["folds"]) for fold in (name, f"{name}{SECOND}")}
    info = {**bundle.info, "study": {"name": about.options.name, "decisions": to_json(record.decisions)}}
    folds = {fold: load for fold, load in bundle.folds.items() if fold in wanted}
    final = replace(bundle, folds=folds, info=info, postprocessing=record.rules, temperatures=temperatures)
    try:
        copy_bundle(final, target)
    except AutosegError as fault:
        if not about.runtime.fresh:
            raise AutosegError(f"{fault}\nGive the study another --name, or start it again with --fresh") from fault
        aside = next(p for n in range(1, 10_000) if not (p := target.with_name(f".{target.name}.old{n}")).exists())
        target.rename(aside)
        logger.warning("the model of the earlier study was moved to %s", aside)
        copy_bundle(final, target)
    return target


def _write_comparison(about: _Study, comparison: Comparison) -> str:
    """Tables of all configurations; returns them as Markdown."""
    folds = ", ".join(map(str, about.asked["folds"]))
    conditions = (f"Each configuration: cross-validated on folds {folds}, every case scored by the fold that did not see it.",)
    told = About(f"{about.spec.name}: configurations compared", conditions, {"dataset": about.spec.name})
    write_comparison(comparison, told, about.folder)
    return as_markdown(comparison, told)


def _final_report(about: _Study, chosen: CrossValidated, rules: Sequence[LabelRule]) -> Report:
    """The cross-validation with the rules applied, whose label maps are written where there are rules."""
    if not rules:
        return chosen.report
    ending, folder = label_ending(about.spec.file_ending), about.folder / CLEANED
    for case, files in chosen.files.items():
        if Path(files.predicted).is_file():
            volume = read_label_volume(files.predicted)
            cleaned = apply_rules(volume.data, rules, voxel_volume_ml(volume.geometry))
            write_label_volume(LabelVolume(cleaned, volume.geometry), folder / f"{case}{ending}", like=Path(files.predicted))
    references = {case: Path(files.reference) for case, files in chosen.files.items()}
    lesions = LesionRule(about.spec.lesions) if about.spec.lesions else None
    workers = about.runtime.workers
    return evaluate_folder(references, folder, chosen.report.labels, ending=ending, workers=workers, lesions=lesions)
