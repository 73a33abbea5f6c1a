"""Predict and score cases of a data set that have labels."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from autoseg.data.dataset import Case, DatasetSpec
from autoseg.engines import LocalEngine
from autoseg.evaluation import Report, evaluate_folder, write_report
from autoseg.evaluation.folder import Annotation
from autoseg.evaluation.lesions import LesionRule
from autoseg.imaging.pictures import label_ending
from autoseg.inference.cohort import Predict, predict_cohort
from autoseg.inference.output import Output
from autoseg.options import InferenceOptions, Runtime
from autoseg.outputs.labels import Labels
from autoseg.outputs.predicted import all_failures

__all__ = ["predict_and_score", "predict_shard"]


def predict_and_score(
    model: Path,
    spec: DatasetSpec,
    names: Collection[str],
    target: Path,
    inference: InferenceOptions,
    runtime: Runtime,
    *,
    more: tuple[Output, ...] = (),
) -> tuple[Report, tuple[str, ...]]:
    """Predict the named training cases into a folder, and score them; (Report, failures as sentences).

    ``more`` are additional outputs.
    """
    ending, cases = label_ending(spec.file_ending), _cases_of(spec, names)
    step = Predict(str(model), target, (Labels(ending), *more), inference, device=runtime.device)
    done = predict_cohort(step, cases, engine=LocalEngine(), on_done=runtime.progress("predict", len(cases)))
    references = {case.id: case.label for case in cases if case.label is not None}
    lesions = LesionRule(spec.lesions) if spec.lesions else None
    engine, annotation = LocalEngine(runtime.workers), Annotation(lesions, {case.id: case.unlabelled for case in cases})
    report = evaluate_folder(references, target, spec.labels, ending=ending, engine=engine, annotation=annotation)
    write_report(report, target)
    return report, all_failures(done, report)


def predict_shard(
    model: Path,
    spec: DatasetSpec,
    names: Collection[str],
    target: Path,
    inference: InferenceOptions,
    runtime: Runtime,
    *,
    shard: tuple[int, int],
    more: tuple[Output, ...] = (),
) -> None:
    """Predict the i-th of N shards of these cases. ``predict_and_score`` then finds them done, and writes the record of all."""
    outputs = (Labels(label_ending(spec.file_ending)), *more)
    step = Predict(str(model), target, outputs, inference, device=runtime.device, shard=shard)
    predict_cohort(step, _cases_of(spec, names), engine=LocalEngine())
    step.run_file.unlink(missing_ok=True)


def _cases_of(spec: DatasetSpec, names: Collection[str]) -> list[Case]:
    wanted = set(names)
    return [case for case in spec.training if case.id in wanted]
