"""The default planner: a 3D network at the full resolution of the data set."""

from planners.assemble import make_plan
from planners.fingerprint import Fingerprint
from planners.lowres import choose_resolutions, pays_off
from planners.plan import Budget, Decision, Plan
from planners.presets import Preset
from planners.spacing import is_flat, say

__all__ = ["plan_fullres"]


def plan_fullres(fingerprint: Fingerprint, budget: Budget, preset: Preset) -> Plan:
    """A 3D plan on the target grid of the data set.

    2D data also get a plan, with patches of depth 1 and a warning.
    """
    found = choose_resolutions(fingerprint, budget, preset)
    decisions = found.about_full
    if is_flat(fingerprint):
        rule = "the typical case is a single slice: slices_2d plans for such data"
        numbers = f"median case {say(found.full.median_shape)} voxels"
        decisions += (Decision("3D for 2D data", "patches of depth 1", rule, numbers, warning=True),)
    return make_plan(
        "fullres_3d",
        fingerprint,
        budget,
        preset,
        found.full,
        found.full_fit,
        batch_dice=_batch_dice(pays_off(found.full, found.low)),
        decisions=(*decisions, found.about_low),
    )


def _batch_dice(has_lowres: bool) -> Decision:
    """A patch that covers a small part of the body often lacks a structure; the Dice of that patch alone would be noise."""
    rule = "pooled over the batch where patches see so little of a case that a low-resolution plan pays off"
    return Decision("batch Dice", "yes" if has_lowres else "no", rule)
