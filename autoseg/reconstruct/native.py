"""Resampling from the network's grid to the grid of the scan.

The network gets the scan reoriented, cropped and resampled. The way back needs only the two grids: the native axes are put in
the order and direction of the network's, and each axis has its interpolation operator. The work is done slab by slab, and each
class is compared with the best one so far, so memory holds the result and one slab, however many classes there are. Of
``LazyLogits``, the features are interpolated and the heads computed from them afterwards.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import apply_operators, grid_mapping, interpolation_operators, part_of
from autoseg.imaging.scratch import scratch_zeros
from autoseg.imaging.volume import orient
from autoseg.reconstruct.lazy_logits import LazyLogits, Logits

__all__ = ["Part", "image_to_native", "logits_to_codes", "maps_to_native", "mean_on_native", "probabilities_to_native"]

SLAB = 1 << 22  # voxels to process at a time
_FEATURES = 1 << 23  # feature values on the native grid in memory at a time
_CERTAIN = 30.0  # logit of background outside a network's grid
_FACE = 1e-3  # voxels; a point this far beyond the outer face of the grid is still inside


def logits_to_codes(
    logits: Logits,
    geometry: Geometry,
    native: Geometry,
    *,
    orders: Sequence[int] = (1, 1, 1),
    has_regions: bool = False,
    paint_codes: Sequence[Sequence[int]] | None = None,
    in_half: bool = False,
    slab_voxels: int = SLAB,
) -> np.ndarray:
    """The code of every voxel of the scan.

    Logits are interpolated before they are compared. Voxels beyond the outer faces of the network's grid are background.

    Args:
        logits: (K, z, y, x) on ``geometry``, float16, float32 or LazyLogits; a tie goes to the lowest head.
        native: the grid of the scan, in any orientation with axes parallel to those of ``geometry``.
        orders: spline order for each axis of ``geometry``.
        has_regions: heads are regions: codes are 0 at first, then each region in turn changes them where its logit is above 0
            (sigmoid above 0.5). Otherwise the code is the head with the largest logit.
        paint_codes: for regions, (K, codes): the code that each region changes each code to; see ``LabelSchema.paint_codes``.
        in_half: round interpolated logits to half precision before they are compared, as nnU-Net 2.8 does; this causes ties.
        slab_voxels: voxels to process at a time.

    Returns:
        (Z, Y, X) int16 on ``native``.

    Raises:
        GeometryError: the array does not fill its grid, or the grids are rotated against each other.
    """
    result = np.zeros(native.shape, np.int16)
    for target, heads in _slabs(result, logits, geometry, native, orders, slab_voxels, in_half):
        codes, best = np.zeros(target.shape, np.int16), None
        for head, logit in enumerate(heads):
            if has_regions:
                inside = logit > 0
                codes[inside] = np.take(paint_codes[head], codes[inside])  # type: ignore[index]
            elif best is None:
                best = logit.copy()  # it may be a view of the input
            else:
                np.copyto(codes, head, where=logit > best)
                np.maximum(best, logit, out=best)
        target[...] = codes
    return result


@dataclass(frozen=True, eq=False)
class Part:
    """Logits (K, z, y, x) on the grid of a network, and the spline order of each axis for resampling them."""

    logits: Logits
    geometry: Geometry
    orders: Sequence[int]


def mean_on_native(
    parts: Sequence[Part],
    native: Geometry,
    *,
    has_regions: bool = False,
    scratch: PathLike[str] | str | None = None,
) -> np.ndarray:
    """The mean logits of several networks at every voxel of the scan, whatever grids they are on.

    Args:
        parts: one or more, with the same heads. Outside its grid, a network counts as certain of background.
        native, scratch, has_regions: as for ``logits_to_codes`` and ``probabilities_to_native``.

    Returns:
        (K, Z, Y, X) float32 on ``native``.

    Raises:
        GeometryError: as for ``logits_to_codes``.
    """
    result = scratch_zeros((len(parts[0].logits), *native.shape), np.float32, scratch)
    for part in parts:
        own = scratch_zeros(result.shape, np.float32, scratch)
        own[slice(None) if has_regions else slice(0, 1)] = -_CERTAIN if has_regions else _CERTAIN
        for target, heads in _slabs(own, part.logits, part.geometry, native, part.orders):
            for place, head in zip(target, heads, strict=True):
                place[...] = head
        for total, head in zip(result, own, strict=True):
            total += head / len(parts)
    return result


def probabilities_to_native(
    logits: Logits,
    geometry: Geometry,
    native: Geometry,
    *,
    orders: Sequence[int] = (1, 1, 1),
    has_regions: bool = False,
    temperatures: Sequence[float] = (),
    in_half: bool = False,
    slab_voxels: int = SLAB,
    scratch: PathLike[str] | str | None = None,
) -> np.ndarray:
    """Probability of each head at every voxel of the scan: softmax, or sigmoid for regions.

    Other arguments and errors are as for ``logits_to_codes``. Outside the network's grid, background is certain: 1 for head 0
    of a softmax, 0 for every region.

    Args:
        temperatures: divisors of the logits: one, or one for each head; () for none.
        slab_voxels: voxels, of all heads together, to process at a time.
        scratch: folder for a result that is too large for memory, see ``scratch_zeros``.

    Returns:
        (K, Z, Y, X) float16 on ``native``.
    """
    result = scratch_zeros((len(logits), *native.shape), np.float16, scratch)
    if not has_regions:
        result[0] = 1
    for target, heads in _slabs(result, logits, geometry, native, orders, slab_voxels // len(logits), in_half):
        values = np.stack(list(heads))  # (K, z, y, x)
        if temperatures:
            values /= np.array(temperatures, np.float32).reshape(-1, 1, 1, 1)
        if has_regions:
            values = 0.5 * np.tanh(0.5 * values) + 0.5  # the sigmoid, without overflow
        else:
            values = np.exp(values - values.max(axis=0))
            values /= values.sum(axis=0)
        target[...] = values
    return result


def maps_to_native(
    maps: np.ndarray,
    geometry: Geometry,
    native: Geometry,
    *,
    slab_voxels: int = SLAB,
    scratch: PathLike[str] | str | None = None,
) -> tuple[np.ndarray, list[float]]:
    """Maps, such as attention maps, at every voxel of the scan by linear interpolation; 255 is the largest value of each map.

    Args:
        maps: (K, z, y, x) on ``geometry``, not negative, and each positive somewhere.
        native, slab_voxels, scratch: as for ``logits_to_codes`` and ``probabilities_to_native``.

    Returns:
        (K, Z, Y, X) uint8 on ``native``, zero outside the network's grid; and the largest value of each map.
    """
    result = scratch_zeros((len(maps), *native.shape), np.uint8, scratch)
    largest = [float(head.max()) for head in maps]
    for target, heads in _slabs(result, maps, geometry, native, (1, 1, 1), slab_voxels):
        for part, head, most in zip(target, heads, largest, strict=True):
            part[...] = np.rint(head * (255 / most))
    return result, largest


def image_to_native(image: np.ndarray, geometry: Geometry, around: np.ndarray, native: Geometry) -> np.ndarray:
    """Intensities at every voxel of another grid, by cubic splines.

    Args:
        image: (C, z, y, x) float32 on ``geometry``.
        around: (C, Z, Y, X) float32 on ``native``: values beyond the outer faces of ``geometry``.
        native: as for ``logits_to_codes``.

    Returns:
        (C, Z, Y, X) float32 on ``native``.
    """
    result = around.copy()
    for target, channels in _slabs(result, image, geometry, native, (3, 3, 3)):
        for part, channel in zip(target, channels, strict=True):
            part[...] = channel
    return result


def _slabs(
    result: np.ndarray,
    logits: Logits,
    geometry: Geometry,
    native: Geometry,
    orders: Sequence[int],
    slab_voxels: int = SLAB,
    in_half: bool = False,
) -> Iterator[tuple[np.ndarray, Iterable[np.ndarray]]]:
    """Yield (target, heads), slab by slab.

    ``target`` is a view of ``result`` (on the native grid) with the axes of ``geometry``; ``heads`` iterates over the logits
    of each head there, float32. With ``in_half`` they are computed in double precision and rounded to half precision once, as
    in nnU-Net: from float32, some values between two half-precision numbers would be rounded to the other one.
    """
    if logits.ndim != 4 or logits.shape[1:] != geometry.shape:
        raise GeometryError(f"logits of shape {logits.shape} do not fill a grid of {geometry}")
    order, flips = _turn(native, geometry)
    turned = native.oriented(order, flips)
    lower, upper = _inside(geometry, turned)
    if min(b - a for a, b in zip(lower, upper, strict=True)) < 1:
        return
    precision = "float64" if in_half else "float32"
    first, *rest = interpolation_operators(geometry, turned, orders, precision)
    others = [part_of(m, a, b) for m, a, b in zip(rest, lower[1:], upper[1:], strict=True)]
    plane = (upper[1] - lower[1]) * (upper[2] - lower[2])
    lazy = logits if isinstance(logits, LazyLogits) else None
    if lazy is not None:
        slab_voxels = min(slab_voxels, _FEATURES // len(lazy.features))
    thickness = max(1, slab_voxels // plane)
    for start in range(lower[0], upper[0], thickness):
        stop = min(start + thickness, upper[0])
        needed, maps = zip(part_of(first, start, stop), *others, strict=True)
        target = orient(result, order, flips)[..., start:stop, lower[1] : upper[1], lower[2] : upper[2]]
        sources = logits if lazy is None else lazy.features
        there = (apply_operators(source[needed].astype(precision), maps) for source in sources)
        heads = there if lazy is None else LazyLogits(np.stack(list(there)), lazy.weights, lazy.bias)
        yield target, (head.astype(np.float16).astype(np.float32) for head in heads) if in_half else heads


def _turn(native: Geometry, geometry: Geometry) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(order, flips) that give an array on ``native`` the axes of ``geometry``."""
    along = np.linalg.solve(geometry.directions, native.directions)  # (axis of geometry, axis of native)
    order = tuple(int(axis) for axis in np.abs(along).argmax(axis=1))
    if len(set(order)) < 3:
        raise GeometryError(f"expected grids with parallel axes, found\n  {geometry}\n  {native}")
    return order, tuple(i for i, axis in enumerate(order) if along[i, axis] < 0)


def _inside(geometry: Geometry, onto: Geometry) -> tuple[list[int], list[int]]:
    """(lower, upper): the voxels of ``onto`` whose centres lie within the outer faces of ``geometry``."""
    lower, upper = [], []
    for n_from, n_to, scale, offset in zip(geometry.shape, onto.shape, *grid_mapping(geometry, onto), strict=True):
        points = scale * np.arange(n_to) + offset
        lower.append(int((points < -0.5 - _FACE).sum()))
        upper.append(int((points <= n_from - 0.5 + _FACE).sum()))
    return lower, upper
