"""Resampling of voxels to another grid.

Between grids with the same directions (crops, resized and padded versions of each other) interpolation is separable, and along
one axis it is linear in the samples for any spline. So each axis gets one small matrix, made by SciPy's spline code from the
unit vectors, and a volume is resampled by three matrix products. Outside the samples, the edge value is repeated.

An *interpolation operator* works along one axis: a 1-D array of integers (output i is input operator[i]; nearest neighbour, and
any order where the points fall on voxels) or a 2-D float32 matrix (output is matrix @ input).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage

from autoseg.errors import GeometryError
from autoseg.imaging.crop import Box, crop, nonzero_box
from autoseg.imaging.geometry import Geometry

__all__ = [
    "apply_operators",
    "axis_matrix",
    "interpolation_operators",
    "axis_orders",
    "grid_mapping",
    "part_of",
    "resample_anywhere",
    "resample_codes",
    "resample_image",
]

_BLOCK = 32  # matrix rows multiplied together, with only the columns they need
_NEGLIGIBLE = 1e-7  # smaller weights are dropped; cubic splines have them for far samples
_ON_VOXEL = 1e-4  # voxels; a point this close to a voxel gets its value
_DRIFT = 0.05  # voxels; how far corresponding axes of two grids may diverge
_TIE = 1e-5  # of weights in [0, 1]; larger than float32 rounding


def axis_orders(
    spacing_from: Sequence[float], spacing_to: Sequence[float], order: int, coarse_order: int, coarse_ratio: float
) -> tuple[int, ...]:
    """Spline order for each axis, lower along thick slices.

    The source grid is checked first, then the target. In the first whose coarsest spacing exceeds ``coarse_ratio`` times its
    finest, the coarsest axis gets ``coarse_order`` (if it is one axis, not two). All other axes, or all three if neither grid
    is anisotropic, get ``order``. The rule is nnU-Net's (Isensee 2021).
    """
    for spacing in (np.asarray(spacing_from, float), np.asarray(spacing_to, float)):
        if spacing.max() > coarse_ratio * spacing.min():
            coarsest = np.isclose(spacing, spacing.max(), rtol=1e-3)
            if coarsest.sum() == 1:
                return tuple(coarse_order if coarse else order for coarse in coarsest.tolist())
            break
    return (order,) * 3


@lru_cache(maxsize=24)
def axis_matrix(n_from: int, n_to: int, scale: float, offset: float, order: int, dtype: str = "float32") -> np.ndarray:
    """(n_to, n_from) of ``dtype``, read-only: row i has the weights of the samples at index ``scale * i + offset``.

    Equal to SciPy's ``zoom`` and ``affine_transform`` with ``mode="nearest"`` and prefilter, except for weights below 1e-7.
    """
    diagonal, offsets = np.array([scale, 1.0]), (offset, 0.0)
    with warnings.catch_warnings():  # older SciPy, such as 1.15, warns about a changed meaning of diagonals
        warnings.filterwarnings("ignore", "The behavior of affine_transform with a 1-D array", UserWarning)
        matrix: np.ndarray = ndimage.affine_transform(
            np.eye(n_from), diagonal, offsets, (n_to, n_from), order=order, mode="nearest"
        ).astype(dtype)
    matrix[np.abs(matrix) < _NEGLIGIBLE] = 0
    matrix.setflags(write=False)
    return matrix


def grid_mapping(geometry: Geometry, onto: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Index i along an axis of ``onto`` is index ``scale * i + offset`` of ``geometry``.

    Returns:
        (scale, offset): (3,) float64 each.

    Raises:
        GeometryError: the axes of the grids have different directions.
    """
    steps = np.linalg.solve(geometry.affine[:3, :3], onto.affine[:3, :3])
    scale = np.diag(steps)
    drift = np.abs(steps - np.diag(scale)) @ np.array(onto.shape)
    if scale.min() <= 0 or drift.max() > _DRIFT:
        raise GeometryError(
            f"expected grids whose axes run in the same directions, found\n  {geometry}\n  {onto}\nBring both to the "
            "canonical orientation first; grids that are rotated against each other need a registration tool."
        )
    return scale, geometry.to_index(onto.to_world([[0, 0, 0]]))[0]


def interpolation_operators(
    geometry: Geometry, onto: Geometry, orders: Sequence[int], dtype: str = "float32"
) -> tuple[np.ndarray, ...]:
    """The three interpolation operators from one grid onto another; ``orders`` are spline orders, 0 to 5, for each axis.

    Their weights, and therefore the results of ``apply_operators``, have type ``dtype``.
    """
    grids = zip(geometry.shape, onto.shape, *grid_mapping(geometry, onto), orders, strict=True)
    return tuple(_interpolation_operator(*grid, dtype) for grid in grids)


