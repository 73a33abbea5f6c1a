"""Chooses the position of patches and reads them.

A third of the samples of a batch (rounded up, as in nnU-Net 2.8), or of batches of one, is centred on a labelled voxel: a code
or region present in the case is drawn, then one of its stored voxels. The others are anywhere. They extend beyond the case
only if it is smaller than the block. If the case has voxels to ignore, these other patches are centred on an annotated voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from autoseg.preprocess.cases import TrainingCase

__all__ = ["draw_centre", "forced_foreground", "read_block", "read_codes"]


def forced_foreground(rng: np.random.Generator, position: int, batch_size: int, fraction: float) -> bool:
    """Whether the sample at ``position`` of a batch is centred on foreground: the last ones, ``fraction`` of them.

    For a batch of one it is drawn from ``rng``; larger batches do not use ``rng``.
    """
    if batch_size == 1:
        return rng.random() < fraction
    return position >= round(batch_size * (1 - fraction))


def draw_centre(
    rng: np.random.Generator, case: TrainingCase, patch: Sequence[int], groups: Sequence[Sequence[int]], foreground: bool
) -> np.ndarray:
    """The voxel at the centre of a patch.

    Args:
        patch: (3,) edges of the patch.
        groups: for each structure the codes that belong to it.
        foreground: centre the patch on a structure, if the case has one.

    Returns:
        (3,) int64 voxel; the patch begins at ``centre - patch // 2``.
    """
    locations = case.locations
    if foreground:
        present = [found for codes in groups if (found := [locations[c] for c in codes if c in locations])]
        if present:
            return _pick(rng, present[rng.integers(len(present))])
    annotated = [voxels for voxels in locations.values() if len(voxels)]
    if 0 in locations and annotated:  # code 0 is listed only if the case has voxels to ignore
        return _pick(rng, annotated)
    shape, size = np.array(case.shape), np.array(patch)
    # a patch that fits stays inside the case; a smaller case stays inside the patch
    low, high = np.minimum(0, shape - size), np.maximum(0, shape - size)
    centre: np.ndarray = rng.integers(low, high, endpoint=True) + size // 2
    return centre


def read_block(
    case: TrainingCase, centre: np.ndarray, size: Sequence[int], outside: Sequence[float] | np.ndarray, outside_code: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Read a block of a stored case. Only the compressed chunks that it touches are read.

    Args:
        centre: (3,) voxel; the block begins at ``centre - size // 2``.
        size: (3,) voxels.
        outside: (C,) value outside the case.
        outside_code: code outside the case, by default background.

    Returns:
        (image (C, *size) float32, codes (*size) int16), new arrays.
    """
    lower = np.asarray(centre) - np.asarray(size) // 2
    box = [[int(a), int(a + n)] for a, n in zip(lower, size, strict=True)]
    image = _crop_and_pad(case.image, box, outside[0] if len(set(outside)) == 1 else np.nan)
    if len(set(outside)) > 1:
        image = np.where(np.isnan(image), np.reshape(outside, (-1, 1, 1, 1)).astype(np.float32), image)
    return image.astype(np.float32, copy=False), _crop_and_pad(case.codes, box, outside_code)


def read_codes(array: Any, centre: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The same block of any codes (z, y, x) on the grid of a case; 0 outside."""
    lower = np.asarray(centre) - np.asarray(size) // 2
    return _crop_and_pad(array, [[int(a), int(a + n)] for a, n in zip(lower, size, strict=True)], 0)


def _crop_and_pad(array: Any, box: list[list[int]], value: float) -> np.ndarray:
    """The voxels of a box as a numpy array; ``value`` outside ``array``. Only the box is read."""
    inside = [slice(max(0, low), max(0, low, min(high, edge))) for (low, high), edge in zip(box, array.shape[-3:], strict=True)]
    shifted = [[low - part.start, high - part.start] for (low, high), part in zip(box, inside, strict=True)]
    place = (..., *inside)
    found: np.ndarray = crop_and_pad_nd(array[place], shifted, pad_value=value)
    return found


def _pick(rng: np.random.Generator, arrays: Sequence[np.ndarray]) -> np.ndarray:
    position = rng.integers(sum(len(a) for a in arrays))
    for array in arrays:
        if position < len(array):
            voxel: np.ndarray = array[position].astype(np.int64)
            return voxel
        position -= len(array)
    raise AssertionError("unreachable: the position is below the total")
