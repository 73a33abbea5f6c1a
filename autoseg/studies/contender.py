"""What a trained network of a comparison came to, read from the folder of its run."""

from __future__ import annotations

import logging
import statistics
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.evaluation import Report
from autoseg.evaluation.comparison import Contender, Cost
from autoseg.evaluation.report import REPORT_FILE, read_report
from autoseg.evaluation.restored import RESTORED_FILE, RestorationResult, RestoredRow
from autoseg.inference.bundle import load_bundle
from autoseg.ledger import DONE, WRITING, Entry, judge
from autoseg.names import remove_folder
from autoseg.options import InferenceOptions, Runtime
from autoseg.records import read_case, read_cohort, read_fold
from autoseg.studies.entrant import Entrant, Study
from autoseg.studies.scoring import predict_and_score
from autoseg.training.checkpoint import read_state
from autoseg.training.fold import CHECKPOINT
from autoseg.workspace import read_record
from planners.records import digest

__all__ = ["is_finished", "read_contender", "with_closed_gates"]

logger = logging.getLogger(__name__)

VALIDATION = "validation"


def is_finished(entrant: Entrant) -> bool:
    """Whether this very training has come to its end, and all its validation cases are scored."""
    state, metrics = read_state(entrant.folder / CHECKPOINT), entrant.folder / VALIDATION / REPORT_FILE
    entry = Entry("autoseg train", state.identity, DONE if state.finished else WRITING, {}) if state else None
    return judge(entry, digest(entrant.task), lambda: metrics.is_file() and not read_report(metrics).failures).done


def read_contender(entrant: Entrant) -> Contender:
    """The scores, restored intensities and cost of a network that has been trained."""
    results, record = entrant.folder / VALIDATION, read_fold(entrant.folder)
    state, report = read_state(entrant.folder / CHECKPOINT), read_report(results / REPORT_FILE)
    if state is None or record is None:
        raise AutosegError(f"{entrant.folder}: expected a trained fold, found none of its files. Repeat it with --fresh")
    cost = Cost(
        parameters=entrant.cost.parameters,
        operations=entrant.cost.operations,
        steps=state.step,
        seconds=state.seconds,
        seconds_per_step=state.seconds / max(state.step, 1),
        memory_mib=record.memory_mib,
        predict_seconds=_predict_seconds(results),
        device=record.device,
        precision="bfloat16" if state.bf16 else "float32",
        mirrored="yes" if record.task.plan.mirror_axes else "no",
        features=entrant.training.plan.network.features,
        batch_size=entrant.training.batch_size,
    )
    failures = tuple(f"{failure.case}: {failure.reason}" for failure in report.failures)
    return Contender(entrant.name, _scores(report), _restored(results / RESTORED_FILE), cost, failures)


def with_closed_gates(study: Study, entrant: Entrant) -> Contender | None:
    """The Contender that a trained network is with its gates closed; None for a network without gates."""
    spec = study.ready.spec
    bundle = load_bundle(study.workspace.model(f"{spec.name}_{entrant.run}"))
    if not bundle.plan.network.attention:
        return None
    precision = read_cohort(entrant.folder / VALIDATION).precision
    inference = InferenceOptions(folds=(study.fold,), precision=precision, closed_gates=True)
    logger.info("%s: predicting with closed gates", entrant.name)
    target = entrant.folder / f"{VALIDATION}_gates_closed"
    if study.runtime.fresh:
        remove_folder(target, owner=entrant.folder)
    runtime = Runtime(device=str(study.device), workers=study.runtime.workers, progress=study.runtime.progress)
    predict_and_score(Path(bundle.name), spec, study.split.validation, target, inference, runtime)
    return Contender(f"{entrant.name}, gates closed", _scores(read_report(target / REPORT_FILE)))


def _scores(report: Report) -> dict[tuple[str, str], dict[str, float | None]]:
    return {(row.case, row.structure): row.values for row in report.rows}


def _restored(path: Path) -> tuple[RestoredRow, ...]:
    """What was found of restored intensities; empty where nothing was restored."""
    return read_record(RestorationResult, path, strict=False).rows if path.is_file() else ()


def _predict_seconds(folder: Path) -> float | None:
    """Mean seconds that the networks took for a validation case; None where none is known."""
    records = [record for path in sorted(folder.glob("*.json")) if (record := read_case(path)) is not None]
    seconds = [record.seconds["infer"] for record in records if record.is_done]
    return statistics.fmean(seconds) if seconds else None
