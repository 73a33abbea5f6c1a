"""The decisions of a study after cross-validation, and its model, tables and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.data.dataset import DatasetSpec
from autoseg.engines import LocalEngine
from autoseg.evaluation import Report, evaluate_folder, write_report
from autoseg.evaluation.calibration import Calibration
from autoseg.evaluation.comparison import compare_scores
from autoseg.evaluation.comparison_report import About, comparison_text, write_comparison
from autoseg.evaluation.folder import Annotation
from autoseg.evaluation.groups import Groups
from autoseg.evaluation.lesions import LesionRule
from autoseg.evaluation.study_findings import MADE_BY, Change, Decided, change_of, changes_between
from autoseg.imaging.files import read_label_volume, write_label_volume
from autoseg.imaging.pictures import label_ending
from autoseg.imaging.volume import LabelVolume
from autoseg.inference.bundle import load_bundle
from autoseg.names import remove_folder
from autoseg.options import Runtime, StudyOptions
from autoseg.reconstruct.components import LabelRule, apply_rules
from autoseg.records import CalibrationAbout
from autoseg.studies.choice import choose, improvements
from autoseg.studies.cleaning import decide_rules
from autoseg.studies.configuration import CrossValidated
from autoseg.studies.ensemble import SECOND, cross_validate_ensemble
from autoseg.studies.lanes import device_names
from autoseg.studies.shipping import only_folds, ship
from autoseg.studies.studied import Studied, StudyRecord
from autoseg.workspace import Workspace, read_record, write_json, write_text
from planners.plan import Decision
from planners.records import to_json

__all__ = ["STUDY_FILE", "Study", "decide", "model_name"]

STUDY_FILE, TEXT_FILE, CLEANED, ENSEMBLE = "study.json", "study.md", "cross_validated", "ensemble"


@dataclass(frozen=True)
class Study:
    """The inputs of a study: ``folder`` is its folder, ``asked`` the requested settings as JSON, which include ``folds``."""

    spec: DatasetSpec
    workspace: Workspace
    options: StudyOptions
    runtime: Runtime
    folder: Path
    asked: dict[str, Any]
    folds: tuple[str, ...]
    groups: Groups


@dataclass(frozen=True)
class Considered:
    """The configuration to ship, all that were cross-validated (``tried``), and the findings about ensembles of two."""

    chosen: CrossValidated
    tried: tuple[CrossValidated, ...]
    decisions: tuple[Decision, ...] = ()
    changes: tuple[Change, ...] = ()


def model_name(spec: DatasetSpec, options: StudyOptions) -> str:
    """The name of the final model of a study."""
    return f"{spec.name}_{options.name}"


def decide(about: Study, found: Sequence[CrossValidated], failed: dict[str, str]) -> Studied:
    """Compare the cross-validated configurations, decide, and write model, record, tables and HTML report."""
    costs = {one.name: one.operations_per_ml for one in found}
    name, why = choose([one.method for one in found], costs, about.options.margin)
    single = next(one for one in found if one.name == name)
    together = _consider_ensembles(about, single, found)
    chosen = together.chosen
    cleaning = decide_rules(chosen.files, chosen.report.labels, LocalEngine(about.runtime.workers), chosen.report.unlabelled)
    report, maps = _final_report(about, chosen, cleaning.rules)
    decisions = (why, *together.decisions, *cleaning.decisions)
    decisions += (*_about_rules(cleaning.rules), *_about_temperature(chosen.calibration))
    record = StudyRecord(
        made_by=MADE_BY,
        asked=about.asked,
        model=model_name(about.spec, about.options),
        chosen=chosen.name,
        about={one.name: one.about for one in together.tried},
        decisions=tuple(Decided(one.what, one.chosen, one.rule, one.numbers) for one in decisions),
        rules=cleaning.rules,
        calibration=chosen.calibration,
        ensembles=together.changes,
        cleaned=changes_between(chosen.report, report) if cleaning.rules else (),
        failed=failed,
        predicted={case: path.relative_to(about.workspace.folder).as_posix() for case, path in maps.items()},
    )
    model = _ship(about, chosen, record, aside=about.runtime.fresh or _was_incomplete(about.folder / STUDY_FILE))
    told = _write_comparison(about, together, failed)
    write_report(report, about.folder, fresh=about.runtime.fresh)
    write_json(about.folder / STUDY_FILE, record, seal=True)
    studied = Studied(about.folder, model, record, told, report)
    write_text(about.folder / TEXT_FILE, f"# {about.spec.name}: {about.options.name}\n\n{studied.text().rstrip()}\n")
    return studied


def _consider_ensembles(about: Study, single: CrossValidated, found: Sequence[CrossValidated]) -> Considered:
    """Choose an ensemble of two if it is better than the single configuration."""
    pairs, tried = _pairs(found), tuple(found)
    if not pairs:
        return Considered(single, tried)
    runtime = replace(about.runtime, fresh=False, device=device_names(about.runtime.device)[0])
    if about.runtime.fresh:
        remove_folder(about.folder / ENSEMBLE, owner=about.folder)
    together, decisions = list[CrossValidated](), list[Decision]()
    for number, (one, other) in enumerate(pairs):
        bundles = [load_bundle(each.model) for each in (one, other)]
        if any(bundle.coarse for bundle in bundles):
            why = f"{one.name} and {other.name}: a cascade cannot be part of one"
            decisions.append(Decision("ensemble", "not tried", why))
            continue
        prepared, place = about.workspace.prepared(about.spec.name, bundles[0].plan.name), about.folder / ENSEMBLE / str(number)
        together.append(cross_validate_ensemble(one, other, about.spec, prepared, place, runtime))
    evidence = improvements(single.method, [each.method for each in together], about.options.margin)
    better = [each for each in together if evidence[each.name][0]]
    chosen = max(better, key=_dice, default=single)
    changes = tuple(change_of(each.name, each.method, single.method, kept=each is chosen) for each in together)
    if together:
        numbers = "; ".join(f"{name} minus {single.name}: {told}" for name, (_, told) in evidence.items())
        no, yes = "the data do not support that two are better than one", "better than one alone, and the data support it"
        decisions.append(Decision("ensemble", chosen.name if better else "none", yes if better else no, numbers))
    return Considered(chosen, (*tried, *together), tuple(decisions), changes)


def _pairs(found: Sequence[CrossValidated]) -> list[tuple[CrossValidated, CrossValidated]]:
    """The two of highest Dice; if these have the same plan, also the best one with the best one of another plan."""
    best, *others = sorted(found, key=_dice, reverse=True)
    elsewhere = [other for other in others if other.plan != best.plan]
    return [(best, other) for other in dict.fromkeys([*others[:1], *elsewhere[:1]])]


def _dice(one: CrossValidated) -> float:
    return one.method.mean_of("dice") or 0.0


def _about_rules(rules: Sequence[LabelRule]) -> tuple[Decision, ...]:
    if rules:
        return (Decision("post-processing", "; ".join(map(str, rules)), "kept in the model, and applied to what it predicts"),)
    return (Decision("post-processing", "none", "no rule was shown to help"),)


def _about_temperature(found: Calibration | None) -> tuple[Decision, ...]:
    if found is None:
        return (Decision("temperature", "none", "the predictions left no voxels to calibrate by"),)
    before, after = found.mean_errors
    numbers = "negative log likelihood per voxel (mean of -ln p of the true label, 0 is best) "
    numbers += f"{found.loss_before:.4f} before, {found.loss_after:.4f} after, "
    numbers += f"calibration error {before:.4f} before, {after:.4f} after, on folds held out"
    chosen = ", ".join(f"{value:.3f}" for value in found.temperatures) or "none"
    why = "held-out voxels are likelier with it, and their calibration error is smaller"
    return (Decision("temperature", chosen, why if found.temperatures else "held-out voxels are no better with one", numbers),)


def _was_incomplete(path: Path) -> bool:
    """Whether a configuration failed when the study decided earlier. That one may be chosen now."""
    return path.is_file() and bool(read_record(StudyRecord, path, strict=False).failed)


def _ship(about: Study, chosen: CrossValidated, record: StudyRecord, *, aside: bool) -> Path:
    """Write the final model. An existing model with the same predictions stays unchanged; another one is moved ``aside``."""
    bundle, folds = load_bundle(chosen.model), about.folds
    seconds = tuple(f"{fold}{SECOND}" for fold in folds if f"{fold}{SECOND}" in bundle.folds)
    final = replace(
        only_folds(bundle, (*folds, *seconds)),
        info={**bundle.info, "study": {"name": about.options.name, **_told(record)}},
        postprocessing=record.rules,
        temperatures=record.calibration.temperatures if record.calibration else (),
    )
    target = about.workspace.model(record.model)
    ship(final, target, aside=aside)
    return target


def _told(record: StudyRecord) -> dict[str, Any]:
    """The entry of a model about its study: the decisions, and the calibration error of its probabilities."""
    found = record.calibration
    about = CalibrationAbout(found.before, found.after, bool(found.temperatures)) if found else None
    return {"decisions": to_json(record.decisions), "calibration": to_json(about)}


def _write_comparison(about: Study, found: Considered, failed: dict[str, str]) -> str:
    """Write tables of all configurations and of the chosen one against each other one; returns them as Markdown."""
    folds = ", ".join(about.folds)
    conditions = [f"Each configuration: cross-validated on folds {folds}, every case scored by the fold that did not see it."]
    conditions += [f"{one.name}: {one.about}." for one in found.tried if one.about]
    told = About(f"{about.spec.name}: configurations compared", tuple(conditions), {"dataset": about.spec.name})
    first = found.chosen.method
    others = [one.method for one in found.tried if one.name != found.chosen.name]
    comparison = compare_scores([first, *others], margin=about.options.margin, failed=failed)
    write_comparison(comparison, told, about.folder)
    return comparison_text(comparison, told)


def _final_report(about: Study, chosen: CrossValidated, rules: Sequence[LabelRule]) -> tuple[Report, dict[str, Path]]:
    """(the cross-validation with the rules applied, case -> its label map). With rules, both are written again."""
    maps = {case: Path(files.predicted) for case, files in chosen.files.items()}
    if not rules:
        return replace(chosen.report, groups=about.groups), maps
    ending, folder = label_ending(about.spec.file_ending), about.folder / CLEANED
    cleaned = {case: folder / f"{case}{ending}" for case, path in maps.items() if path.is_file()}
    for case, path in cleaned.items():
        volume = read_label_volume(maps[case])
        said = apply_rules(volume.data, rules, volume.geometry.voxel_ml)
        write_label_volume(LabelVolume(said, volume.geometry), path, like=maps[case])
    references = {case: Path(files.reference) for case, files in chosen.files.items()}
    lesions = LesionRule(about.spec.lesions) if about.spec.lesions else None
    annotation, engine = Annotation(lesions, chosen.report.unlabelled), LocalEngine(about.runtime.workers)
    report = evaluate_folder(references, folder, chosen.report.labels, ending=ending, engine=engine, annotation=annotation)
    return replace(report, groups=about.groups), cleaned
