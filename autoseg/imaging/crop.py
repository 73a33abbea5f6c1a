"""Boxes of array indices. A box is (lower, upper), half-open, one entry per spatial axis; the geometry follows with
``geometry.cropped(lower, shape)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from autoseg.imaging.geometry import Geometry, Ints
from autoseg.imaging.volume import orient

__all__ = ["NOWHERE", "Box", "crop", "hull", "laid_on", "nonzero_box", "numbered", "turned_onto", "value_boxes"]

Box = tuple[Sequence[int], Sequence[int]]  # lower, upper
NOWHERE: Box = (0, 0, 0), (0, 0, 0)
LARGEST_TABLE = 2**16  # label values up to here are looked up in a table
BLOCK = 2**18  # voxels that are looked up at a time: a search needs eight bytes per voxel


def nonzero_box(data: np.ndarray) -> Box:
    """The smallest box with every voxel where some channel is not 0.

    Args:
        data: (C, Z, Y, X); NaN counts as not 0.

    Returns:
        (lower, upper): tuples of int. The whole array if nothing is non-zero.
    """
    slowest = int(np.argmax(np.abs(data.strides[1:])))  # plane by plane, as they lie in memory
    planes = np.moveaxis(data, 1 + slowest, 0)  # (n, C, ...)
    filled, plane = np.zeros(len(planes), bool), np.zeros(planes.shape[2:], bool)
    for at, channels in enumerate(planes):
        found = (channels != 0).any(axis=0)
        filled[at] = found.any()
        plane |= found
    lines = [plane.any(axis=1), plane.any(axis=0)]
    lines.insert(slowest, filled)
    where = [np.flatnonzero(line) for line in lines]
    if not len(where[0]):
        return (0, 0, 0), data.shape[1:]
    return tuple(int(line[0]) for line in where), tuple(int(line[-1]) + 1 for line in where)


def crop(array: np.ndarray, lower: Ints, upper: Ints) -> np.ndarray:
    """The box of the last axes of an array; a view. Leading axes (channels) stay whole."""
    box: Any = (..., *(slice(a, b) for a, b in zip(lower, upper, strict=True)))
    part: np.ndarray = array[box]
    return part


def hull(boxes: Sequence[Box]) -> Box | None:
    """The smallest box around all boxes; None for none."""
    if not boxes:
        return None
    lowers, uppers = zip(*boxes, strict=True)
    return tuple(map(min, *lowers, lowers[0])), tuple(map(max, *uppers, uppers[0]))


def numbered(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """int32 array of the shape of ``labels``: 1 for the first of ``values`` (ascending), and so on; 0 for any other value."""
    known, flat = np.asarray(values, np.int64), np.ravel(labels)
    found = np.zeros(flat.shape, np.int32)
    for start in range(0, flat.size if len(known) else 0, BLOCK):
        part = flat[start : start + BLOCK].astype(np.int64)
        places = np.minimum(np.searchsorted(known, part), len(known) - 1)
        found[start : start + BLOCK] = np.where(known[places] == part, places + 1, 0)
    return found.reshape(labels.shape)


def value_boxes(labels: np.ndarray) -> dict[int, Box]:
    """{value: box} of every value except 0 in an integer array (Z, Y, X), ascending.

    Time and memory depend on the number of values, not on their size.
    """
    corner, end = nonzero_box(labels[None])
    labels = crop(labels, corner, end)
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=0))
    if lowest == 0 and highest <= LARGEST_TABLE:
        values, codes = list(range(1, highest + 1)), labels
    else:
        values = sorted(set().union(*(np.unique(part).tolist() for part in labels)) - {0})
        codes = numbered(labels, values)
    boxes = zip(values, ndimage.find_objects(codes, max_label=len(values)), strict=True) if values else ()
    return {
        value: (
            tuple(at + part.start for at, part in zip(corner, box, strict=True)),
            tuple(at + part.stop for at, part in zip(corner, box, strict=True)),
        )
        for value, box in boxes
        if box is not None
    }


def laid_on(labels: np.ndarray, geometry: Geometry, onto: Geometry) -> np.ndarray | None:
    """Labels on another grid with the same voxels, which may be larger and have its axes in another order or direction.

    Args:
        labels: (Z, Y, X), 0 for background.
        geometry, onto: their grid, and the new one.

    Returns:
        An array on ``onto``; None if the voxels do not coincide, or some label is outside.
    """
    turn = _turn(geometry, onto)
    if turn is None:
        return None
    labels, geometry = orient(labels, *turn), geometry.oriented(*turn)
    lower = np.rint(onto.to_index(geometry.to_world([[0, 0, 0]]))[0]).astype(int)
    if not geometry.is_same_grid(onto.cropped(lower, geometry.shape)):
        return None
    laid = np.zeros(onto.shape, labels.dtype)
    start, stop = np.clip([lower, lower + geometry.shape], 0, onto.shape)
    crop(laid, start, stop)[...] = crop(labels, start - lower, stop - lower)
    return laid if np.count_nonzero(laid) == np.count_nonzero(labels) else None


def turned_onto(data: np.ndarray, geometry: Geometry, onto: Geometry) -> tuple[np.ndarray, Geometry] | None:
    """An array (C, Z, Y, X) and its grid with the axes of another grid, whose voxels correspond.

    Returns:
        A view; None if the axes are the same already, or the voxels do not correspond.
    """
    turn = None if geometry.corresponds(onto) else _turn(geometry, onto)
    if turn is None or not (turned := geometry.oriented(*turn)).corresponds(onto):
        return None
    return orient(data, *turn), onto if turned.is_same_grid(onto) else turned


def _turn(geometry: Geometry, onto: Geometry) -> tuple[list[int], list[int]] | None:
    """(order, flips) for ``orient``, from one grid to another; None if their axes are not parallel."""
    steps = np.rint(np.linalg.solve(onto.affine[:3, :3], geometry.affine[:3, :3])).astype(int)
    order = np.abs(steps).argmax(axis=1).tolist()  # for each axis of the other grid, the axis of this one
    if not (np.abs(steps) == np.eye(3, dtype=int)[order]).all() or len(set(order)) < 3:
        return None
    return order, np.flatnonzero(steps.sum(axis=1) < 0).tolist()
