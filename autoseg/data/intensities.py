"""The intensities of one channel of one case, in a fixed amount of numbers.

A *sketch* represents a distribution by its quantiles at the fixed ``LEVELS``, dense in the tails, where percentiles 0.5
and 99.5 are read. It describes the foreground and needs labels. Scans without labels are compared with others by the
``PERCENTILES`` of the whole image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["LEVELS", "PERCENTILES", "ChannelScan", "measure_channel", "percentiles_of"]

PERCENTILES = (0.0, 0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5, 100.0)
MOST_SAMPLED = 2**20  # voxels from which percentiles of a scan are taken
EXTREMES = (0.5, 99.5)  # percentiles between which intensities are scaled to [0, 1]
LEVELS = np.sin(np.linspace(0, np.pi / 2, 401)) ** 2  # 0 ... 1
BLOCK = 2**20  # voxels held in float64 at a time


@dataclass(frozen=True)
class ChannelScan:
    """Intensities of one channel of one case.

    ``voxels`` to ``sketch`` describe the labelled foreground (every voxel with a label other than 0); without foreground
    they are zeros and an empty sketch. ``low`` and ``high`` are percentiles 0.5 and 99.5 of the voxels where some channel
    is not zero. ``unit_mean`` and ``unit_std`` are over the crop, clipped to these and scaled to [0, 1]; zeros for a
    constant image. ``percentiles`` are those of ``percentiles_of``, () in scans of older versions.
    """

    voxels: int
    mean: float
    variance: float
    minimum: float
    maximum: float
    sketch: tuple[float, ...]
    low: float
    high: float
    unit_mean: float
    unit_std: float
    percentiles: tuple[float, ...] = ()


def percentiles_of(channel: np.ndarray, inside: np.ndarray) -> tuple[float, ...]:
    """The ``PERCENTILES`` of the voxels inside, to seven digits, from at most ``MOST_SAMPLED`` evenly spread voxels.

    Args:
        channel: (Z, Y, X) numbers of any type, not NaN.
        inside: (Z, Y, X) bool; if it is empty, all voxels count.
    """
    steps = [1, 1, 1]
    while math.prod(left := [-(-n // step) for n, step in zip(channel.shape, steps, strict=True)]) > MOST_SAMPLED:
        steps[left.index(max(left))] += 1
    some = tuple(slice(None, None, step) for step in steps)
    values = channel[some][inside[some]]
    ascending = np.sort(values if values.size else channel[some].ravel())  # faster than one partition per percentile
    at = np.rint(np.array(PERCENTILES) / 100 * (len(ascending) - 1)).astype(int)
    return tuple(float(f"{value:.7g}") for value in ascending[at].tolist())


def measure_channel(channel: np.ndarray, inside: np.ndarray, foreground: np.ndarray) -> ChannelScan:
    """A ChannelScan.

    Args:
        channel: (Z, Y, X) finite numbers of any type, inside the crop.
        inside: (Z, Y, X) bool, where some channel is not zero; not empty.
        foreground: (Z, Y, X) bool, where there is a label.
    """
    are_few = channel.dtype.kind in "iu" and channel.dtype.itemsize <= 2
    low, high, mean, variance = (_by_counting if are_few else _by_sorting)(channel, inside)
    percentiles = percentiles_of(channel, inside)
    span = high - low
    unit_mean, unit_std = ((mean - low) / span, variance**0.5 / span) if span > 0 else (0.0, 0.0)
    values = np.sort(channel[foreground])
    if not values.size:
        return ChannelScan(0, 0.0, 0.0, 0.0, 0.0, (), low, high, unit_mean, unit_std, percentiles)
    mean, variance = _moments(values)
    return ChannelScan(
        voxels=values.size,
        mean=mean,
        variance=variance,
        minimum=float(values[0]),
        maximum=float(values[-1]),
        sketch=_sketch(values),
        low=low,
        high=high,
        unit_mean=unit_mean,
        unit_std=unit_std,
        percentiles=percentiles,
    )


def _by_sorting(channel: np.ndarray, inside: np.ndarray) -> tuple[float, float, float, float]:
    """(low, high, mean, variance): percentiles ``EXTREMES`` inside; mean and variance of all voxels clipped to them."""
    copied = channel.flatten() if inside.all() else channel[inside]
    low, high = np.percentile(copied, EXTREMES, overwrite_input=True).tolist()
    return low, high, *_moments(channel, low, high)


def _by_counting(channel: np.ndarray, inside: np.ndarray) -> tuple[float, float, float, float]:
    """As ``_by_sorting``, for integers of 16 bits at most, from how often each occurs; in less time and memory."""
    lowest, highest = min(0, int(channel.min())), max(0, int(channel.max()))
    counts = np.zeros(highest - lowest + 1, np.int64)
    for part, within in zip(channel, inside, strict=True):
        counts += np.bincount(part[within].astype(np.int64) - lowest, minlength=counts.size)
    values, reached = np.arange(lowest, highest + 1, dtype=np.float64), counts.cumsum()
    ranks = np.array(EXTREMES) / 100 * (reached[-1] - 1)  # of the sorted voxels; between two of them linear, as in numpy
    below, above = (values[np.searchsorted(reached, rank, side="right")] for rank in (np.floor(ranks), np.ceil(ranks)))
    low, high = (below + (above - below) * (ranks % 1)).tolist()
    counts[-lowest] += channel.size - reached[-1]  # the voxels that are not inside are zero
    clipped = values.clip(low, high)
    mean = float((counts * clipped).sum() / channel.size)
    return low, high, mean, float((counts * (clipped - mean) ** 2).sum() / channel.size)


def _sketch(ascending: np.ndarray) -> tuple[float, ...]:
    """Quantiles of sorted values at ``LEVELS``; each is a value that occurs, to seven digits."""
    at = np.minimum((LEVELS * len(ascending)).astype(np.int64), len(ascending) - 1)
    return tuple(float(f"{value:.7g}") for value in ascending[at].tolist())


def _moments(values: np.ndarray, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
    """Mean and variance of a non-empty array clipped to [low, high], in float64, block by block."""
    step = max(1, BLOCK // values[0].size)
    shift = float(np.clip(values.flat[0], low, high))  # against cancellation if the mean is far from 0
    total, squares = 0.0, 0.0
    for start in range(0, len(values), step):
        block = values[start : start + step].astype(np.float64).ravel()
        np.clip(block, low, high, out=block)
        block -= shift
        total += float(block.sum())
        squares += float(np.einsum("i,i", block, block))  # not by BLAS, whose threads wait for each other beside ours
    mean = total / values.size
    return shift + mean, max(0.0, squares / values.size - mean**2)
