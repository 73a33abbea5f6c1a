"""Distances between the surfaces of two masks, measured once for Hausdorff distance, mean distance and surface Dice.

A *cell* is the box between eight neighbouring voxel centres; its centre is a point of the grid shifted by half a voxel.
The cell's *code*, 0 to 255, states which of the eight voxels are inside. A cell with voxels on both sides holds a piece of
surface, a *surfel*, at the centre of the cell. Its area is the one that marching cubes gives this code at this spacing. The
distance of a surfel is that to the nearest surfel of the other mask. Areas weight every mean and percentile, so that a
finely divided part of a surface counts no more than a smooth one. This is the
definition of Nikolov et al. (arXiv 1809.04430) and the surface-distance package; Podobnik and Vrtovec (arXiv
2410.02630) show how far other tools differ.

Outside the image is background, so a mask that touches the border has a surface there. An image of depth 1 is
a plane: cells have four corners, surfels are pieces of contour and their areas are lengths in mm.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.spatial import KDTree

__all__ = ["SurfaceDistances", "hausdorff", "mean_surface_distance", "measure_surfaces", "surface_dice", "surfel_areas"]

Corner = tuple[int, ...]  # of a cell, 0 or 1 along each axis
ROUNDING_MM = 1e-6  # a distance of one voxel is within a tolerance of one voxel despite rounding


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Every surfel of two masks.

    Attributes:
        from_reference_mm: (N,) from each surfel of the reference to the prediction, in mm.
        reference_areas: (N,) their areas in mm2 (lengths in mm for an image of depth 1).
        from_predicted_mm: (M,) from each surfel of the prediction to the reference.
        predicted_areas: (M,) their areas.
    """

    from_reference_mm: np.ndarray
    reference_areas: np.ndarray
    from_predicted_mm: np.ndarray
    predicted_areas: np.ndarray


def measure_surfaces(
    reference: np.ndarray, predicted: np.ndarray, steps_mm: Sequence[float] | np.ndarray, *, ignored: np.ndarray | None = None
) -> SurfaceDistances | None:
    """All surface distances of two masks, in both directions.

    Args:
        reference, predicted: (Z, Y, X) bool.
        steps_mm: voxel size along (z, y, x), or (3, 3) as ``Geometry.steps_mm``.
        ignored: (Z, Y, X) bool or None; cells that touch one of these voxels hold no surfel, since it is unknown
            whether there is a surface.

    Returns:
        SurfaceDistances, or ``None`` if one of the masks has no surface.
    """
    flat = [axis for axis, n in enumerate(reference.shape) if n == 1][:1]
    masks = [mask.squeeze(tuple(flat)) for mask in (reference, predicted)]
    unknown = None if ignored is None else ignored.squeeze(tuple(flat))
    steps = np.delete(_as_columns(steps_mm), flat, axis=1)
    table = surfel_areas(steps)
    (reference_cells, reference_areas), (predicted_cells, predicted_areas) = (_surfels(mask, unknown, table) for mask in masks)
    if not (len(reference_cells) and len(predicted_cells)):
        return None
    return SurfaceDistances(
        from_reference_mm=_nearest(reference_cells, predicted_cells, steps),
        reference_areas=reference_areas,
        from_predicted_mm=_nearest(predicted_cells, reference_cells, steps),
        predicted_areas=predicted_areas,
    )


def hausdorff(distances: SurfaceDistances, percent: float = 100.0) -> float:
    """Percentile of the distance between two surfaces, in mm; the larger of the two directions.

    The smallest distance that covers ``percent`` of a surface's area; 100 is the classic Hausdorff distance.
    """
    return max(
        _percentile(distances.from_reference_mm, distances.reference_areas, percent),
        _percentile(distances.from_predicted_mm, distances.predicted_areas, percent),
    )


