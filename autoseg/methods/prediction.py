"""What predictions say in a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoseg.methods.decisions import AXES
from autoseg.methods.statement import NOTHING, Statement, joined, number
from autoseg.records import CohortRecord, ModelAbout

__all__ = ["predicted"]


def predicted(record: CohortRecord, model: ModelAbout | None) -> tuple[Statement, ...]:
    """How a folder of scans was predicted."""
    options = record.options
    done = sum(case.status in ("done", "skipped") for case in record.cases)
    failed = f"; {len(record.failures)} could not be predicted" if record.failures else ""
    numbers = {"fp32": "single precision", "bf16": "bfloat16"}.get(record.precision, record.precision)
    where = f"on {record.device} in {numbers}" if record.device else ""
    return (
        Statement(f"{done} {'case was' if done == 1 else 'cases were'} predicted {where}".rstrip() + f"{failed}."),
        _folds(options.get("folds")),
        _windows(options),
        _mirrored(options.get("mirror_axes")),
        _decision(record),
        _temperatures(model),
        _postprocessing(options, model),
        _surfaces(options.get("export")),
    )


def _folds(folds: Any) -> Statement:
    if not isinstance(folds, list) or len(folds) < 2:
        return NOTHING
    return Statement(f"Logits of {len(folds)} networks, one for each fold, were averaged.", ("isensee2021nnunet",))


def _windows(options: Mapping[str, Any]) -> Statement:
    step = options.get("step")
    if not isinstance(step, int | float):
        return NOTHING
    adaptive, doubt = "", options.get("windows")
    if isinstance(doubt, dict):
        limits = ", ".join(f"{name} {number(value)}" for name, value in doubt.items() if isinstance(value, int | float))
        adaptive = f" Overlapping windows were computed only where the first pass left doubt ({limits})."
    told = f"A window of the size of the training patches was moved in steps of the fraction {number(step)} of its edges, "
    return Statement(f"{told}and overlapping logits were weighted by a Gaussian.{adaptive}", ("isensee2021nnunet",))


def _mirrored(axes: Any) -> Statement:
    if not isinstance(axes, list) or not axes:
        return Statement("There was no test-time augmentation.")
    along = joined(AXES[axis] for axis in axes)
    return Statement(f"Test-time augmentation averaged all mirrorings along the {along} axis.", ("isensee2021nnunet",))


def _decision(record: CohortRecord) -> Statement:
    """How probabilities become labels."""
    if record.labels is None:
        return NOTHING
    if record.labels.has_regions:
        return Statement("A voxel belongs to a region where its probability exceeds one half; regions may overlap.")
    return Statement("A voxel takes the label of the highest probability.")


def _temperatures(model: ModelAbout | None) -> Statement:
    if model is None or not model.temperatures:
        return NOTHING
    values = joined(map(number, model.temperatures))
    return Statement(f"Probabilities were calibrated by temperature scaling, with {values}.", ("guo2017calibration",))


def _postprocessing(options: Mapping[str, Any], model: ModelAbout | None) -> Statement:
    if model is None or not model.postprocessing or options.get("postprocess") is False:
        return NOTHING
    return Statement(f"Post-processing of the labels: {joined(model.postprocessing)}.")


def _surfaces(export: Any) -> Statement:
    how = export.get("reconstruction") if isinstance(export, dict) else None
    if not isinstance(how, dict) or not how.get("formats"):
        return NOTHING
    told = "Surfaces were extracted by marching cubes and smoothed by Taubin's filter"
    cites = ("lorensen1987marching", "taubin1995fair")
    if not how.get("decimate"):
        return Statement(f"{told}.", cites)
    share = number(how["decimate"])
    return Statement(f"{told}; the fraction {share} of their triangles was removed.", (*cites, "garland1997quadric"))
