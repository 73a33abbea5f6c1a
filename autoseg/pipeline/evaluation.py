"""Score a folder of predictions of any tool."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from os import PathLike
from pathlib import Path

from autoseg.data.labelmaps import Known, label_maps, no_folder, references_in, refuse_other_values, schema_of, told_maps
from autoseg.data.partial import unlabelled_beside
from autoseg.engines import engine_of
from autoseg.errors import AutosegError
from autoseg.evaluation import Report, evaluate_folder, write_report
from autoseg.evaluation.evaluate import check_tolerance
from autoseg.evaluation.folder import Annotation, ending_of_most
from autoseg.evaluation.groups import Groups, read_groups
from autoseg.evaluation.lesions import LesionRule
from autoseg.evaluation.markdown import seen_in_training
from autoseg.evaluation.report_files import refuse_foreign_report
from autoseg.options import EvaluateOptions, ReportOptions, Runtime
from autoseg.outputs.surface_scores import surface_scorer
from autoseg.pipeline.reporting import try_report
from autoseg.places import PAGE, check_folder, refuse_foreign
from autoseg.records import read_shards

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)


def evaluate(
    reference: str | PathLike[str],
    predicted: str | PathLike[str],
    target: str | PathLike[str],
    options: EvaluateOptions | None = None,
    runtime: Runtime | None = None,
    *,
    known: Known | None = None,
) -> Report:
    """Score a folder of predictions and write the report, as tables and as HTML.

    Surfaces beside the predictions, as written by ``autoseg predict --surfaces``, are also scored.

    Args:
        reference, predicted: folders with files of the same names; their endings may differ. Files left out there are
            warnings. Predictions without a reference are listed in the report.
        target: folder for metrics.csv, metrics.json, metrics.md, summary.json and report.html.
        options: ``labels`` None means a dataset.json beside the folders, else every value in references and predictions.
        runtime: ``fresh`` overwrites files of these names that other programs made.
        known: facts about predictions that were made just now. Without it, the most frequent file ending is used, every
            reference is scored, and the HTML report finds the scans itself.

    Returns:
        Report

    Raises:
        AutosegError: wrong call. Nothing was written.
    """
    reference, predicted, target = Path(reference), Path(predicted), Path(target)
    options, runtime = options or EvaluateOptions(), runtime or Runtime()
    check_tolerance(options.tolerance_mm)
    engine = engine_of(runtime.engine, runtime.workers)
    groups = read_groups(options.groups) if options.groups else Groups()
    lesions = LesionRule(options.lesions, options.lesion_overlap, options.lesion_ml) if options.lesions else None
    references = label_maps(reference) if known else references_in(reference)  # it has already warned of files left out
    if not predicted.is_dir():
        raise AutosegError(f"{predicted}: {no_folder(predicted)}. Correct the path")
    if predicted.samefile(reference):
        logger.warning(
            "%s: the references are scored against themselves; expected the predictions in another folder", predicted
        )
    ending = known.ending if known else ending_of_most(predicted, references)
    there = {} if known else told_maps(predicted)
    guesses = {case: there.get(case, predicted / f"{case}{ending}") for case in references if not known or case in known.cases}
    if options.partial:
        guesses = {case: path for case, path in guesses.items() if path.is_file()}
    references = {case: references[case] for case in guesses}
    if not references:
        raise AutosegError(
            f"no file of {predicted} has the name of a reference in {reference}; nothing to score. Give both the same name"
        )
    groups = groups.among(references)
    also = [path for path in guesses.values() if path.is_file()]  # values not named in a dataset.json are also structures
    schema = known.labels if known else schema_of((predicted, reference), references, labels=options.labels, also=also)
    refuse_other_values(schema, guesses)
    if not runtime.fresh:
        refuse_foreign_report(target)
        refuse_foreign(target / PAGE)
    check_folder(target)
    unlabelled = unlabelled_beside([Path(options.labels).parent] if options.labels else [predicted, reference], schema)
    report = evaluate_folder(
        references,
        {**there, **guesses},
        schema,
        tolerance_mm=options.tolerance_mm,
        engine=engine,
        on_done=runtime.progress("evaluate", len(references)),
        more=surface_scorer(predicted, references, schema),
        annotation=Annotation(lesions, unlabelled),
    )
    report = replace(report, groups=groups, trained_on=_trained_on(predicted, report.cases))
    if said := seen_in_training(report):
        logger.warning("%s", said)
    write_report(report, target, fresh=runtime.fresh)
    try_report(target, ReportOptions(known.images if known else None, str(reference), str(predicted)), runtime)
    return report


def _trained_on(predicted: Path, cases: Collection[str]) -> tuple[str, ...]:
    """Scored cases that the model of the predictions was trained on, from their record; () for predictions of other tools."""
    try:
        record = read_shards(predicted)
    except AutosegError:  # damaged, or of another program
        return ()
    return tuple(one.case for one in record.cases if one.trained_on and one.case in cases)
