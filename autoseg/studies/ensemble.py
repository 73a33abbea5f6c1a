"""Two configurations as one model: the means of their logits, where they share a grid.

Each fold of the one goes with the fold of the same name of the other, which held back the same cases, so an ensemble is
cross-validated as a single configuration is. It costs what both cost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autoseg.data.dataset import DatasetSpec
from autoseg.evaluation.calibration import calibrate, together
from autoseg.evaluation.comparison import Method
from autoseg.evaluation.report import Report
from autoseg.inference.bundle import Bundle, copy_bundle, load_bundle
from autoseg.options import InferenceOptions, Runtime
from autoseg.outputs.calibration import CalibrationSamples, read_samples
from autoseg.studies.configuration import CrossValidated, files_of
from autoseg.studies.crossval import merge_reports
from autoseg.studies.method import scores_of
from autoseg.studies.scoring import predict_and_score
from planners.plan import Plan

__all__ = ["cross_validate_ensemble", "ensemble_of", "share_a_grid"]

SECOND = "b"  # after the name of a fold of the second one
GRID = (  # what a plan says of the grid and of the way to it and back
    "axis_order",
    "spacing_mm",
    "patch_size",
    "normalization",
    "resampling",
    "mirror_axes",
    "orientation",
    "window_peak",
)


def share_a_grid(one: Plan, other: Plan) -> bool:
    """Whether scans are prepared alike and seen in windows of one size, so that logits can be averaged voxel by voxel.

    Cascades do not: the fine stage of each reads what its own coarse stage says.
    """
    return not (one.coarse or other.coarse) and all(getattr(one, name) == getattr(other, name) for name in GRID)


def ensemble_of(one: Bundle, other: Bundle) -> Bundle:
    """Both models as one in memory; the second one's folds are called such as ``0b``. They share a grid."""
    second = {f"{fold}{SECOND}": fold for fold in other.folds}
    return replace(
        one,
        folds={**one.folds, **{name: other.folds[fold] for name, fold in second.items()}},
        learned_from={**one.learned_from, **{name: other.learned_from.get(fold, ()) for name, fold in second.items()}},
        networks={**one.networks, **{name: other.network_of(fold) for name, fold in second.items()}},
        info={},
    )


def cross_validate_ensemble(
    one: CrossValidated, other: CrossValidated, spec: DatasetSpec, prepared: Path, folder: Path, runtime: Runtime
) -> CrossValidated:
    """Predict and score all cases by both models' folds that did not see them.

    Args:
        prepared: folder of the prepared cases.
        folder: for the model of both and its predictions; what is done there is not done again.
    """
    bundle = copy_bundle(ensemble_of(load_bundle(one.model), load_bundle(other.model)), folder / "model")
    reports, drawn, failures = dict[Path, Report](), {}, list[str]()
    for fold, cases in one.validation.items():
        inference, target = InferenceOptions(folds=(fold, f"{fold}{SECOND}")), folder / f"fold_{fold}"
        more = (CalibrationSamples(prepared),)
        report, failed = predict_and_score(folder / "model", spec, cases, target, inference, runtime, more=more)
        reports[target] = report
        failures += failed
        samples = [read_samples(target, case, spec.labels) for case in report.cases]
        if sum(len(found.logits) for found in samples):
            drawn[fold] = together(samples)
    whole, name = merge_reports(list(reports.values())), f"{one.name} and {other.name}"
    return CrossValidated(
        name=name,
        model=Path(bundle.name),
        report=whole,
        method=Method(name, scores_of(whole), failures=tuple(failures)),
        operations_per_ml=one.operations_per_ml + other.operations_per_ml,
        validation=one.validation,
        files=files_of(spec, reports),
        calibration=calibrate(drawn, spec.labels.structures) if len(drawn) > 1 else None,
    )
