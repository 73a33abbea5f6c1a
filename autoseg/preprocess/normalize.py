"""Normalises the intensities of a scan to the scale that the network expects.

A scheme is a function of one channel, the mask of voxels that are non-zero in some channel, and the channel's entry in the
plan. ``ct`` and ``robust`` bring intensities to [0, 1], which is also the scale of restoration; the network then begins with
``(x - input_mean) / input_std``. The others are nnU-Net's (its names in brackets).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from autoseg.errors import AutosegError
from autoseg.registry import Registry
from planners.plan import ChannelNormalization

__all__ = ["NORMALIZATIONS", "UNIT_SCHEMES", "normalize", "outside_value", "unit_range"]

TINY = 1e-8
UNIT_SCHEMES = ("ct", "robust", "rescale", "rgb")  # schemes that give [0, 1]


def ct(channel: np.ndarray, inside: np.ndarray, how: ChannelNormalization) -> np.ndarray:
    """Clipped to the data set's foreground percentiles 0.5 and 99.5 and scaled to [0, 1]."""
    return _unit(channel, *unit_range(channel, inside, how))


def robust(channel: np.ndarray, inside: np.ndarray, how: ChannelNormalization) -> np.ndarray:
    """Clipped to the scan's own percentiles 0.5 and 99.5 of the voxels inside and scaled to [0, 1]."""
    return _unit(channel, *unit_range(channel, inside, how))


def zscore(channel: np.ndarray, inside: np.ndarray, how: ChannelNormalization) -> np.ndarray:
    """Mean 0 and standard deviation 1 [ZScoreNormalization]; with ``use_mask`` inside only, 0 elsewhere."""
    voxels = channel[inside] if how.use_mask else channel
    if not voxels.size:
        return np.zeros(channel.shape, np.float32)
    scaled = (channel - voxels.mean(dtype=np.float64)) / max(voxels.std(dtype=np.float64), TINY)
    return np.where(inside, scaled, 0).astype(np.float32) if how.use_mask else scaled.astype(np.float32)


def ct_zscore(channel: np.ndarray, inside: np.ndarray, how: ChannelNormalization) -> np.ndarray:
    """Clipped to the foreground percentiles, then the foreground's mean and deviation [CTNormalization]."""
    return ((np.clip(channel, how.lower, how.upper) - how.mean) / max(how.std, TINY)).astype(np.float32)


def rescale(channel: np.ndarray, inside: np.ndarray, how: ChannelNormalization) -> np.ndarray:
    """The scan's own minimum and maximum to 0 and 1 [RescaleTo01Normalization]."""
    return _unit(channel, *unit_range(channel, inside, how))


def rgb(channel: np.ndarray, inside: np.ndarray, how: ChannelNormalization) -> np.ndarray:
    """0 to 255 to 0 to 1 [RGBTo01Normalization]; raises AutosegError outside that range."""
    if channel.min() < 0 or channel.max() > 255:
        raise AutosegError(
            f"channel {how.channel!r}: rgb_to_0_1 expects values from 0 to 255, found {channel.min():g} to "
            f"{channel.max():g}. Use another name in channel_names, such as rescale_to_0_1"
        )
    return (channel / 255).astype(np.float32)


def none(channel: np.ndarray, inside: np.ndarray, how: ChannelNormalization) -> np.ndarray:
    """Unchanged [NoNormalization]."""
    return channel.astype(np.float32)


NORMALIZATIONS = Registry(
    "normalization",
    {"ct": ct, "robust": robust, "zscore": zscore, "ct_zscore": ct_zscore, "rescale": rescale, "rgb": rgb, "none": none},
)


def unit_range(channel: np.ndarray, inside: np.ndarray, how: ChannelNormalization) -> tuple[float, float]:
    """(lower, upper): the intensities that a scheme of ``UNIT_SCHEMES`` brings to 0 and 1, in scanner units.

    Raises:
        AutosegError: another scheme.
    """
    if how.scheme == "ct":
        return how.lower, how.upper
    if how.scheme == "robust":
        voxels = channel[inside] if not inside.all() else channel.ravel()
        lower, upper = np.percentile(voxels, (0.5, 99.5)) if voxels.size else (0.0, 0.0)
        return float(lower), float(upper)
    if how.scheme == "rescale":
        return float(channel.min()), float(channel.max())
    if how.scheme == "rgb":
        return 0.0, 255.0
    raise AutosegError(f"channel {how.channel!r}: {how.scheme} does not bring intensities to [0, 1]")


def normalize(data: np.ndarray, schemes: Sequence[ChannelNormalization]) -> np.ndarray:
    """Normalise all channels of a cropped scan.

    Args:
        data: (C, Z, Y, X) float32, not changed.
        schemes: one ``ChannelNormalization`` per channel.

    Returns:
        (C, Z, Y, X) float32; finite, also for a constant channel (zeros).
    """
    inside = (data != 0).any(axis=0)
    filled = ndimage.binary_fill_holes(inside) if any(how.fill_holes for how in schemes) else inside
    channels = zip(data, schemes, strict=True)
    scaled = [NORMALIZATIONS[how.scheme](one, filled if how.fill_holes else inside, how) for one, how in channels]
    return scaled[0][None] if len(scaled) == 1 else np.stack(scaled)


def outside_value(schemes: Sequence[ChannelNormalization]) -> np.ndarray:
    """(C,) float32: the value outside the scan; the network's first operation makes it zero."""
    return np.array([how.input_mean for how in schemes], np.float32)


def _unit(channel: np.ndarray, lower: float, upper: float) -> np.ndarray:
    scaled = np.clip(channel, lower, upper)  # a new array, of real numbers
    scaled -= lower
    scaled *= 1 / max(float(upper) - float(lower), TINY)
    return scaled.astype(np.float32, copy=False)
