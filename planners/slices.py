"""2D: patches of depth 1 in the plane of the finer axes. Each scan keeps its distance between slices."""

from planners.assemble import make_plan
from planners.fingerprint import Fingerprint
from planners.patch import fit_patch
from planners.plan import Budget, Decision, Plan
from planners.presets import Preset
from planners.spacing import choose_grid, say

__all__ = ["plan_slices"]


def plan_slices(fingerprint: Fingerprint, budget: Budget, preset: Preset) -> Plan:
    """A plan for single slices.

    Args:
        fingerprint: ``Fingerprint``.
        budget: ``Budget``.
        preset: ``Preset``.

    Returns:
        Plan. ``spacing_mm[0]`` is the typical distance of slices; nothing is resampled along that axis.
    """
    grid, decisions = choose_grid(fingerprint)
    fit = fit_patch(fingerprint, budget, preset, grid, slices=True)
    plane = Decision(
        "slices",
        f"in-plane {say(grid.spacing_mm[1:])} mm",
        "a patch is one voxel deep; scans are not resampled from slice to slice",
    )
    return make_plan(
        "slices_2d",
        fingerprint,
        budget,
        preset,
        grid,
        fit,
        batch_dice=Decision("batch Dice", "yes", "single slices often lack a structure"),
        decisions=(*decisions, plane),
    )
