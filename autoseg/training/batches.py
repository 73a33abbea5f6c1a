"""Patches of prepared cases, augmented and stacked: one batch per step.

Batch number ``step`` is drawn from a generator seeded with (seed, step), so it is the same batch whichever thread makes it, and
after whatever interruption. The augmentation of a sample is drawn before its voxels are read: only a sample that is turned
or scaled reads more than its patch.

Where the image is to be restored, it is copied after all that moves voxels or changes the scale of intensities (neither can
be undone) and before all that degrades it. Voxels beyond the scan have a code of their own on that way, so that they
are known whatever moved them.
"""

import numpy as np
import torch

from autoseg.preprocess.normalize import outside_value
from autoseg.training.augment import PRESETS, Setting, apply, draw, split, with_degradations
from autoseg.training.recipe import patch_stage
from autoseg.training.sampling import draw_centre, forced_foreground, read_block

__all__ = ["make_batch"]

BEYOND = -2  # code of voxels beyond the scan, while a sample is made


def make_batch(cases, plan, recipe, labels, seed, step, fraction):
    """The batch of one step.

    Args:
        cases: list of StoredCase to draw from, uniformly and with replacement.
        plan: Plan.
        recipe: Recipe with its batch size settled.
        labels: LabelSchema.
        seed, step: what the batch is drawn from.
        fraction: share of the training that is over, for the stage of the patch size.

    Returns:
        (images (B, C, Z, Y, X) float32, codes (B, Z, Y, X) int16), CPU tensors. In the steps that teach restoration two
        more: the images before they were degraded, in [0, 1], NaN beyond the scan, and (B, 3) how many voxels their slices are
        thick along (z, y, x).
    """
    rng = np.random.default_rng([seed, step])
    patch, factor = patch_stage(recipe, fraction, plan.patch_size, plan.network.divisor)
    size = recipe.batch_size * factor
    outside = outside_value(plan.normalization)
    setting = Setting(
        patch_size=patch,
        centre=tuple(how.input_mean for how in plan.normalization),
        unit=tuple(how.input_std for how in plan.normalization),
        mirror_axes=plan.mirror_axes,
        spacing_mm=plan.spacing_mm,
    )
    preset = PRESETS[recipe.augmentation]
    restores = recipe.restoration_weight > 0 and step % recipe.restoration_every == 0
    if restores:
        preset = with_degradations(preset)
    samples = []
    for position in range(size):
        case = cases[rng.integers(len(cases))]
        drawn = draw(rng, preset, setting)
        foreground = forced_foreground(position, size, recipe.foreground)
        centre = draw_centre(rng, case, patch, labels.structure_codes, foreground)
        block = read_block(case, centre, drawn.source_size, outside, BEYOND if restores else 0)
        image, codes = map(torch.from_numpy, block)
        samples.append(_with_clean(image, codes, drawn) if restores else apply(image, codes, drawn))
    return tuple(torch.stack(tensors) for tensors in zip(*samples, strict=True))


def _with_clean(image, codes, drawn):
    """(degraded image, codes, clean image, thickness of its slices) of one sample."""
    before, after = split(drawn)
    image, codes = apply(image, codes, before)
    beyond = codes == BEYOND
    clean = image.clamp(0, 1).masked_fill(beyond, torch.nan)
    slices = torch.ones(3)
    for name, parameters in after.steps:
        if name == "thick_slices":
            slices[parameters["axis"]] = parameters["factor"]
    return *apply(image, codes.masked_fill(beyond, 0), after), clean, slices
