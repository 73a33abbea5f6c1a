"""Similarity of a volume to its reference: mean squared error, PSNR and SSIM, for masks and for intensities.

Two protocols that must not be confused. **Masks** (``mse_mask``, ``ssim_mask``, ``brier``): the predicted structure against
the reference, both as volumes of zeros and ones on the scan's own grid. Two masks of equal size and Dice D that fill the
fraction f of the image have a mean squared error of 2 f (1 - D), which means nothing without f, the foreground fraction.
**Intensities** (``mse``, ``psnr``, ``ssim``): a volume in [0, 1] that was degraded on purpose, with seeded random numbers, and
restored. It must beat the *baseline*, the best volume available without a network: cubic interpolation of the thick slices,
or the noisy or blurred volume itself. ``skill`` is 1 - mse / bar_mse: 0 at the baseline, 1 for a perfect restoration.

SSIM follows Wang et al. (2004) in 3D: Gaussian windows of sigma 1.5 cut off at 11 voxels, K1 = 0.01, K2 = 0.03, a data range
of 1, population covariance. It equals scikit-image's with ``gaussian_weights=True, sigma=1.5,
use_sample_covariance=False, data_range=1``. The mean is over voxels whose window is inside the volume, as there and in MONAI.
Along an axis of fewer than 11 voxels, the window has the largest odd size that fits (``ssim_window``); neither of the two
supports that.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy import ndimage

from autoseg.evaluation.overlap import Counts
from autoseg.imaging.resample import axis_matrix

__all__ = [
    "DEGRADATIONS",
    "SLICE_FACTOR",
    "brier",
    "compare_intensities",
    "degrade",
    "mask_mse",
    "mask_ssim",
    "mse",
    "psnr",
    "slice_axis",
    "ssim",
    "ssim_window",
]

SIGMA, WINDOW = 1.5, 11
C1, C2 = 0.01**2, 0.03**2
SLICE_FACTOR = 3  # voxels per thick slice


def ssim_window(shape: Sequence[int]) -> tuple[int, ...]:
    """Voxels of the window along each axis of a volume: 11, or the largest odd number that fits."""
    return tuple(min(WINDOW, n - 1 + n % 2) for n in shape)


def ssim(first: np.ndarray, second: np.ndarray, roi: np.ndarray | None = None) -> float | None:
    """Structural similarity of two volumes in [0, 1], at most 1.

    Args:
        first, second: (Z, Y, X) arrays.
        roi: (Z, Y, X) bool: mean over these voxels instead of those whose window is inside the volume.

    Returns:
        A number, or ``None`` for an empty ``roi``.
    """
    values = _ssim_map(first, second)
    if roi is not None:
        return float(values[roi].mean()) if roi.any() else None
    return float(values[_inner(values.shape)].mean())


def mse(first: np.ndarray, second: np.ndarray, roi: np.ndarray | None = None) -> float | None:
    """Mean squared difference of two arrays, within ``roi`` if there is one; ``None`` for an empty ``roi``."""
    squares = np.square(np.subtract(first, second, dtype=np.float64))
    squares = squares if roi is None else squares[roi]
    return float(squares.mean()) if squares.size else None


def psnr(error: float | None) -> float | None:
    """Peak signal-to-noise ratio in dB from a mean squared error, for a data range of 1; ``None`` for an error of 0."""
    return -10 * math.log10(error) if error else None


def mask_mse(counts: Counts) -> float | None:
    """Mean squared difference of two masks over the whole image, from their voxel counts; ``None`` when both are empty."""
    if counts.n_reference + counts.n_predicted == 0:
        return None
    return (counts.fp + counts.fn) / (counts.tp + counts.fp + counts.fn + counts.tn)


def mask_ssim(
    reference: np.ndarray, predicted: np.ndarray, *, lower: Sequence[int], shape: Sequence[int]
) -> tuple[float | None, float | None]:
    """SSIM of two masks over the whole image, and over the surroundings of the structure.

    Args:
        reference, predicted: (z, y, x) bool, a part of the image outside which both are empty.
        lower: (3,) index in the image where the part begins.
        shape: (3,) of the image.

    Returns:
        (whole, roi): ``whole`` is ``ssim`` over the whole image; empty surroundings count as 1. ``roi`` is the mean over the
        reference's bounding box (the prediction's if the reference is empty) with a margin of 5 voxels, clipped to the
        image. Both are ``None`` if both masks are empty.
    """
    if not (reference.any() or predicted.any()):
        return None, None
    reach = WINDOW // 2  # farther from both masks, windows are empty and equal
    start = [max(0, low - reach) for low in lower]
    stop = [min(n, low + edge + reach) for n, low, edge in zip(shape, lower, reference.shape, strict=True)]
    before = [(low - a, b - low - n) for low, a, b, n in zip(lower, start, stop, reference.shape, strict=True)]
    truth, guess = (np.pad(mask, before) for mask in (reference, predicted))
    missing = 1 - _ssim_map(truth, guess, window=ssim_window(shape))
    inner = _inner(shape)
    part = tuple(slice(max(0, i.start - a), max(0, min(b, i.stop) - a)) for i, a, b in zip(inner, start, stop, strict=True))
    n_inner = math.prod(i.stop - i.start for i in inner)
    (box,) = ndimage.find_objects((truth if reference.any() else guess).view(np.uint8))
    around = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
    return 1 - float(missing[part].sum()) / n_inner, 1 - float(missing[around].mean())


def brier(probability: np.ndarray, reference: np.ndarray, ignored: np.ndarray | None = None) -> float | None:
    """Mean squared difference of a structure's probability and its mask, (Z, Y, X) each, over voxels not ``ignored``."""
    return mse(probability, reference, None if ignored is None else ~ignored)


