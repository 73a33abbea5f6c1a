"""Boxes of array indices. A box is (lower, upper), half-open, one entry per spatial axis; the geometry follows with
``geometry.cropped(lower, shape)``."""

import numpy as np

__all__ = ["crop", "laid_on", "nonzero_box"]

OFF_GRID = 0.05  # of a voxel: more is another place


def nonzero_box(data):
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


def crop(array, lower, upper):
    """The box of the last axes of an array; a view. Leading axes (channels) stay whole."""
    box = (..., *(slice(a, b) for a, b in zip(lower, upper, strict=True)))
    return array[box]


def laid_on(labels, geometry, onto):
    """Labels on another grid of the same voxels, which may be larger and have its axes in another order or direction.

    Args:
        labels: (Z, Y, X), 0 where there is nothing.
        geometry, onto: their grid, and the other one.

    Returns:
        An array on ``onto``; None where the voxels do not coincide, or some label lies outside.
    """
    steps = np.linalg.solve(onto.affine[:3, :3], geometry.affine[:3, :3])
    index = np.argwhere(labels)
    place = onto.to_index(geometry.to_world(index))
    nearest = np.rint(place).astype(int)
    is_turned = abs(abs(np.linalg.det(np.rint(steps))) - 1) < 0.5 and np.abs(steps - np.rint(steps)).max() < OFF_GRID
    if not is_turned or np.abs(place - nearest).max(initial=0) > OFF_GRID or ((nearest < 0) | (nearest >= onto.shape)).any():
        return None
    laid = np.zeros(onto.shape, labels.dtype)
    laid[tuple(nearest.T)] = labels[tuple(index.T)]
    return laid
