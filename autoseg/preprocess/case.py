"""Preprocesses a scan: from its own grid to the network's grid.

The order: canonical orientation, the plan's axis order, crop to non-zero voxels, normalise, resample. Normalising comes
before resampling, since a resampled zero mask no longer fits the image. The network grid has its position in the patient,
so the way back needs only the two geometries.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autoseg.data.dataset import Case
from autoseg.data.labels import IGNORE, LabelSchema
from autoseg.errors import AutosegError, DatasetError, GeometryError
from autoseg.imaging.crop import crop, nonzero_box
from autoseg.imaging.files import read_label_volume, read_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import axis_orders, resample_codes, resample_image
from autoseg.imaging.volume import Volume, orient
from autoseg.names import counted
from autoseg.preprocess.normalize import normalize, unit_range
from planners.plan import Plan

__all__ = [
    "PreparedCase",
    "coarse_codes",
    "network_grid",
    "network_shape",
    "one_hot",
    "prepare_case",
    "prepare_volume",
    "scanner_units",
    "spacing_of",
]

SITES_PER_CODE = 10_000  # enough that patch centres seldom repeat; as in nnU-Net 2.8
_AROUND = -1  # code of background outside the patient, where all channels are 0


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A training case on the network grid.

    Attributes:
        case: identifier.
        image: (C, z, y, x) float32, normalised.
        codes: (z, y, x) int16 label codes, ``IGNORE`` for voxels without annotation.
        geometry: geometry of the network grid, in the patient.
        locations: foreground voxels: for each code present (without ``IGNORE``, 0 only if needed) (N, 3) int32 indices.
        unlabelled: indices of the structures that are not annotated in it.
    """

    case: str
    image: np.ndarray
    codes: np.ndarray
    geometry: Geometry
    locations: dict[int, np.ndarray]
    unlabelled: tuple[int, ...] = ()


def prepare_volume(volume: Volume, plan: Plan) -> tuple[np.ndarray, Geometry]:
    """Transform a scan to the network's grid and intensity scale.

    Args:
        volume: ``Volume`` on any grid.
        plan: a ``Plan``.

    Returns:
        (data, geometry): (C, z, y, x) float32 and its grid, in network axis order.
    """
    if volume.data.shape[0] != len(plan.normalization):
        names, expected = ", ".join(how.channel for how in plan.normalization), counted(len(plan.normalization), "channel")
        raise AutosegError(f"expected {expected} ({names}), found {volume.data.shape[0]}. Verify the data set")
    data, geometry, _ = _oriented(volume.data, volume.geometry, plan)
    lower, upper = nonzero_box(data)
    data, geometry = crop(data, lower, upper), geometry.cropped(lower, np.subtract(upper, lower))
    return _resampled(normalize(data, plan.normalization), geometry, plan)


def coarse_codes(codes: np.ndarray, volume: Volume, plan: Plan) -> np.ndarray:
    """The labels of a coarse stage for a scan, on the network's grid of the fine stage, as input besides ``prepare_volume``.

    Args:
        codes: (Z, Y, X) int16 label codes on the grid of the scan.
        volume: the scan.
        plan: plan of the fine stage, with ``coarse`` labels.

    Returns:
        (z, y, x) int16 on the network's grid. The mask of each code is interpolated; in a tie the nearest code wins, as in
        nnU-Net 2.8. As there, background outside the patient, where all channels are 0, is a separate code from background
        inside, so structures win there more often. ``one_hot`` makes channels of the codes.
    """
    if plan.coarse is None:
        raise AutosegError(f"plan {plan.name!r} has no coarse labels among its inputs")
    data, geometry, (order, flips) = _oriented(volume.data, volume.geometry, plan)
    lower, upper = nonzero_box(data)
    geometry = geometry.cropped(lower, np.subtract(upper, lower))
    inside = np.array(crop(orient(codes, order, flips), lower, upper))
    inside[(inside == 0) & ~ndimage.binary_fill_holes((crop(data, lower, upper) != 0).any(axis=0))] = _AROUND
    grid, orders = network_grid(geometry, plan), _orders(geometry, plan, "label")
    found = resample_codes(inside, geometry, grid, orders, nearest_of_equals=True)
    return np.where(found == _AROUND, 0, found)


def one_hot(codes: np.ndarray, count: int) -> np.ndarray:
    """Codes (z, y, x) as the input channels of a fine stage: (count, z, y, x) bool, for the codes 1 to ``count``."""
    return np.stack([codes == code for code in range(1, count + 1)])


def spacing_of(native: Geometry, plan: Plan) -> tuple[float, ...]:
    """Spacing in mm of a scan's own grid along the axes (z, y, x) of the network."""
    order, _ = _axes(native, plan)
    return tuple(native.spacing_mm[order[axis]] for axis in plan.axis_order)


