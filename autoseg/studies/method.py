"""Reads the results of a trained network of a comparison from the folder of its run."""

from __future__ import annotations

import logging
import statistics
from pathlib import Path

from autoseg.atomic import DRAFTS
from autoseg.errors import AutosegError, ModelError
from autoseg.evaluation import Report
from autoseg.evaluation.comparison import Cost, Method
from autoseg.evaluation.report import REPORT_FILE, read_report
from autoseg.evaluation.restored import RESTORED_FILE, RestorationResult, RestoredRow
from autoseg.inference.bundle import load_bundle
from autoseg.ledger import DONE, WRITING, Entry, judge
from autoseg.names import remove_folder
from autoseg.options import InferenceOptions, Runtime
from autoseg.places import PAGE
from autoseg.records import read_case, read_cohort, read_fold
from autoseg.studies.compared_run import ComparedRun, ComparisonSetup
from autoseg.studies.scoring import predict_and_score
from autoseg.training.checkpoint import read_state
from autoseg.training.fold import CHECKPOINT, FoldTask
from autoseg.workspace import read_record
from planners.records import digest

__all__ = ["folds_of", "has_page", "is_finished", "is_trained", "read_method", "scores_of", "with_closed_gates"]

logger = logging.getLogger(__name__)

VALIDATION = "validation"


def is_finished(run: ComparedRun) -> bool:
    """``is_trained`` for a network of a comparison."""
    return is_trained(run.folder, run.task)


def is_trained(folder: Path, task: FoldTask) -> bool:
    """Whether training of a fold with this task is finished, all its validation cases are scored, and its report page exists.

    If the page is missing, other files may be missing too.
    """
    state, metrics = read_state(folder / CHECKPOINT), folder / VALIDATION / REPORT_FILE
    entry = Entry("autoseg train", state.identity, DONE if state.finished else WRITING, {}) if state else None
    is_whole = has_page(folder) and metrics.is_file()
    return judge(entry, digest(task), lambda: is_whole and not read_report(metrics).failures).done


def has_page(folder: Path) -> bool:
    """Whether the page of a folder, which is written last, is there, and no draft of a process that was killed beside it."""
    return (folder / PAGE).is_file() and not any(folder.glob(f"{DRAFTS}*"))


def folds_of(model: Path) -> frozenset[str]:
    """The folds of a model; empty if the model does not exist or is damaged."""
    try:
        return frozenset(load_bundle(model).folds)
    except ModelError:
        return frozenset()


def read_method(run: ComparedRun) -> Method:
    """The scores, restored intensities and cost of a trained network."""
    results, record = run.folder / VALIDATION, read_fold(run.folder)
    state, report = read_state(run.folder / CHECKPOINT), read_report(results / REPORT_FILE)
    if state is None or record is None:
        raise AutosegError(f"{run.folder}: expected a trained fold, found none of its files. Repeat it with --fresh")
    cost = Cost(
        parameters=run.cost.parameters,
        operations=run.cost.operations,
        steps=state.step,
        seconds=state.seconds,
        seconds_per_step=state.seconds / max(state.step, 1),
        memory_mib=record.memory_mib,
        predict_seconds=_predict_seconds(results),
        device=record.device,
        precision="bfloat16" if state.bf16 else "float32",
        mirrored="yes" if record.task.plan.mirror_axes else "no",
        features=run.training.plan.network.features,
        batch_size=run.training.batch_size,
    )
    failures = tuple(f"{failure.case}: {failure.reason}" for failure in report.failures)
    return Method(run.name, scores_of(report), _restored(results / RESTORED_FILE), cost, failures)


def with_closed_gates(setup: ComparisonSetup, run: ComparedRun) -> Method | None:
    """The Method of a trained network with its gates closed; None for a network without gates."""
    spec = setup.ready.spec
    bundle = load_bundle(setup.workspace.model(f"{spec.name}_{run.run_name}"))
    if not bundle.plan.network.attention:
        return None
    precision = read_cohort(run.folder / VALIDATION).precision
    inference = InferenceOptions(folds=(setup.fold,), precision=precision, closed_gates=True)
    logger.info("%s: predicting with closed gates", run.name)
    target = run.folder / f"{VALIDATION}_gates_closed"
    if setup.runtime.fresh:
        remove_folder(target, owner=run.folder)
    runtime = Runtime(device=str(setup.device), workers=setup.runtime.workers, progress=setup.runtime.progress)
    predict_and_score(Path(bundle.name), spec, setup.split.validation, target, inference, runtime)
    return Method(f"{run.name}, gates closed", scores_of(read_report(target / REPORT_FILE)))


def scores_of(report: Report) -> dict[tuple[str, str], dict[str, float | None]]:
    """The values of a report by case and structure."""
    return {(row.case, row.structure): row.values for row in report.rows}


def _restored(path: Path) -> tuple[RestoredRow, ...]:
    """The results for restored intensities; empty if nothing was restored."""
    return read_record(RestorationResult, path, strict=False).rows if path.is_file() else ()


def _predict_seconds(folder: Path) -> float | None:
    """Mean seconds of the networks per validation case; None if unknown."""
    records = [record for path in sorted(folder.glob("*.json")) if (record := read_case(path)) is not None]
    seconds = [record.seconds["infer"] for record in records if record.is_done]
    return statistics.fmean(seconds) if seconds else None
