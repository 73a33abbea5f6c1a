"""Boxes of array indices. A box is (lower, upper), half-open, one entry per spatial axis; the geometry follows with
``geometry.cropped(lower, shape)``."""

import numpy as np

__all__ = ["crop", "nonzero_box"]


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
