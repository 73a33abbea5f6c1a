"""Patches of prepared cases, augmented and stacked: one batch per step.

Batch number ``step`` is drawn from a generator seeded with (seed, step), so it is the same batch whichever thread makes it, and
after whatever interruption. The augmentation of a sample is drawn before its voxels are read: only a sample that is turned
or scaled reads more than its patch.
"""

import numpy as np
import torch

from autoseg.preprocess.normalize import outside_value
from autoseg.training.augment import PRESETS, Setting, apply, draw
from autoseg.training.recipe import patch_stage
from autoseg.training.sampling import draw_centre, forced_foreground, read_block

__all__ = ["make_batch"]


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
        (images (B, C, Z, Y, X) float32, codes (B, Z, Y, X) int16), CPU tensors.
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
    )
    samples = []
    for position in range(size):
        case = cases[rng.integers(len(cases))]
        drawn = draw(rng, PRESETS[recipe.augmentation], setting)
        foreground = forced_foreground(position, size, recipe.foreground)
        centre = draw_centre(rng, case, patch, labels.structure_codes, foreground)
        image, codes = read_block(case, centre, drawn.source_size, outside)
        samples.append(apply(torch.from_numpy(image), torch.from_numpy(codes), drawn))
    images, codes = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(codes)
