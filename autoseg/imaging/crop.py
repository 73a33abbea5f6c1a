"""Boxes of array indices. A box is (lower, upper), half-open, one entry per spatial axis; the geometry follows with
``geometry.cropped(lower, shape)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoseg.imaging.geometry import Geometry, Ints
from autoseg.imaging.volume import orient

__all__ = ["Box", "crop", "laid_on", "nonzero_box"]

Box = tuple[Sequence[int], Sequence[int]]  # lower, upper
OFF_GRID = 0.05  # of a voxel: more is another place


def nonzero_box(data: np.ndarray) -> Box:
    """The smallest box that holds every voxel where some channel is not 0.

    Args:
        data: (C, Z, Y, X); NaN counts as not 0.

    Returns:
        (lower, upper): tuples of int. The whole array if nothing is non-zero.
    """
    found = np.zeros(data.shape[1:], bool)
    for channel in data:
        found |= channel != 0
    axes = range(found.ndim)
    lines = [np.flatnonzero(found.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    if not len(lines[0]):
        return (0,) * found.ndim, found.shape
    return tuple(int(line[0]) for line in lines), tuple(int(line[-1]) + 1 for line in lines)


def crop(array: np.ndarray, lower: Ints, upper: Ints) -> np.ndarray:
    """The box of the last axes of an array; a view. Leading axes (channels) stay whole."""
    box: Any = (..., *(slice(a, b) for a, b in zip(lower, upper, strict=True)))
    part: np.ndarray = array[box]
    return part


def laid_on(labels: np.ndarray, geometry: Geometry, onto: Geometry) -> np.ndarray | None:
    """Labels on another grid of the same voxels, which may be larger and have its axes in another order or direction.

    Args:
        labels: (Z, Y, X), 0 where there is nothing.
        geometry, onto: their grid, and the other one.

    Returns:
        An array on ``onto``; None where the voxels do not coincide, or some label lies outside.
    """
    steps = np.rint(np.linalg.solve(onto.affine[:3, :3], geometry.affine[:3, :3])).astype(int)
    order = np.abs(steps).argmax(axis=1).tolist()  # for each axis of the other grid that of the labels
    if not (np.abs(steps) == np.eye(3, dtype=int)[order]).all() or len(set(order)) < 3:
        return None
    flips = np.flatnonzero(steps.sum(axis=1) < 0).tolist()
    labels, geometry = orient(labels, order, flips), geometry.oriented(order, flips)
    lower = np.rint(onto.to_index(geometry.to_world([[0, 0, 0]]))[0]).astype(int)
    if not geometry.matches(onto.cropped(lower, geometry.shape), OFF_GRID * min(onto.spacing_mm)):
        return None
    laid = np.zeros(onto.shape, labels.dtype)
    start, stop = np.clip([lower, lower + geometry.shape], 0, onto.shape)
    crop(laid, start, stop)[...] = crop(labels, start - lower, stop - lower)
    return laid if np.count_nonzero(laid) == np.count_nonzero(labels) else None