def scanner_units(image: np.ndarray, volume: Volume, plan: Plan) -> np.ndarray:
    """Convert intensities from the network's scale [0, 1] to the units of the scan that they come from.

    Clipped values stay clipped.

    Args:
        image: (C, z, y, x) on any grid.
        volume: ``Volume``, the scan.

    Returns:
        (C, z, y, x) float32.

    Raises:
        AutosegError: the scheme of a channel does not give [0, 1].
    """
    data = crop(volume.data, *nonzero_box(volume.data))
    inside = (data != 0).any(axis=0)
    ranges = [unit_range(channel, inside, how) for channel, how in zip(data, plan.normalization, strict=True)]
    lower, upper = (np.reshape(ends, (-1, 1, 1, 1)) for ends in zip(*ranges, strict=True))
    return (lower + image * (upper - lower)).astype(np.float32)


def prepare_case(case: Case, labels: LabelSchema, plan: Plan) -> PreparedCase:
    """Read and prepare a training case.

    Args:
        case: ``Case`` with a label.
        labels: ``LabelSchema``.
        plan: ``Plan``.

    Returns:
        PreparedCase

    Raises:
        AutosegError: unreadable files, different grids, undeclared label values; the case is named.
    """
    try:
        if case.label is None:
            raise DatasetError("a case to be prepared for training has no label. Add its label map")
        volume = read_volume(case.images)
        native, (image, grid) = volume.geometry, prepare_volume(volume, plan)
        del volume  # frees memory for the label
        annotation = read_label_volume(case.label, onto=native)
        if annotation.data.shape != native.shape:
            raise GeometryError(f"image and label differ: {native} and {annotation.geometry}. Verify the data set")
        codes, geometry, _ = _oriented(labels.encode(annotation.data), native, plan)
        codes = resample_codes(np.ascontiguousarray(codes), geometry, grid, _orders(geometry, plan, "label"))
    except AutosegError as fault:
        raise type(fault)(f"case {case.id!r}: {fault}") from fault
    return PreparedCase(case.id, image, codes, grid, find_locations(codes, seed=zlib.crc32(case.id.encode())), case.unlabelled)


def network_grid(geometry: Geometry, plan: Plan) -> Geometry:
    """The grid at the plan's spacing that covers the same box."""
    return geometry.resized(network_shape(geometry.shape, geometry.spacing_mm, plan))


def network_shape(shape: Sequence[int], spacing_mm: Sequence[float], plan: Plan) -> list[int]:
    """The shape of ``network_grid`` for a grid of this shape and spacing, rounded as in nnU-Net."""
    target = [max(1, round(s / t * n)) for n, s, t in zip(shape, spacing_mm, plan.spacing_mm, strict=True)]
    return [shape[0], *target[1:]] if plan.patch_size[0] == 1 else target  # 2D: slices keep their distance


def find_locations(codes: np.ndarray, seed: int) -> dict[int, np.ndarray]:
    """Voxels of every code, as possible centres of patches.

    Up to ``SITES_PER_CODE`` or one in a hundred of a code's voxels, whichever is more, drawn without replacement.
    Background is listed, even if empty, if there are voxels to ignore; otherwise any voxel can be used.

    Returns:
        dict code -> (N, 3) int32 indices, ascending.
    """
    flat = codes.ravel()
    partly = bool((flat == IGNORE).any())
    order = np.flatnonzero(flat >= 0 if partly else flat > 0)
    rng = np.random.default_rng(seed)
    locations = {0: np.zeros((0, 3), np.int32)} if partly else {}
    order = order[np.argsort(flat[order], kind="stable")]  # by code; ascending within a code
    found, first = np.unique(flat[order], return_index=True)
    for code, voxels in zip(found.tolist(), np.split(order, first)[1:], strict=True):
        wanted = max(min(SITES_PER_CODE, voxels.size), -(-voxels.size // 100))
        if wanted < voxels.size:
            voxels = np.sort(rng.choice(voxels, wanted, replace=False))
        locations[code] = np.stack(np.unravel_index(voxels, codes.shape), axis=1).astype(np.int32)
    return locations


def _oriented(
    array: np.ndarray, geometry: Geometry, plan: Plan
) -> tuple[np.ndarray, Geometry, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The array in the plan's orientation and axis order: a view, its geometry, and the (order, flips) used."""
    order, flips = _axes(geometry, plan)
    to_network = tuple(order[axis] for axis in plan.axis_order)
    flips = tuple(plan.axis_order.index(axis) for axis in flips)
    return orient(array, to_network, flips), geometry.oriented(to_network, flips), (to_network, flips)


def _axes(geometry: Geometry, plan: Plan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(order, flips) that transform an array to the plan's orientation."""
    return geometry.canonical() if plan.orientation == "canonical" else ((0, 1, 2), ())


def _resampled(data: np.ndarray, geometry: Geometry, plan: Plan) -> tuple[np.ndarray, Geometry]:
    grid = network_grid(geometry, plan)
    return resample_image(data, geometry, grid, _orders(geometry, plan, "image"), clip=plan.resampling.clip), grid


def _orders(geometry: Geometry, plan: Plan, kind: str) -> tuple[int, ...]:
    rule = plan.resampling
    return axis_orders(
        geometry.spacing_mm,
        network_grid(geometry, plan).spacing_mm,
        getattr(rule, f"{kind}_order"),
        getattr(rule, f"coarse_{kind}_order"),
        rule.coarse_ratio,
    )