def part_of(operator: np.ndarray, start: int, stop: int) -> tuple[slice, np.ndarray]:
    """Only the outputs from ``start`` to ``stop``: (slice of the required inputs, the operator for them)."""
    rows = operator[start:stop]
    used = rows if rows.ndim == 1 else np.flatnonzero(rows.any(axis=0))
    inputs = slice(int(used.min()), int(used.max()) + 1)
    return inputs, (rows - inputs.start if rows.ndim == 1 else rows[:, inputs])


def apply_operators(array: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
    """Apply interpolation operators to the last three axes of an array.

    The axis that shrinks most comes first, so intermediate arrays stay small. The result has the type of the matrices used, or
    of the array if there are none; it is the input itself if no operator changes anything.
    """
    lead = array.ndim - 3
    order = sorted(range(3), key=lambda axis: (len(maps[axis]) / array.shape[lead + axis], -axis))
    for axis in order:
        array = _apply(array, maps[axis], lead + axis)
    return array


def resample_image(
    data: np.ndarray, geometry: Geometry, onto: Geometry, orders: Sequence[int], *, clip: bool = False
) -> np.ndarray:
    """Resample intensities to another grid with the same directions.

    A NaN spreads to the lines through it. There is no smoothing before downsampling.

    Args:
        data: (C, Z, Y, X) on ``geometry``.
        orders: spline order for each axis: 0 nearest, 1 linear, 3 cubic.
        clip: limit voxels to the range of their channel, or of their slice if one axis has a lower order than the others.

    Returns:
        (C, z, y, x) float32 on ``onto``; ``data`` itself if the grids are equal and it is float32.
    """
    maps = interpolation_operators(geometry, onto, orders)
    if data.dtype == np.float32 and all(_is_identity(m, n) for m, n in zip(maps, geometry.shape, strict=True)):
        return data
    result = np.empty((len(data), *onto.shape), np.float32)
    for channel, target in zip(data, result, strict=True):
        target[...] = _within_range(channel, maps, orders) if clip else apply_operators(channel, maps)
    return result


def resample_anywhere(data: np.ndarray, geometry: Geometry, onto: Geometry) -> np.ndarray:
    """Resample intensities to any other grid, even a rotated one, with cubic splines; slower than ``resample_image``.

    Up to the outer faces of the source's voxels its edge is repeated; beyond them, the smallest value of the channel is used.
    There is no smoothing before downsampling.

    Args:
        data: (C, Z, Y, X) on ``geometry``.

    Returns:
        (C, z, y, x) float32 on ``onto``.
    """
    matrix = np.linalg.solve(geometry.affine, onto.affine)  # index in onto -> index in geometry
    beyond = np.zeros(onto.shape, bool)
    for (*steps, first), n in zip(matrix[:3], geometry.shape, strict=True):
        z, y, x = (step * np.arange(count) for step, count in zip(steps, onto.shape, strict=True))
        for plane, at in zip(beyond, z + first - (n - 1) / 2, strict=True):
            plane |= np.abs(at + y[:, None] + x) > n / 2 + _ON_VOXEL
    result = np.empty((len(data), *onto.shape), np.float32)
    for channel, target in zip(data, result, strict=True):
        ndimage.affine_transform(channel.astype(np.float32), matrix, output_shape=onto.shape, output=target, mode="nearest")
        target[beyond] = channel.min()
    return result


def resample_codes(
    codes: np.ndarray, geometry: Geometry, onto: Geometry, orders: Sequence[int], *, nearest_of_equals: bool = False
) -> np.ndarray:
    """Resample label codes to another grid with the same directions.

    Each code's mask is interpolated and the largest value wins; for ties, the lowest code. Negative codes (voxels to ignore)
    count as codes. Memory does not grow with the number of codes: each is computed inside its own box and compared with
    the best so far.

    Args:
        codes: (Z, Y, X) int16 on ``geometry``.
        orders: spline order for each axis, usually 1.
        nearest_of_equals: for ties, the code of the nearest voxel wins if it is among them, as in nnU-Net 2.8.

    Returns:
        (z, y, x) of the type of ``codes``, on ``onto``; ``codes`` itself if the grids are equal.
    """
    maps = interpolation_operators(geometry, onto, orders)
    if all(m.ndim == 1 for m in maps):
        return apply_operators(codes, maps)
    result = np.zeros(onto.shape, codes.dtype)
    if not codes.any():
        return result
    nearest = apply_operators(codes, interpolation_operators(geometry, onto, (0, 0, 0))) if nearest_of_equals else result
    box = nonzero_box(codes[None])
    codes = crop(codes, *box)
    maps, outputs = _from_box(maps, box)
    best = np.subtract(1, apply_operators((codes != 0).astype(np.float32), maps), dtype=np.float32)  # the weight of code 0
    inside, nearest = crop(result, *outputs), crop(nearest, *outputs)
    if nearest_of_equals:
        of_nearest = np.where(nearest == 0, best, 0)  # the weight of the code of the nearest voxel
    for code, box in _boxes(codes):
        code_maps, outputs = _from_box(maps, box)
        weight = apply_operators((crop(codes, *box) == code).astype(np.float32), code_maps)
        best_here, result_here = crop(best, *outputs), crop(inside, *outputs)
        wins = weight > best_here + (_TIE if code > 0 else -_TIE)
        if nearest_of_equals:
            np.copyto(crop(of_nearest, *outputs), weight, where=crop(nearest, *outputs) == code)
        np.copyto(result_here, code, where=wins)
        np.copyto(best_here, weight, where=wins)
    if nearest_of_equals:
        np.copyto(inside, nearest, where=of_nearest > best - _TIE)
    return result


def _interpolation_operator(n_from: int, n_to: int, scale: float, offset: float, order: int, dtype: str) -> np.ndarray:
    """An index map if the points fall on voxels or the order is 0, else a matrix."""
    scale, offset = round(float(scale), 9), round(float(offset), 9)  # so that grids computed in different ways share one matrix
    points: np.ndarray = np.clip(scale * np.arange(n_to) + offset, 0, n_from - 1)
    if order == 0:
        nearest: np.ndarray = np.floor(points + 0.5 + _ON_VOXEL).astype(np.intp).clip(max=n_from - 1)
        return nearest
    if np.abs(points - np.rint(points)).max() < _ON_VOXEL:
        on_voxels: np.ndarray = np.rint(points).astype(np.intp)
        return on_voxels
    return axis_matrix(n_from, n_to, scale, offset, order, dtype)


def _within_range(channel: np.ndarray, maps: Sequence[np.ndarray], orders: Sequence[int]) -> np.ndarray:
    """``apply_operators``, axes of the highest order first; along these, values are clipped to the range of the input."""
    smooth = tuple(axis for axis, order in enumerate(orders) if order == max(orders))
    stay = [np.arange(n) for n in channel.shape]
    result = apply_operators(channel, [maps[axis] if axis in smooth else stay[axis] for axis in range(3)])
    result = result.clip(channel.min(axis=smooth, keepdims=True), channel.max(axis=smooth, keepdims=True))
    stay = [np.arange(n) for n in result.shape]
    return apply_operators(result, [stay[axis] if axis in smooth else maps[axis] for axis in range(3)])


def _is_identity(operator: np.ndarray, n_from: int) -> bool:
    return operator.ndim == 1 and len(operator) == n_from and bool((operator == np.arange(n_from)).all())


def _apply(array: np.ndarray, operator: np.ndarray, axis: int) -> np.ndarray:
    if _is_identity(operator, array.shape[axis]):
        return array
    if operator.ndim == 1:
        return array.take(operator, axis)
    before, n, after = np.prod(array.shape[:axis], dtype=int), array.shape[axis], np.prod(array.shape[axis + 1 :], dtype=int)
    source = np.ascontiguousarray(array, operator.dtype).reshape(before, n, after)
    result = np.empty((before, len(operator), after), operator.dtype)
    for start in range(0, len(operator), _BLOCK):
        rows = slice(start, start + _BLOCK)
        inputs, matrix = part_of(operator, start, start + _BLOCK)
        if after == 1:  # the last axis: one product instead of one per line
            np.matmul(source[:, inputs, 0], matrix.T, out=result[:, rows, 0])
        else:
            np.matmul(matrix, source[:, inputs], out=result[:, rows])
    return result.reshape(*array.shape[:axis], len(operator), *array.shape[axis + 1 :])


def _from_box(maps: Sequence[np.ndarray], box: Box) -> tuple[tuple[np.ndarray, ...], Box]:
    """Operators for a box of the input, and the box of the outputs that depend on it."""
    parts: list[np.ndarray] = []
    lower: list[int] = []
    upper: list[int] = []
    for operator, start, stop in zip(maps, *box, strict=True):
        if operator.ndim == 1:
            felt = np.flatnonzero((operator >= start) & (operator < stop))
        else:
            felt = np.flatnonzero(operator[:, start:stop].any(axis=1))
        first, last = (int(felt[0]), int(felt[-1]) + 1) if len(felt) else (0, 0)
        part = operator[first:last]
        parts.append(part - start if part.ndim == 1 else part[:, start:stop])
        lower.append(first)
        upper.append(last)
    return tuple(parts), (lower, upper)


def _boxes(codes: np.ndarray) -> Iterator[tuple[int, Box]]:
    """(code, box) for every code that occurs, without 0, ascending."""
    shift = 1 - int(codes.min())
    for position, box in enumerate(ndimage.find_objects(np.add(codes, shift, dtype=np.int32))):
        code = position + 1 - shift
        if box is not None and code != 0:
            yield code, ([part.start for part in box], [part.stop for part in box])
