"""Transforms that change intensities and leave the codes unchanged.

Each is a pair of functions: ``sample_*`` draws the parameters, ``apply_*`` uses them and returns a new image. Strengths
are those of nnU-Net and refer to z-scored images. ``setting.centre`` and ``setting.unit`` are the mean and standard
deviation of each channel, so stored intensities may be on any scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from autoseg.imaging.resample import axis_matrix

if TYPE_CHECKING:
    from autoseg.training.augment import Moved, Parameters, Setting

__all__ = [
    "apply_blur",
    "apply_brightness",
    "apply_contrast",
    "apply_gamma",
    "apply_low_resolution",
    "apply_noise",
    "apply_thick_slices",
    "sample_blur",
    "sample_brightness",
    "sample_contrast",
    "sample_gamma",
    "sample_low_resolution",
    "sample_noise",
    "sample_thick_slices",
]

TINY = 1e-7  # avoids division by zero in constant images


def sample_noise(rng: np.random.Generator, setting: Setting, *, sigma: tuple[float, float] = (0.0, 0.1)) -> Parameters:
    """Gaussian noise with the same standard deviation (in z-score units) for all channels."""
    strength = rng.uniform(*sigma)
    return {"sigma": tuple(strength * unit for unit in setting.unit), "seed": int(rng.integers(2**63))}


def apply_noise(image: torch.Tensor, codes: torch.Tensor, sigma: Sequence[float], seed: int) -> Moved:
    """Image plus Gaussian noise with ``sigma`` per channel. A seed gives the same noise on the same kind of device."""
    generator = torch.Generator(image.device).manual_seed(seed)
    noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    return image + noise.mul_(_column(sigma, image)), codes


def sample_blur(
    rng: np.random.Generator, setting: Setting, *, sigma: tuple[float, float] = (0.5, 1.0), channel_probability: float = 0.5
) -> Parameters | None:
    """For each chosen channel three standard deviations in voxels."""
    return _chosen(rng, setting, channel_probability, lambda: tuple(rng.uniform(*sigma, size=3).tolist()))


def apply_blur(image: torch.Tensor, codes: torch.Tensor, channels: Mapping[int, Sequence[float]]) -> Moved:
    """Channels smoothed by a Gaussian; ``channels`` maps a channel to its standard deviation along (z, y, x) in voxels.

    The Gaussian ends at three standard deviations; outside the patch the edge voxels are repeated.
    """
    result = image.clone()
    for channel, sigmas in channels.items():
        for axis, sigma in enumerate(sigmas):
            if image.shape[axis + 1] > 1:
                result[channel] = _smooth(result[channel], axis, sigma)
    return result, codes


def sample_brightness(rng: np.random.Generator, setting: Setting, *, factor: tuple[float, float] = (0.75, 1.25)) -> Parameters:
    """One factor per channel."""
    return {"factor": _around_one(rng, factor, setting.channels), "centre": setting.centre}


def apply_brightness(image: torch.Tensor, codes: torch.Tensor, factor: Sequence[float], centre: Sequence[float]) -> Moved:
    """``(x - centre) * factor + centre`` per channel."""
    factors, centres = _column(factor, image), _column(centre, image)
    return torch.addcmul(centres * (1 - factors), image, factors), codes


def sample_contrast(rng: np.random.Generator, setting: Setting, *, factor: tuple[float, float] = (0.75, 1.25)) -> Parameters:
    """One factor per channel."""
    return {"factor": _around_one(rng, factor, setting.channels)}


def apply_contrast(image: torch.Tensor, codes: torch.Tensor, factor: Sequence[float]) -> Moved:
    """``(x - mean) * factor + mean`` with the mean of each channel, clipped to its original range."""
    factors, mean = _column(factor, image), _mean(image)
    low, high = _range(image)
    return torch.addcmul(mean * (1 - factors), image, factors).clamp_(low, high), codes


def sample_low_resolution(
    rng: np.random.Generator, setting: Setting, *, zoom: tuple[float, float] = (0.5, 1.0), channel_probability: float = 0.5
) -> Parameters | None:
    """For each chosen channel the zoom: the fraction of voxels per axis that remains; only in-plane for flat patches."""
    parameters = _chosen(rng, setting, channel_probability, lambda: rng.uniform(*zoom))
    return parameters and {**parameters, "in_plane": setting.in_plane}


def apply_low_resolution(image: torch.Tensor, codes: torch.Tensor, channels: Mapping[int, float], in_plane: bool) -> Moved:
    """Channels as if acquired on a coarser grid: voxels sampled at equal distances, then interpolated linearly.

    ``channels`` maps a channel to its zoom in (0, 1].
    """
    result = image.clone()
    full = tuple(image.shape[1:])
    for channel, zoom in channels.items():
        coarse = [max(1, round(edge * zoom)) for edge in full]
        if in_plane:
            coarse[0] = full[0]
        few = functional.interpolate(image[None, channel : channel + 1], size=coarse, mode="nearest-exact")
        result[channel] = functional.interpolate(few, size=full, mode="trilinear", align_corners=False)[0, 0]
    return result, codes


def sample_thick_slices(
    rng: np.random.Generator, setting: Setting, *, factors: Sequence[int] = (2, 3, 4), sigma: tuple[float, float] = (0.0, 0.15)
) -> Parameters | None:
    """Voxels per slice along the coarsest axis (the last one of equals), and noise in z-score units; None for short patches."""
    factor = int(rng.choice(factors))
    long = [axis for axis in range(3) if setting.patch_size[axis] >= 2 * factor]
    if not long:
        return None
    axis = max(long, key=lambda axis: (round(setting.spacing_mm[axis], 3), axis))
    strength = rng.uniform(*sigma)
    noise = {"sigma": tuple(strength * unit for unit in setting.unit), "seed": int(rng.integers(2**63))}
    return {"axis": axis, "factor": factor, "first": int(rng.integers(factor)), **noise}


def apply_thick_slices(
    image: torch.Tensor, codes: torch.Tensor, axis: int, factor: int, first: int, sigma: Sequence[float], seed: int
) -> Moved:
    """The image as if acquired in slices of ``factor`` voxels: their mean plus noise, then interpolated back (cubic).

    The first slice has ``factor - first`` voxels of the patch, the last one the remaining voxels; the edge voxels replace the
    missing ones.
    """
    edge, axis = image.shape[axis + 1], axis + 1
    slices = -(-(edge + first) // factor)
    index = (torch.arange(slices * factor, device=image.device) - first).clamp_(0, edge - 1)
    few = image.index_select(axis, index).unflatten(axis, (slices, factor)).mean(axis + 1)
    few, _ = apply_noise(few, codes, sigma, seed)
    matrix = torch.tensor(axis_matrix(slices, edge, 1 / factor, (first + 0.5) / factor - 0.5, 3), device=image.device)
    return torch.tensordot(few, matrix, dims=([axis], [1])).movedim(-1, axis).contiguous(), codes


def sample_gamma(
    rng: np.random.Generator, setting: Setting, *, gamma: tuple[float, float] = (0.7, 1.5), invert: bool = False
) -> Parameters:
    """One exponent per channel; ``invert`` acts on the negative image."""
    return {"gamma": _around_one(rng, gamma, setting.channels), "invert": invert}


def apply_gamma(image: torch.Tensor, codes: torch.Tensor, gamma: Sequence[float], invert: bool) -> Moved:
    """Each channel scaled to [0, 1] by its range, to the power of ``gamma``, then with its original mean and deviation."""
    low, high = _range(image)
    span = (high - low).clamp_(min=TINY)
    share = (high - image) / span if invert else (image - low) / span
    share = share.clamp_(min=0).pow_(_column(gamma, image))
    scale = _deviation(image) / _deviation(share).clamp_(min=TINY)
    if invert:
        scale = -scale
    return torch.addcmul(_mean(image) - _mean(share) * scale, share, scale), codes


def _chosen(rng: np.random.Generator, setting: Setting, probability: float, value: Callable[[], Any]) -> Parameters | None:
    """``{"channels": {channel: value()}}`` for randomly chosen channels; None if none is chosen."""
    channels = {channel: value() for channel in range(setting.channels) if rng.random() < probability}
    return {"channels": channels} if channels else None


def _around_one(rng: np.random.Generator, limits: tuple[float, float], count: int) -> tuple[float, ...]:
    """``count`` factors, each with equal probability uniform below 1 or uniform above 1."""
    low, high = limits
    return tuple(rng.uniform(low, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, high) for _ in range(count))


def _smooth(volume: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    """(Z, Y, X) convolved with a Gaussian along one axis."""
    radius = math.ceil(3 * sigma)
    edge = volume.shape[axis]
    index = torch.arange(-radius, edge + radius, device=volume.device).clamp_(0, edge - 1)
    padded = volume.index_select(axis, index)
    weights = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(-radius, radius + 1)]
    result = torch.zeros_like(volume)
    for tap, weight in enumerate(weights):
        result.add_(padded.narrow(axis, tap, edge), alpha=weight / sum(weights))
    return result


def _column(values: Sequence[float], image: torch.Tensor) -> torch.Tensor:
    """One number per channel, shaped for use with (C, Z, Y, X)."""
    return torch.tensor(values, dtype=image.dtype, device=image.device).reshape(-1, 1, 1, 1)


def _mean(image: torch.Tensor) -> torch.Tensor:
    return image.mean(dim=(1, 2, 3), keepdim=True)


def _deviation(image: torch.Tensor) -> torch.Tensor:
    return image.flatten(1).std(dim=1, correction=0).reshape(-1, 1, 1, 1)


def _range(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = image.flatten(1).aminmax(dim=1)
    return low.reshape(-1, 1, 1, 1), high.reshape(-1, 1, 1, 1)
