"""Augmentation: random changes of a patch to which a network should be invariant.

The parameters of a sample are first drawn from one ``numpy.random.Generator``, then applied. So a sample can be repeated,
and the size of the box is known before it is read: the patch itself for most samples, more only if a rotation or scaling
was drawn.

>>> setting = Setting(patch_size=(40, 56, 40), centre=(0.5,), unit=(0.2,), mirror_axes=(0, 1, 2))
>>> drawn = draw(rng, PRESETS["nnunet"], setting)         # doctest: +SKIP
>>> image, codes = read_box(centre, drawn.source_size)    # doctest: +SKIP
>>> image, codes = apply(image, codes, drawn)             # (C, 40, 56, 40), (40, 56, 40)  # doctest: +SKIP

A transform is a pair of functions, ``sample(rng, setting, **options)`` and ``apply(image, codes, **parameters)``. To add
one, write the pair and its line in ``AUGMENTATIONS``, then name it in a preset. ``sample`` returns None if there is
nothing to do. A transform that needs more than the patch returns ``source_size`` among its parameters and comes first.
Tensors may be on any device. Input tensors are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from autoseg.registry import Registry
from autoseg.training.augment import intensity, spatial
from autoseg.training.augment.presets import (
    DEGRADATIONS,
    PRESETS,
    Augmentation,
    Step,
    mirrored_only,
    step,
    with_degradations,
)
from autoseg.training.augment.spatial import initial_patch_size, rotation_limit

__all__ = [
    "AUGMENTATIONS",
    "PRESETS",
    "Augmentation",
    "Drawn",
    "Setting",
    "Step",
    "Transform",
    "apply",
    "apply_to_codes",
    "draw",
    "initial_patch_size",
    "mirrored_only",
    "rotation_limit",
    "split",
    "step",
    "with_degradations",
]


@dataclass(frozen=True)
class Setting:
    """Facts about the patches of a training run for the transforms.

    Attributes:
        patch_size: (z, y, x) of the result, voxels.
        centre, unit: per channel, mean and standard deviation that turn stored intensities into z-scores (a network's
            ``input_mean`` and ``input_std``).
        mirror_axes: those of (0, 1, 2) along which a patch may be flipped.
        spacing_mm: voxel spacing along (z, y, x).
    """

    patch_size: tuple[int, int, int]
    centre: tuple[float, ...] = (0.0,)
    unit: tuple[float, ...] = (1.0,)
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def channels(self) -> int:
        return len(self.centre)

    @property
    def in_plane(self) -> bool:
        """Whether the patch is too flat for transforms across its slices."""
        return spatial.is_flat(self.patch_size)


Parameters = dict[str, Any]
Moved = tuple[torch.Tensor, torch.Tensor]  # (image, codes)


class Transform(NamedTuple):
    """The two functions of a transform: one draws its parameters, the other applies them."""

    sample: Callable[..., Parameters | None]
    apply: Callable[..., Moved]


AUGMENTATIONS = Registry(
    "augmentation",
    {
        "affine": Transform(spatial.sample_affine, spatial.apply_affine),
        "mirror": Transform(spatial.sample_mirror, spatial.apply_mirror),
        "noise": Transform(intensity.sample_noise, intensity.apply_noise),
        "blur": Transform(intensity.sample_blur, intensity.apply_blur),
        "brightness": Transform(intensity.sample_brightness, intensity.apply_brightness),
        "contrast": Transform(intensity.sample_contrast, intensity.apply_contrast),
        "low_resolution": Transform(intensity.sample_low_resolution, intensity.apply_low_resolution),
        "thick_slices": Transform(intensity.sample_thick_slices, intensity.apply_thick_slices),
        "gamma": Transform(intensity.sample_gamma, intensity.apply_gamma),
    },
)


INTENSITIES = ("noise", "blur", "brightness", "contrast", "low_resolution", "thick_slices", "gamma")  # move no voxels


@dataclass(frozen=True)
class Drawn:
    """The parameters of one sample.

    Attributes:
        source_size: (z, y, x) of the box to read, centred on the patch. Each edge differs from the patch's by an even
            number, so the box begins ``(source - patch) / 2`` voxels before the patch; this may be negative.
        steps: (name of a transform, its parameters), in order.
    """

    source_size: tuple[int, int, int]
    steps: tuple[tuple[str, Parameters], ...]


def draw(rng: np.random.Generator, preset: Augmentation, setting: Setting) -> Drawn:
    """Draw the parameters of one sample.

    Args:
        rng: ``numpy.random.Generator``, the only source of randomness.
        preset: ``Augmentation``.
        setting: ``Setting``.
    """
    steps = []
    for entry in _happening(rng, preset):
        parameters = AUGMENTATIONS[entry.transform].sample(rng, setting, **dict(entry.options))
        if parameters is not None:
            steps.append((entry.transform, parameters))
    sizes = [parameters["source_size"] for _, parameters in steps if "source_size" in parameters]
    return Drawn(sizes[0] if sizes else setting.patch_size, tuple(steps))


def _happening(rng: np.random.Generator, preset: Augmentation) -> Iterator[Step]:
    """Draw the steps of a sample."""
    for entry in preset.steps:
        if rng.random() < entry.probability:
            yield entry
    if preset.one_of:
        chances = [entry.probability for entry in preset.one_of]
        chosen = rng.choice(len(chances) + 1, p=[*chances, 1 - sum(chances)])
        yield from preset.one_of[chosen : chosen + 1]


def split(drawn: Drawn) -> tuple[Drawn, Drawn]:
    """(clean, degraded): the steps before the first degradation, and the rest, as two ``Drawn`` to apply one after the other.

    For steps from ``with_degradations``, none of which changes the size.
    """
    names = [name for name, _ in drawn.steps]
    first = next((i for i, name in enumerate(names) if name in DEGRADATIONS), len(names))
    return replace(drawn, steps=drawn.steps[:first]), replace(drawn, steps=drawn.steps[first:])


def apply_to_codes(codes: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Apply the spatial steps of a sample to other codes (*source_size): (*patch_size)."""
    image = torch.zeros((1, *codes.shape))
    for name, parameters in drawn.steps:
        if name not in INTENSITIES:
            image, codes = AUGMENTATIONS[name].apply(image, codes, **parameters)
    return codes


def apply(image: torch.Tensor, codes: torch.Tensor, drawn: Drawn) -> Moved:
    """Transform image (C, *source_size) float and codes (*source_size) int16: (C, *patch_size), (*patch_size)."""
    for name, found in (("image", image.shape[1:]), ("codes", codes.shape)):
        if tuple(found) != drawn.source_size:
            raise ValueError(f"{name}: expected a box of {drawn.source_size}, as was drawn; found {tuple(found)}")
    for name, parameters in drawn.steps:
        image, codes = AUGMENTATIONS[name].apply(image, codes, **parameters)
    return image, codes
