"""The default planner: a 3D network at the full resolution of the data set."""

from planners.assemble import make_plan
from planners.fingerprint import Fingerprint
from planners.lowres import coarsen, explain_lowres, pays_off
from planners.patch import fit_patch
from planners.plan import Budget, Decision, Plan
from planners.presets import Preset
from planners.spacing import choose_grid, is_flat, say

__all__ = ["plan_fullres"]


def plan_fullres(fingerprint: Fingerprint, budget: Budget, preset: Preset) -> Plan:
    """A 3D plan on the target grid of the data set.

    2D data get a plan too, with patches of depth 1 and a warning.

    Args:
        fingerprint: ``Fingerprint``.
        budget: ``Budget``.
        preset: ``Preset``.

    Returns:
        Plan
    """
    grid, decisions = choose_grid(fingerprint)
    fit = fit_patch(fingerprint, budget, preset, grid)
    coarse, _ = coarsen(fingerprint, budget, preset, grid, fit)
    if is_flat(fingerprint):
        rule = "the typical case is a single slice: slices_2d plans for such data"
        numbers = f"median case {say(grid.median_shape)} voxels"
        decisions += (Decision("3D for 2D data", "patches of depth 1", rule, numbers, warning=True),)
    return make_plan(
        "fullres_3d",
        fingerprint,
        budget,
        preset,
        grid,
        fit,
        batch_dice=_batch_dice(pays_off(grid, coarse)),
        decisions=(*decisions, explain_lowres(grid, fit, coarse)),
    )


def _batch_dice(has_lowres: bool) -> Decision:
    """Patches that see a small part of the body often lack a structure; a Dice of their own would then be noise."""
    rule = "pooled over the batch where patches see so little of a case that a low-resolution plan pays off"
    return Decision("batch Dice", "yes" if has_lowres else "no", rule)
