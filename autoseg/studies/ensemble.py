"""Two configurations as one model: their logits are averaged, on the network's grid if they share one, else on the scan's.

Each fold of the first is combined with the fold of the same name of the second, which has the same validation cases. So an
ensemble is cross-validated like a single configuration. Its cost is the sum of both.
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

SECOND = "b"  # suffix of the folds of the second configuration
GRID = (  # fields of a plan about the grid and the transforms to it and back
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
    """Whether preprocessing and window size are the same, so that logits can be averaged voxel by voxel."""
    return all(getattr(one, name) == getattr(other, name) for name in GRID)


def ensemble_of(one: Bundle, other: Bundle) -> Bundle:
    """Both models as one in memory.

    If they share a grid, the folds of the second are named like ``0b``; else it is ``beside`` the first, with folds of the
    same names.

    Raises:
        ModelError: one is a cascade, or they cannot be averaged for another reason.
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
    """Predict and score all cases with the folds of both models that were not trained on them.

    Args:
        prepared: folder of the prepared cases of the first.
        folder: for the ensemble model and its predictions; finished parts are not repeated.

    Raises:
        ModelError: as ``ensemble_of``; a model lacks a fold.
    """
    names = tuple(one.validation)
    both = ensemble_of(*(only_folds(load_bundle(each.model), names) for each in (one, other)))
    model = folder / "model"
    if (model / "model.json").is_file() and load_bundle(model).digest != identity_of(both):
        remove_folder(model, owner=folder)  # it comes from other training runs
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
    whole, name = merge_reports(list(reports.values())), f"ensemble {one.name} + {other.name}"
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