def slice_axis(shape: Sequence[int], spacing_mm: Sequence[float]) -> int | None:
    """The axis along which slices are made thick: the coarsest, the last of equal ones; ``None`` if none is long enough."""
    long = [axis for axis in range(3) if shape[axis] >= 2 * SLICE_FACTOR]
    return max(long, key=lambda axis: (round(spacing_mm[axis], 3), axis), default=None)


def degrade(kind: str, volume: np.ndarray, spacing_mm: Sequence[float], case: str) -> np.ndarray | None:
    """Degrade a volume; the same case always gives the same result.

    Args:
        kind: a key of ``DEGRADATIONS``.
        volume: (Z, Y, X) float in [0, 1].
        spacing_mm: voxel size along (z, y, x).
        case: identifier; seeds the random numbers.

    Returns:
        (Z, Y, X) float32 on the same grid, not clipped; ``None`` if the volume is too small for this degradation.
    """
    rng = np.random.default_rng([zlib.crc32(case.encode()), *kind.encode()])
    degraded = DEGRADATIONS[kind](np.asarray(volume, np.float32), spacing_mm, rng)
    return None if degraded is None else np.asarray(degraded, np.float32)


def _noise(volume: np.ndarray, spacing_mm: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """D1: Gaussian noise with standard deviation 0.05."""
    return volume + rng.normal(0, 0.05, volume.shape)


def _thick_slices(volume: np.ndarray, spacing_mm: Sequence[float], rng: np.random.Generator) -> np.ndarray | None:
    """D2: means of three slices each, noise with standard deviation 0.02, and cubic interpolation back."""
    axis = slice_axis(volume.shape, spacing_mm)
    if axis is None:
        return None
    fine = np.moveaxis(volume, axis, 0)
    n = len(fine)
    more = -n % SLICE_FACTOR
    fine = np.pad(fine, ((0, more), (0, 0), (0, 0)), mode="edge")
    coarse = fine.reshape(-1, SLICE_FACTOR, *fine.shape[1:]).mean(axis=1)
    coarse = coarse + rng.normal(0, 0.02, coarse.shape)
    matrix = axis_matrix(len(coarse), n, 1 / SLICE_FACTOR, (1 - SLICE_FACTOR) / (2 * SLICE_FACTOR), 3)
    return np.asarray(np.moveaxis(np.tensordot(matrix, coarse, axes=1), 0, axis))


def _blur(volume: np.ndarray, spacing_mm: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """D3: Gaussian blur of one voxel."""
    return np.asarray(ndimage.gaussian_filter(volume, [float(n > 1) for n in volume.shape], mode="nearest"))


Degradation = Callable[[np.ndarray, Sequence[float], np.random.Generator], np.ndarray | None]
DEGRADATIONS: dict[str, Degradation] = {"noise": _noise, "thick_slices": _thick_slices, "blur": _blur}


def compare_intensities(
    clean: np.ndarray, restored: np.ndarray, degraded: np.ndarray, roi: np.ndarray
) -> dict[str, float | None]:
    """Measure what restoring a volume gained.

    Args:
        clean, restored, degraded: (C, Z, Y, X); clipped to [0, 1] before anything is measured.
        roi: (Z, Y, X) bool, the foreground.

    Returns:
        Dictionary of ``mse``, ``psnr``, ``ssim``, the same of the degraded volume as ``bar_mse`` and so on, ``skill``, and all
        seven again with ``_roi`` for the foreground alone. Means over channels; None if undefined.
    """
    clean, restored, degraded = (np.clip(array, 0, 1) for array in (clean, restored, degraded))
    result: dict[str, float | None] = {}
    for suffix, where in (("", None), ("_roi", roi)):
        for prefix, found in (("", restored), ("bar_", degraded)):
            result[f"{prefix}mse{suffix}"] = error = _mean(mse(a, b, where) for a, b in zip(clean, found, strict=True))
            result[f"{prefix}psnr{suffix}"] = psnr(error)
            result[f"{prefix}ssim{suffix}"] = _mean(ssim(a, b, where) for a, b in zip(clean, found, strict=True))
        error, baseline = result[f"mse{suffix}"], result[f"bar_mse{suffix}"]
        result[f"skill{suffix}"] = 1 - error / baseline if baseline and error is not None else None
    return result


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return None if None in found else float(np.mean([value for value in found if value is not None]))


def _inner(shape: Sequence[int]) -> tuple[slice, ...]:
    """Slices of the voxels whose window is inside the volume."""
    return tuple(slice(size // 2, n - size // 2) for size, n in zip(ssim_window(shape), shape, strict=True))


def _ssim_map(first: np.ndarray, second: np.ndarray, window: Sequence[int] | None = None) -> np.ndarray:
    """(Z, Y, X) float64; volumes are padded by reflection."""
    window = window or ssim_window(first.shape)

    def smooth(array: np.ndarray) -> np.ndarray:
        for axis, size in enumerate(window):
            if size > 1:
                array = ndimage.gaussian_filter1d(array, SIGMA, axis, mode="reflect", radius=size // 2)
        return array

    x, y = (np.ascontiguousarray(array, np.float64) for array in (first, second))
    mean_x, mean_y = smooth(x), smooth(y)
    both, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance, variances = smooth(x * y) - both, smooth(x * x + y * y) - squares
    return np.asarray(((2 * both + C1) * (2 * covariance + C2)) / ((squares + C1) * (variances + C2)))