def mean_surface_distance(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance in mm: the mean over the area of both surfaces together."""
    lengths = distances.from_reference_mm @ distances.reference_areas
    lengths += distances.from_predicted_mm @ distances.predicted_areas
    return float(lengths / (distances.reference_areas.sum() + distances.predicted_areas.sum()))


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Normalised surface distance: the fraction of both surfaces within ``tolerance_mm`` of the other, in [0, 1]."""
    limit = tolerance_mm + ROUNDING_MM
    near = distances.reference_areas[distances.from_reference_mm <= limit].sum()
    near += distances.predicted_areas[distances.from_predicted_mm <= limit].sum()
    return float(near / (distances.reference_areas.sum() + distances.predicted_areas.sum()))


def _percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    position = np.searchsorted(reached, percent / 100 * reached[-1])
    return float(values[order[min(position, len(values) - 1)]])


def _nearest(cells: np.ndarray, others: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(N,) distance in mm from each cell to the nearest of the others; both (N, ndim) integer grid positions."""
    tree = KDTree(others @ steps.T)
    distances, _ = tree.query(cells @ steps.T)
    return np.asarray(distances)


def _surfels(mask: np.ndarray, ignored: np.ndarray | None, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, ndim) and areas (N,) of the surfels of a mask; no surfels for an empty mask."""
    box = _bounding_box(mask) if ignored is None else tuple(slice(0, n) for n in mask.shape)
    codes = _cell_codes(mask[box])
    if ignored is not None:
        codes[_cell_codes(ignored) != 0] = 0
    found = ((codes != 0) & (codes != len(table) - 1)).nonzero()
    return np.stack(found, axis=1) + [part.start for part in box], table[codes[found]]


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Slices of the smallest box that holds the mask; empty slices for an empty mask."""
    box = []
    for axis in range(mask.ndim):
        inside = mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)).nonzero()[0]
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
    return tuple(box)


def _cell_codes(mask: np.ndarray) -> np.ndarray:
    """Code of every cell that touches the mask's array, uint8; one more along each axis than there are voxels.

    Bit b is the corner ``_corners(ndim)[b]``; cell i lies between voxels i - 1 and i.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([n + 1 for n in mask.shape], np.uint8)
    for bit, corner in enumerate(_corners(mask.ndim)):
        codes |= padded[tuple(slice(c, c + n + 1) for c, n in zip(corner, mask.shape, strict=True))] << np.uint8(bit)
    return codes


def surfel_areas(steps_mm: Sequence[float] | np.ndarray) -> np.ndarray:
    """Area of the surface within a cell, for each code.

    Args:
        steps_mm: two or three voxel sizes, or as many columns, each from a voxel to the next along an axis.

    Returns:
        (256,) mm2 for three axes, (16,) lengths in mm for two; 0 only where all corners are on one side.
    """
    steps = _as_columns(steps_mm)
    codes, simplices = _pieces(steps.shape[1])
    return np.bincount(codes, _sizes(simplices @ steps.T), minlength=2 ** len(_corners(steps.shape[1])))


def _as_columns(steps_mm: Sequence[float] | np.ndarray) -> np.ndarray:
    """A matrix of steps as it is; of voxel sizes, the steps at right angles."""
    steps = np.asarray(steps_mm, float)
    return np.diag(steps) if steps.ndim == 1 else steps


def _sizes(simplices: np.ndarray) -> np.ndarray:
    """(N,) lengths of segments (N, 2, 2) or areas of triangles (N, 3, 3)."""
    edges = simplices[:, 1:] - simplices[:, :1]
    if edges.shape[1] == 1:
        return np.asarray(np.linalg.norm(edges[:, 0], axis=-1))
    return np.asarray(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1) / 2)


@cache
def _pieces(ndim: int) -> tuple[np.ndarray, np.ndarray]:
    """The surface within each cell, on the unit cell.

    The side with fewer corners is taken as the inside. It splits into groups of corners joined by cell edges; each
    group is cut off by one polygon through the midpoints of the edges that leave it.

    Returns:
        codes: (N,) the code each piece belongs to.
        simplices: (N, ndim, ndim) vertices of segments (ndim 2) or triangles (ndim 3).
    """
    corners = _corners(ndim)
    codes, simplices = [], []
    for code in range(1, 2 ** len(corners) - 1):
        inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
        if len(inside) > len(corners) / 2:
            inside = set(corners) - inside
        for group in _connected(inside):
            polygon = _cut_polygon(group, corners)
            for piece in _flattest_triangles(polygon) if ndim == 3 else [polygon]:
                codes.append(code)
                simplices.append(piece)
    return np.array(codes), np.array(simplices)


@cache
def _corners(ndim: int) -> tuple[Corner, ...]:
    return tuple(itertools.product((0, 1), repeat=ndim))


def _joined(a: Corner, b: Corner) -> bool:
    """Whether two corners are the ends of one cell edge."""
    return sum(x != y for x, y in zip(a, b, strict=True)) == 1


def _connected(corners: Iterable[Corner]) -> list[set[Corner]]:
    """Groups of corners joined by edges, as a list of sets."""
    groups: list[set[Corner]] = []
    for corner in sorted(corners):
        touching = [group for group in groups if any(_joined(corner, other) for other in group)]
        groups = [group for group in groups if group not in touching] + [{corner}.union(*touching)]
    return groups


def _cut_polygon(group: set[Corner], corners: Sequence[Corner]) -> np.ndarray:
    """Midpoints of the edges that leave a group of corners, in order: neighbours lie on one face of the cell."""
    ends = [(a, b) for a in sorted(group) for b in corners if b not in group and _joined(a, b)]
    points = [np.add(a, b) / 2 for a, b in ends]
    polygon = [points.pop(0)]
    while points:
        on_face = [((p == polygon[-1]) & ((p == 0) | (p == 1))).any() for p in points]
        polygon.append(points.pop(on_face.index(True) if len(polygon[0]) == 3 else 0))
    return np.array(polygon)


def _flattest_triangles(polygon: np.ndarray) -> np.ndarray:
    """(T, 3, 3) triangles of a polygon.

    Five or six midpoints need not lie in one plane, so the area depends on the cut. The triangulation with the largest
    area on the unit cell is used: its triangles join to flat quadrilaterals, and mirror images are cut alike.
    """
    ways = [polygon[np.array(way)] for way in _triangulations(0, len(polygon) - 1)]
    return max(ways, key=lambda triangles: round(_sizes(triangles).sum(), 9))


def _triangulations(first: int, last: int) -> list[list[tuple[int, int, int]]]:
    """All ways to cut the polygon of vertices first..last into triangles, as lists of index triples."""
    if last - first < 2:
        return [[]]
    return [
        [*before, (first, middle, last), *after]
        for middle in range(first + 1, last)
        for before in _triangulations(first, middle)
        for after in _triangulations(middle, last)
    ]
