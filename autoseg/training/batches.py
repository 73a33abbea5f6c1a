"""Patches of prepared cases, augmented and stacked: one batch per step.

Batch number ``step`` is drawn from a generator seeded with (seed, step), so it is the same batch in any thread and after any
interruption. If several devices train together, each has its own random numbers and its own batch; or all draw the same
batch, and each makes its part of the samples. The augmentation of a sample is drawn before its voxels are read, so only a
sample that is rotated or scaled reads more than its patch.

Restoration is trained with small patches of its own. They are drawn after those of the segmentation, which are the same with
and without them. The clean copy of such a patch is made after the changes of intensity scale, which cannot be undone, and
before the degradation. Meanwhile voxels outside the scan have a code of their own, so that they can be recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from autoseg.data.labels import LabelSchema
from autoseg.preprocess.case import one_hot
from autoseg.preprocess.cases import TrainingCase
from autoseg.preprocess.normalize import outside_value
from autoseg.training.augment import (
    PRESETS,
    Augmentation,
    Drawn,
    Setting,
    apply,
    apply_to_codes,
    draw,
    mirrored_only,
    split,
    with_degradations,
)
from autoseg.training.augment.coarse import Corruption, corrupt, draw_corruption
from autoseg.training.batch import Batch, Lesson
from autoseg.training.recipe import Recipe, patch_stage
from autoseg.training.sampling import draw_centre, forced_foreground, read_block, read_codes
from planners.plan import Plan

__all__ = ["Share", "make_batch", "restored_patch"]

BEYOND = -2  # code of voxels outside the scan, while a sample is made
RESTORED_EDGE = 32  # edge of a restoration patch in voxels: many small patches train better than few large ones
RESTORED_EDGE_2D = 128

Finish = Callable[[torch.Tensor, torch.Tensor, Drawn], tuple[torch.Tensor, ...]]  # (image, codes, drawn) -> of a sample


@dataclass(frozen=True)
class Share:
    """The samples that device ``index`` of ``count`` makes in each step, from random numbers of ``seed``: every ``count``-th
    sample of one batch if the batch is ``divided``, else a whole batch of its own."""

    seed: int
    index: int = 0
    count: int = 1
    divided: bool = False

    def numbers(self, step: int) -> np.random.Generator:
        """Random numbers of a step. The first device has those of a training run on one device."""
        own = () if self.divided or not self.index else (self.index,)
        return np.random.default_rng([self.seed, step, *own])

    def has(self, position: int) -> bool:
        """Whether this device makes the sample at a position of the batch."""
        return not self.divided or position % self.count == self.index


def make_batch(
    cases: Sequence[TrainingCase],
    plan: Plan,
    recipe: Recipe,
    labels: LabelSchema,
    seed: int | Share,
    step: int,
    fraction: float,
    augmentation_free: bool = False,
    device: torch.device | str = "cpu",
) -> Batch:
    """The batch of one step.

    Args:
        cases: cases to draw from, uniformly and with replacement.
        recipe: Recipe with its batch size settled.
        seed, step: seed of the random numbers; a Share in place of the seed if several devices train together.
        fraction: completed fraction of the training run, for the stage of the patch-size curriculum.
        augmentation_free: samples of the segmentation are only mirrored.
        device: where samples are augmented; noise differs between kinds of devices.

    Returns:
        The Batch, on ``device``, with a lesson in the steps that train restoration.
    """
    assert recipe.batch_size, "the batch size is settled"
    share = seed if isinstance(seed, Share) else Share(seed)
    rng = share.numbers(step)
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

    every = labels.structure_codes
    lacking: list[tuple[int, ...]] = []  # of each segmentation sample

    coarse: list[torch.Tensor] = []  # of each segmentation sample, if there is a coarse stage
    disturbed = bool(preset.steps) and not augmentation_free

    def samples(preset: Augmentation, setting: Setting, filling: int, finish: Finish) -> list[torch.Tensor]:
        """The samples of this share, of ``size``; ``filling`` is the code outside the scan."""
        made = []
        for position in range(size):
            case = cases[int(rng.integers(len(cases)))]
            drawn = draw(rng, preset, setting)
            foreground = forced_foreground(rng, position, size, recipe.foreground)
            disturbance = draw_corruption(rng, plan.coarse.count) if plan.coarse and disturbed else Corruption()
            left_out = set(case.unlabelled)
            groups = [codes for n, codes in enumerate(every) if n not in left_out]
            centre = draw_centre(rng, case, setting.patch_size, groups, foreground)
            if not share.has(position):
                continue
            lacking.append(case.unlabelled)
            block = read_block(case, centre, drawn.source_size, outside, filling)
            image, codes = (torch.from_numpy(array).to(device) for array in block)
            made.append(finish(image, codes, drawn))
            if plan.coarse:
                coarse.append(_coarse_channels(case, centre, drawn, plan.coarse.count, disturbance))
        return [torch.stack(tensors) for tensors in zip(*made, strict=True)]

    images, codes = samples(mirrored_only(preset) if augmentation_free else preset, setting, 0, apply)
    if coarse:
        images = torch.cat([images, torch.stack(coarse).to(images)], dim=1)
    unlabelled = _table(lacking, len(labels.structures), device) if any(case.unlabelled for case in cases) else None
    if not recipe.restoration_weight or step % recipe.restoration_every:
        return Batch(images, codes, unlabelled=unlabelled)
    small = replace(setting, patch_size=restored_patch(plan.patch_size, plan.network.divisor))
    return Batch(images, codes, Lesson(*samples(with_degradations(preset), small, BEYOND, _degraded)), unlabelled)


def _table(lacking: Sequence[Sequence[int]], structures: int, device: torch.device | str) -> torch.Tensor:
    """(samples, structures) bool, from the indices of structures for each sample."""
    table = np.zeros((len(lacking), structures), bool)
    for row, numbers in zip(table, lacking, strict=True):
        row[list(numbers)] = True
    return torch.from_numpy(table).to(device)


def _coarse_channels(case: TrainingCase, centre: np.ndarray, drawn: Drawn, count: int, disturbance: Corruption) -> torch.Tensor:
    """(count, *patch_size) float32: the labels of the coarse stage for a sample, corrupted."""
    codes = torch.from_numpy(read_codes(case.coarse, centre, drawn.source_size))
    channels = corrupt(one_hot(apply_to_codes(codes, drawn).numpy(), count), disturbance)
    return torch.from_numpy(channels.astype(np.float32))


def restored_patch(patch: Sequence[int], divisor: Sequence[int]) -> tuple[int, int, int]:
    """(z, y, x) of the restoration patches: no edge much longer than ``RESTORED_EDGE``, each a multiple of ``divisor``."""
    most = RESTORED_EDGE if patch[0] > 1 else RESTORED_EDGE_2D
    z, y, x = (min(edge, -(-most // step) * step) for edge, step in zip(patch, divisor, strict=True))
    return z, y, x


def _degraded(image: torch.Tensor, codes: torch.Tensor, drawn: Drawn) -> tuple[torch.Tensor, ...]:
    """(degraded image, clean image, slice thickness) of one sample."""
    before, after = split(drawn)
    image, codes = apply(image, codes, before)
    clean = image.clamp(0, 1).masked_fill(codes == BEYOND, torch.nan)
    slices = torch.ones(3)
    for name, parameters in after.steps:
        if name == "thick_slices":
            slices[parameters["axis"]] = parameters["factor"]
    return apply(image, codes, after)[0], clean, slices
