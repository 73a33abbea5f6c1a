"""Assembles a ``Plan`` from its parts. Holds the rules that all planners share once grid, patch and batch are chosen."""

import math
from collections.abc import Iterable
from dataclasses import replace

from planners.channels import choose_normalization
from planners.fingerprint import Fingerprint
from planners.mirror import choose_mirror_axes
from planners.patch import Fit, explain_fit
from planners.plan import Budget, Decision, Plan, Resampling
from planners.presets import Preset
from planners.records import digest
from planners.spacing import Grid

__all__ = ["make_plan"]

PASSES = 100  # over the data's voxels in a training run: README.md, "Length of a training run"
LEAST_ITERATIONS, MOST_ITERATIONS = 10_000, 250_000  # the upper end is nnU-Net's 1000 epochs of 250


def make_plan(
    name: str,
    fingerprint: Fingerprint,
    budget: Budget,
    preset: Preset,
    grid: Grid,
    fit: Fit,
    *,
    batch_dice: Decision,
    decisions: Iterable[Decision],
) -> Plan:
    """Assemble a plan.

    Args:
        name: of the plan and its planner.
        grid, fit: ``Grid`` and ``Fit``.
        batch_dice: ``Decision`` whose ``chosen`` is 'yes' or 'no'.
        decisions: about the grid, and any others that the planner adds.

    Returns:
        Plan
    """
    normalization, intensity = choose_normalization(fingerprint, parity=budget.parity)
    structures = () if budget.parity else fingerprint.structures
    mirror_axes, mirroring = choose_mirror_axes(structures, grid.axis_order, fit.patch)
    iterations, length = _iterations(grid, fit, budget)
    resampling = Resampling(coarse_logits_order=0) if budget.parity else Resampling()
    return Plan(
        name=name,
        dataset=fingerprint.dataset,
        planner=name,
        preset=preset.name,
        axis_order=grid.axis_order,
        spacing_mm=grid.spacing_mm,
        median_shape=grid.median_shape,
        patch_size=fit.patch,
        batch_size=fit.batch_size,
        batch_dice=batch_dice.chosen == "yes",
        normalization=normalization,
        resampling=resampling,
        mirror_axes=mirror_axes,
        iterations=iterations,
        network=replace(
            fit.network,
            input_mean=tuple(channel.input_mean for channel in normalization),
            input_std=tuple(channel.input_std for channel in normalization),
        ),
        memory_elements=fit.elements,
        decisions=(
            *decisions,
            *explain_fit(fit, grid, preset, budget),
            *intensity,
            _explain_resampling(resampling),
            mirroring,
            batch_dice,
            length,
        ),
        fingerprint_digest=digest(fingerprint),
    )


def _iterations(grid: Grid, fit: Fit, budget: Budget) -> tuple[int, Decision]:
    """(iterations, decision); the number is rounded to thousands."""
    if budget.parity:
        return MOST_ITERATIONS, Decision("iterations", f"{MOST_ITERATIONS}", "nnU-Net's 1000 epochs of 250")
    steps = grid.n_voxels / (fit.batch_size * math.prod(fit.patch))
    iterations = min(max(round(PASSES * steps / 1000) * 1000, LEAST_ITERATIONS), MOST_ITERATIONS)
    rule = f"{PASSES} passes through the data's voxels, between {LEAST_ITERATIONS} and {MOST_ITERATIONS}"
    return iterations, Decision("iterations", f"{iterations}", rule, f"one pass is {steps:.1f} batches")


def _explain_resampling(rule: Resampling) -> Decision:
    return Decision(
        "resampling",
        f"images by splines of order {rule.image_order}, labels {rule.label_order}, predictions {rule.logits_order}",
        f"neighbours along an axis more than {rule.coarse_ratio:g} times coarser than the finest are too far apart for "
        "splines: it is treated on its own",
        f"there orders {rule.coarse_image_order}, {rule.coarse_label_order} and {rule.coarse_logits_order}",
    )
