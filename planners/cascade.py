"""The fine stage of a cascade: full resolution, with the labels predicted on a coarser grid as additional input channels."""

from dataclasses import replace

from planners.fingerprint import Fingerprint
from planners.fullres import plan_fullres
from planners.lowres import choose_resolutions, pays_off
from planners.plan import Budget, CoarseLabels, Decision, Plan
from planners.presets import Preset

__all__ = ["COARSE_PLAN", "plan_cascade"]

COARSE_PLAN = "lowres_3d"  # plan of the coarse stage


def plan_cascade(fingerprint: Fingerprint, budget: Budget, preset: Preset) -> Plan:
    """The full-resolution plan, whose network also reads the labels predicted by ``lowres_3d``, one channel for each.

    If no coarser grid pays off, the plan is returned with a warning.
    """
    plan = plan_fullres(fingerprint, budget, preset)
    found = choose_resolutions(fingerprint, budget, preset)
    count = fingerprint.label_values or len(fingerprint.structures)
    network = replace(
        plan.network,
        in_channels=plan.network.in_channels + count,
        input_mean=(*plan.network.input_mean, *(0.0,) * count),
        input_std=(*plan.network.input_std, *(1.0,) * count),
    )
    decision = Decision(
        "cascade",
        f"{count} coarse labels beside the image",
        f"what {COARSE_PLAN} says of the whole scan tells a patch where it is; that needs a low resolution that pays off",
        found.about_low.numbers,
        warning=not pays_off(found.full, found.low),
    )
    return replace(
        plan,
        name="cascade_3d",
        planner="cascade_3d",
        network=network,
        coarse=CoarseLabels(COARSE_PLAN, count),
        decisions=(*plan.decisions, decision),
    )
