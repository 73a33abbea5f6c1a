"""Two configurations as one model: the means of their logits, on the network's grid where they share one, else on the scan's.

Each fold of the one goes with the fold of the same name of the other, which held back the same cases, so an ensemble is
cross-validated as a single configuration is. It costs what both cost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autoseg.data.dataset import DatasetSpec
from autoseg.errors import ModelError
from autoseg.evaluation.calibration import calibrate, together
from autoseg.evaluation.comparison import Method
from autoseg.evaluation.report import Report
from autoseg.inference.bundle import Bundle, copy_bundle, identity_of, load_bundle
from autoseg.names import remove_folder
from autoseg.options import InferenceOptions, Runtime
from autoseg.outputs.calibration import CalibrationSamples, read_samples
from autoseg.studies.configuration import CrossValidated, files_of
from autoseg.studies.crossval import merge_reports
from autoseg.studies.method import scores_of
from autoseg.studies.scoring import predict_and_score
from autoseg.studies.shipping import only_folds
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
    """Whether scans are prepared alike and seen in windows of one size, so that logits can be averaged voxel by voxel."""
    return all(getattr(one, name) == getattr(other, name) for name in GRID)


def ensemble_of(one: Bundle, other: Bundle) -> Bundle:
    """Both models as one in memory.

    Where they share a grid, the second one's folds are called such as ``0b``; else it is ``beside`` the first, which has folds
    of the same names.

    Raises:
        ModelError: one is a cascade, or both cannot be averaged for another reason.
    """
    if one.coarse or other.coarse:
        raise ModelError(f"{one.name} and {other.name}: an ensemble is of two models of one plan each, not of cascades")
    if not share_a_grid(one.plan, other.plan):
        return replace(one, beside=replace(other, info={}), info={})
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
        prepared: folder of the prepared cases of the first.
        folder: for the model of both and its predictions; what is done there is not done again.

    Raises:
        ModelError: as ``ensemble_of``; a model lacks a fold.
    """
    names = tuple(one.validation)
    both = ensemble_of(*(only_folds(load_bundle(each.model), names) for each in (one, other)))
    model = folder / "model"
    if (model / "model.json").is_file() and load_bundle(model).digest != identity_of(both):
        remove_folder(model, owner=folder)  # of other trainings
    bundle = copy_bundle(both, model)
    reports, drawn, failures = dict[Path, Report](), {}, list[str]()
    for fold, cases in one.validation.items():
        folds = (fold,) if bundle.beside else (fold, f"{fold}{SECOND}")
        inference, target = InferenceOptions(folds=folds), folder / f"fold_{fold}"
        more = (CalibrationSamples(None if bundle.beside else prepared),)
        report, failed = predict_and_score(model, spec, cases, target, inference, runtime, more=more)
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
        about=f"the mean of the logits of both, on the grid of {'the scan' if bundle.beside else 'their plans'}",
    )
