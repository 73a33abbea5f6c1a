"""The methods text of a folder, from its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autoseg import __version__
from autoseg.data.labels import LabelSchema
from autoseg.methods.decisions import network, planned, statement_of
from autoseg.methods.prediction import predicted
from autoseg.methods.references import bibliography
from autoseg.methods.statement import NOTHING, Section, Statement, joined, named
from autoseg.methods.training import trained
from autoseg.records import (
    CohortRecord,
    FoldRecord,
    ModelAbout,
    TrainedAbout,
    cohort_files,
    read_cohort,
    read_fold,
    read_shards,
    read_validations,
)
from autoseg.training.recipe import Recipe
from autoseg.workspace import read_record
from planners.plan import NetworkSpec, Plan
from planners.records import RecordError, digest, from_json

__all__ = ["Methods", "about_training", "methods_of"]

T = TypeVar("T")
COMPARISON, HISTORY, RUN, SCORES, VALIDATION = "comparison.json", "history.jsonl", "run.json", "metrics.json", "validation"
SOFTWARE_HEADING = "Software"
SOFTWARE: Mapping[str, str] = {"autoseg": "autoseg", "torch": "paszke2019pytorch", "numpy": "harris2020numpy"}


@dataclass(frozen=True)
class Methods:
    """A methods text: its sections, and the names of the records of its numbers."""

    sections: tuple[Section, ...]
    records: tuple[str, ...]

    def text(self) -> str:
        """``methods.md``."""
        lines = ["# Methods\n", *(told for one in self.sections if (told := one.markdown()))]
        about = (
            f"Written by autoseg {__version__}. Every number comes from {joined(f'`{name}`' for name in self.records)}. "
            "Citations are keys of `references.bib`.\n"
        )
        return "\n".join([*lines, about])

    def references(self) -> str:
        """``references.bib``: the publications that the text cites."""
        return bibliography(key for section in self.sections for key in section.cites)


def methods_of(folder: Path, model: ModelAbout | None = None) -> Methods | None:
    """The methods text of a fold, of predictions, an evaluation, a comparison or a study.

    Args:
        model: the model, if ``folder`` is a model folder.

    Returns:
        Methods; None if there are no such records.

    Raises:
        AutosegError: a damaged record.
    """
    if model is not None:
        return Methods(tuple(_of_model(model)), ("model.json",))
    fold = read_fold(folder)
    if fold is not None:
        return _of_fold(folder, fold)
    cohort = read_shards(folder)
    sections: list[Section] = []
    records: list[str] = []
    if cohort.made_by:
        sections += _of_predictions(cohort)
        records += [path.name for path in cohort_files(folder)]
    for name, tell in {SCORES: _evaluation, COMPARISON: _comparison}.items():
        if (folder / name).is_file():
            sections.append(tell(folder / name))
            records.append(name)
    if not records:
        return None
    return Methods((*sections, _software(cohort.versions)), tuple(records))


def _of_fold(folder: Path, fold: FoldRecord) -> Methods:
    """A training run, and the scores of its validation cases."""
    task, results = fold.task, folder / VALIDATION
    sections = [_data(task.plan, task.labels, []), _network(task.plan)]
    sections.append(_training(task.plan, "Training", [about_training(folder, fold)]))
    records = ["fold.json" if (folder / "fold.json").is_file() else RUN, HISTORY]
    cohort = read_cohort(results)
    if cohort.made_by:
        sections.append(Section("Prediction", predicted(cohort, None)))
        records.append(f"{VALIDATION}/{RUN}")
    if (results / SCORES).is_file():
        sections.append(_evaluation(results / SCORES))
        records.append(f"{VALIDATION}/{SCORES}")
    return Methods((*sections, _software(fold.versions)), tuple(records))


def about_training(folder: Path, fold: FoldRecord) -> TrainedAbout:
    """How the fold in ``folder`` was trained."""
    last = next(reversed(read_validations(folder / HISTORY)), None)
    return TrainedAbout(
        steps=last.step if last else 0,
        seconds=round(last.seconds, 1) if last else 0.0,
        seed=fold.task.seed,
        recipe=fold.task.recipe,
        length=fold.task.length,
        batch_size=fold.batch_size,
        device=fold.device,
        precision=str((fold.applied or {}).get("precision", "")),
        training=len(fold.task.training),
        validation=len(fold.task.validation),
        momentum=last.momentum if last else None,
        start=fold.task.start,
        devices=next((why.chosen for why in fold.decisions if why.what == "devices"), ""),
    )


def _of_model(model: ModelAbout) -> Iterable[Section]:
    yield _data(model.plan, model.labels, model.channels)
    yield _network(model.plan, model.networks)
    alike: dict[str, dict[str, TrainedAbout]] = {}  # folds trained in the same way share a section
    for name, run in model.info.folds.items():
        way = digest([run.recipe, run.batch_size, run.device, run.precision, bool(run.start)])
        alike.setdefault(way, {})[name] = run
    for runs in alike.values():
        heading = "Training" if len(alike) == 1 else f"Training of {'fold' if len(runs) == 1 else 'folds'} {joined(runs)}"
        yield _training(model.plan, heading, list(runs.values()))
    study = model.info.study
    if study and study.decisions:
        yield Section("Decisions of the study", tuple(statement_of(model.plan, why) for why in study.decisions))
    yield _software(model.info.versions)


def _of_predictions(cohort: CohortRecord) -> Iterable[Section]:
    model = _known(ModelAbout, cohort.model.about)
    if model is not None:
        yield from (one for one in _of_model(model) if one.heading != SOFTWARE_HEADING)
    yield Section("Prediction", predicted(cohort, model))


def _data(plan: Plan, labels: LabelSchema, channels: Iterable[str]) -> Section:
    names = list(channels)
    scans = f" and the {'channel' if len(names) == 1 else 'channels'} {named(names)}" if names else ""
    told = f"The data set {named([plan.dataset])} has the structures {named(labels.structures)}" if plan.dataset else ""
    overlap = ", which may overlap" if labels.has_regions else ""
    return Section(
        "Data and planning",
        (
            Statement(f"{told}{overlap}{scans}.") if told else NOTHING,
            Statement(
                f"autoseg derived the plan {plan.name!r} from sizes, spacings and intensities of the training cases, by rules "
                "that begin with those of nnU-Net.",
                ("isensee2021nnunet",),
            ),
            *planned(plan),
            NOTHING
            if labels.ignore is None
            else Statement("Voxels without annotation counted neither in training nor in scores."),
        ),
    )


def _network(plan: Plan, others: Iterable[NetworkSpec] = ()) -> Section:
    coarse = NOTHING
    if plan.coarse:
        told = f"the labels of a coarse stage, the plan {plan.coarse.plan!r}, in {plan.coarse.count} input channels"
        coarse = Statement(f"It reads {told}.", ("isensee2021nnunet",))
    together = [Statement("Other folds of the ensemble have another network."), *map(network, others)]
    return Section("Network", (network(plan.network), coarse, *(together if len(together) > 1 else ())))


def _training(plan: Plan, heading: str, runs: Sequence[TrainedAbout]) -> Section:
    return Section(heading, trained(_known(Recipe, runs[0].recipe), runs, plan))


def _known(cls: type[T], found: dict[str, Any]) -> T | None:
    """The record; None if there is none, or if its version had other fields."""
    try:
        return from_json(cls, found, strict=False) if found else None
    except RecordError:
        return None


def _evaluation(path: Path) -> Section:
    from autoseg.evaluation.report import read_report  # takes a fifth of a second, not needed for predictions alone
    from autoseg.methods.results import evaluated, scores_table

    report = read_report(path)
    return Section("Evaluation", evaluated(report), scores_table(report))


def _comparison(path: Path) -> Section:
    from autoseg.evaluation.comparison_report import ComparisonRecord
    from autoseg.methods.results import compared, differences_table

    found = read_record(ComparisonRecord, path, strict=False)
    return Section("Comparison", compared(found), differences_table(found))


def _software(versions: Mapping[str, str]) -> Section:
    if not versions:
        return Section(SOFTWARE_HEADING, ())
    told = joined(f"{name} {version}" for name, version in versions.items() if name != "system")
    cites = tuple(SOFTWARE[name] for name in versions if name in SOFTWARE)
    return Section(SOFTWARE_HEADING, (Statement(f"Versions: {told}.", cites),))
