"""A coarser grid, for data whose full-resolution patch covers too little of the body to show its position."""

import math
from dataclasses import dataclass, replace

from planners.assemble import make_plan
from planners.axes import triple
from planners.fingerprint import Fingerprint
from planners.patch import Fit, fit_patch
from planners.plan import Budget, Decision, Plan
from planners.presets import Preset
from planners.spacing import Grid, choose_grid, say

__all__ = ["Resolutions", "choose_resolutions", "pays_off", "plan_lowres"]

ENOUGH = 0.25  # fraction of the median case's voxels in a patch; nnU-Net
STEP = 1.03  # growth of the spacing per trial; nnU-Net
NEAR = 2.0  # axes finer than the coarsest by more than this grow first; nnU-Net
WORTHWHILE = 2.0  # times fewer voxels than the full grid, else the plan is dropped; nnU-Net


@dataclass(frozen=True)
class Resolutions:
    """The full and the low resolution of a data set, each with its grid and its ``Fit``. They may be the same.

    ``about_full`` says how the full grid was found, ``about_low`` whether the low one pays off.
    """

    full: Grid
    full_fit: Fit
    low: Grid
    low_fit: Fit
    about_full: tuple[Decision, ...]
    about_low: Decision


def choose_resolutions(fingerprint: Fingerprint, budget: Budget, preset: Preset) -> Resolutions:
    """Both resolutions. Starting from the full one, the spacing grows until a patch covers a quarter of the median case."""
    full, decisions = choose_grid(fingerprint)
    full_fit = fit_patch(fingerprint, budget, preset, full)
    low, fit, voxels = full, full_fit, math.prod(full.median_shape)
    while math.prod(fit.patch) / voxels < ENOUGH:
        low, voxels = _coarser(full, low.spacing_mm, len(fingerprint.cases))
        fit = fit_patch(fingerprint, budget, preset, low)
    return Resolutions(full, full_fit, low, fit, decisions, _explain(full, full_fit, low))


def pays_off(full: Grid | Plan, low: Grid | Plan) -> bool:
    """Whether the coarser grid (or plan) has so few voxels that training on it as well is worthwhile."""
    return _reduction(full, low) >= WORTHWHILE


def plan_lowres(fingerprint: Fingerprint, budget: Budget, preset: Preset) -> Plan:
    """A 3D plan on a coarser grid.

    If it does not pay off, the plan is returned with a warning; it is then nearly or exactly the full-resolution plan.
    """
    found = choose_resolutions(fingerprint, budget, preset)
    verdict = replace(found.about_low, warning=not pays_off(found.full, found.low))
    return make_plan(
        "lowres_3d",
        fingerprint,
        budget,
        preset,
        found.low,
        found.low_fit,
        batch_dice=Decision("batch Dice", "no", "a patch of low resolution sees much of the case"),
        decisions=(*found.about_full, verdict),
    )


def _explain(full: Grid, fit: Fit, low: Grid) -> Decision:
    """The decision whether there is a low-resolution plan. ``fit`` is the ``Fit`` of full resolution."""
    share = math.prod(fit.patch) / math.prod(full.median_shape)
    return Decision(
        "low resolution",
        f"pays off, at {say(low.spacing_mm)} mm" if pays_off(full, low) else "does not pay off",
        f"where a patch covers less than {ENOUGH:.0%} of the median case, the spacing grows until it covers that; kept "
        f"if the case then has {WORTHWHILE:g} times fewer voxels or more",
        f"patch / median case {share:.1%}, voxels fewer by a factor {_reduction(full, low):.3g}",
    )


def _coarser(full: Grid, spacing_mm: tuple[float, float, float], n_cases: int) -> tuple[Grid, float]:
    """The next grid, and the voxels of its median case before rounding."""
    fine = [max(spacing_mm) / mm > NEAR for mm in spacing_mm]
    spacing = triple(mm * STEP if grows or not any(fine) else mm for mm, grows in zip(spacing_mm, fine, strict=True))
    shape = [n * before / mm for n, before, mm in zip(full.median_shape, full.spacing_mm, spacing, strict=True)]
    rounded = triple(float(max(1, round(n))) for n in shape)
    voxels = math.prod(shape)
    return replace(full, spacing_mm=spacing, median_shape=rounded, n_voxels=voxels * n_cases), voxels


def _reduction(full: Grid | Plan, low: Grid | Plan) -> float:
    """By what factor the coarse grid has fewer voxels, computed from the spacings, because the coarse shape is rounded."""
    return math.prod(low.spacing_mm) / math.prod(full.spacing_mm)
