"""Closed surfaces of structures; neighbours share the vertices of their common border, so there is neither gap nor overlap.

A *surface net* (Gibson 1998; for many labels Frisken 2022) of a label map has a vertex in each cube of eight voxel centres
with different labels, and a quadrilateral between each pair of face neighbours with different labels. The surface of a
structure consists of the quadrilaterals between its voxels and all others; two neighbours share those between them.

The whole net is processed at once, so what is shared stays shared. Thick slices are first resampled to nearly cubic voxels by
shape-based interpolation. Taubin's filter smooths the net: no vertex leaves its cube, and vertices where three or more
structures meet move only along that line. Then each border moves along its normals by the difference of two *pressures*, one
for each label and 0 outside. The pressures are chosen so that every structure gets the volume of its voxels; to first order,
they solve a linear system in the areas of the borders. A structure that the border of the image cuts is closed there.

Only face neighbours are connected. Where a structure touches itself along an edge or at a corner, each part has its own
vertices, at the same position. So each edge of a surface belongs to exactly two triangles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are imported where they are first used

from autoseg.engines import map_cases, values_of
from autoseg.imaging.crop import crop, numbered
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import SurfaceMesh
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.surface import COARSE, PASS, STOP, isotropic_labels, label_boxes, with_ratio

__all__ = ["SurfaceNet", "shared_surfaces", "surface_net"]

ITERATIONS = 40  # of Taubin's filter; an unsmoothed net is a staircase
STEPS, NEAR = 20, 1e-3  # most steps towards the volumes; relative error of each volume at which they end
WIDE = 0.25  # voxels; the most that such a step moves a vertex
_AROUND = ((-1, -1), (0, -1), (0, 0), (-1, 0))  # the cubes around a pair of voxels, counterclockwise about its direction


@dataclass(frozen=True, eq=False)
class SurfaceNet:
    """The borders between all labels of a map.

    Attributes:
        points: (V, 3) float64 in index space (z, y, x).
        quads: (Q, 4) int32 vertex indices, counterclockwise in index space as seen from voxel ``above``.
        below, above: (Q,) the two voxels of each, as flat indices in the map padded by one voxel.
        inner, outer: (Q,) int32 codes of ``below`` and ``above``.
    """

    points: np.ndarray
    quads: np.ndarray
    below: np.ndarray
    above: np.ndarray
    inner: np.ndarray
    outer: np.ndarray


@dataclass(frozen=True, eq=False)
class _Triangles:
    """The net as triangles in mm, wound outward as seen from the ``inner`` label; attributes as in SurfaceNet."""

    points: np.ndarray
    faces: np.ndarray
    below: np.ndarray
    above: np.ndarray
    inner: np.ndarray
    outer: np.ndarray


def shared_surfaces(
    labels: LabelVolume, groups: Mapping[str, Sequence[int]], *, workers: int | None = None
) -> list[SurfaceMesh | None]:
    """The surface of every structure of a label map; neighbours share the vertices of their border.

    Args:
        labels: LabelVolume, of any orientation and spacing.
        groups: {structure: label values that belong to it}; structures may share values, as regions do.
        workers: threads.

    Returns:
        list of SurfaceMesh in the order of ``groups``, each closed and wound outward, None for a structure without voxels;
        with a note if the enclosed volume differs from that of the voxels by over 5 %.
    """
    values = sorted({int(value) for those in groups.values() for value in those})
    boxes = [box for box in label_boxes(labels.data, {value: (value,) for value in values}).values() if box is not None]
    if not boxes:
        return [None] * len(groups)
    lower, upper = (pick([box[end] for box in boxes], axis=0) for end, pick in ((0, np.min), (1, np.max)))
    part = crop(labels.data, lower, upper)
    codes = numbered(part, values)
    volumes_mm3 = np.bincount(codes.ravel(), minlength=len(values) + 1) * abs(np.linalg.det(labels.geometry.affine))
    known = LabelVolume(codes, labels.geometry.cropped(lower, part.shape))
    if max(known.geometry.spacing_mm) > COARSE * min(known.geometry.spacing_mm):
        known = isotropic_labels(known)
    net = _smoothed(surface_net(known.data))
    triangles = _filled(_in_patient(net, known.geometry), volumes_mm3, min(known.geometry.spacing_mm))
    order = np.lexsort((triangles.outer, triangles.inner))
    triangles = _Triangles(triangles.points, *(getattr(triangles, name)[order] for name in _OF_EACH))
    code_of, beside = {value: code for code, value in enumerate(values, 1)}, _beside(triangles, len(values) + 1)

    def surface(structure: str) -> SurfaceMesh | None:
        codes = sorted({code_of[value] for value in groups[structure]})
        inside = np.zeros(len(values) + 1, bool)
        inside[codes] = True
        mesh = _surface(triangles, np.unique(np.concatenate([beside[code] for code in codes])), inside, structure)
        return mesh and with_ratio(mesh, float(volumes_mm3[inside].sum()))

    return values_of(map_cases(surface, groups, workers=workers))


_OF_EACH = ("faces", "below", "above", "inner", "outer")


def surface_net(codes: np.ndarray) -> SurfaceNet:
    """The unsmoothed SurfaceNet of codes (Z, Y, X): its vertices are the centres of their cubes, in index space.

    Beyond the border of the map, the code is 0.
    """
    padded = np.pad(codes, 1)
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    cubes, below, above = [], [], []
    for axis in range(3):
        lines = np.moveaxis(padded, axis, 0)
        differs = np.moveaxis(lines[1:] != lines[:-1], 0, axis)
        voxels = np.ravel_multi_index(np.nonzero(differs), padded.shape)
        b, c = (strides[(axis + 1) % 3], strides[(axis + 2) % 3])
        cubes.append(np.stack([voxels + i * b + j * c for i, j in _AROUND], axis=1))
        below.append(voxels)
        above.append(voxels + strides[axis])
    all_cubes, lower, upper = (np.concatenate(parts) for parts in (cubes, below, above))
    there, quads = _numbered(all_cubes, padded.size)
    points = np.stack(np.unravel_index(there, padded.shape), axis=1) - 0.5  # 0.5 for the centre of a cube, -1 for the padding
    flat = padded.ravel()
    return SurfaceNet(points, quads, lower, upper, flat[lower], flat[upper])


def _numbered(names: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers that occur in ``names``, ascending; position of each of ``names`` among them), for numbers in [0, size)."""
    occurs = np.zeros(size, bool)
    occurs[names] = True
    place = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(occurs), place[names]


def _sides(net: SurfaceNet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(edges (E, 2) of the net, number of quadrilaterals at each (E,), edge number of each quadrilateral's sides (Q, 4))."""
    ends = np.sort(np.stack([net.quads, np.roll(net.quads, -1, axis=1)], axis=-1), axis=-1).astype(np.int64)
    names = ends[..., 0] * len(net.points) + ends[..., 1]
    there, number, count = np.unique(names, return_inverse=True, return_counts=True)
    return np.stack(np.divmod(there, len(net.points)), axis=1), count, number.reshape(net.quads.shape)


def _smoothed(net: SurfaceNet) -> SurfaceNet:
    """The net after Taubin's filter; a step towards the mean of the neighbours is the same in index space and in mm."""
    edges, count, _ = _sides(net)
    is_line = count > 2  # where three structures meet, or one touches itself
    on_line = np.zeros(len(net.points), bool)
    on_line[edges[is_line]] = True
    start, end = np.concatenate([edges, edges[:, ::-1]]).T
    counts = ~on_line[start] | np.tile(is_line, 2)
    joined = scipy.sparse.csr_matrix((np.ones(counts.sum(), np.float32), (start[counts], end[counts])), (len(net.points),) * 2)
    neighbours = np.asarray(joined.sum(axis=1))
    free = neighbours >= 2  # the end of a line does not move
    middle = net.points.astype(np.float32)
    points = middle.copy()
    for step in range(ITERATIONS):
        towards = joined @ points / np.maximum(neighbours, 1) - points
        points += np.where(free, (PASS if step % 2 == 0 else STOP) * towards, 0)
        np.clip(points, middle - 0.5, middle + 0.5, out=points)
    return replace(net, points=points.astype(float))


def _in_patient(net: SurfaceNet, geometry: Geometry) -> _Triangles:
    """The net as triangles in mm; each quadrilateral is split along its shorter diagonal.

    An edge of four quadrilaterals gets a vertex at its midpoint, so that parts that only touch there need not share an edge.
    A quadrilateral with such a side also gets a vertex at its centre.
    """
    _, count, side = _sides(net)
    points, quads = geometry.to_world(net.points), net.quads
    if np.linalg.det(geometry.affine) < 0:
        quads, side = quads[:, ::-1], side[:, [2, 1, 0, 3]]
    corners = points[quads]
    first, second = (np.linalg.norm(corners[:, i] - corners[:, i + 2], axis=1) for i in (0, 1))
    halves = np.where((first <= second)[:, None], quads[:, [0, 1, 2, 0, 2, 3]], quads[:, [1, 2, 3, 1, 3, 0]]).reshape(-1, 2, 3)
    parted = count[side] == 4
    plain = ~parted.any(axis=1)
    faces, owner = [halves[plain].reshape(-1, 3)], [np.repeat(np.flatnonzero(plain), 2)]
    special = np.flatnonzero(~plain)
    middles = np.unique(side[parted])
    ends = np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1)[parted]
    place = np.searchsorted(middles, side[parted])
    between = np.empty((len(middles), 3))
    between[place] = points[ends].mean(axis=1)
    centre = np.arange(len(special)) + len(points) + len(middles)
    for k in range(4):
        a, b = quads[special, k], quads[special, (k + 1) % 4]
        cut = parted[special, k]
        half = len(points) + np.searchsorted(middles, side[special, k][cut])
        faces += [np.stack([centre, a, b], axis=1)[~cut]]
        faces += [np.stack(part, axis=1) for part in ((centre[cut], a[cut], half), (centre[cut], half, b[cut]))]
        owner += [special[~cut], special[cut], special[cut]]
    every = np.concatenate([points, between, corners[special].mean(axis=1)])
    of = np.concatenate(owner)
    return _Triangles(every, np.concatenate(faces), net.below[of], net.above[of], net.inner[of], net.outer[of])


def _filled(net: _Triangles, volumes_mm3: np.ndarray, voxel_mm: float) -> _Triangles:
    """The triangles moved along their normals until each code encloses its volume.

    Args:
        volumes_mm3: (codes,); the first, of the background, is ignored.
        voxel_mm: the finest spacing.
    """
    codes, points = len(volumes_mm3), net.points
    there = np.flatnonzero(np.bincount(np.concatenate([net.inner, net.outer]), minlength=codes)[1:]) + 1
    for _ in range(STEPS):
        a, b, c = (points[net.faces[:, corner]] for corner in range(3))
        origin = points.mean(axis=0)
        normals = np.cross(b - a, c - a) / 2
        areas = np.linalg.norm(normals, axis=1)
        parts = ((a - origin) * np.cross(b - origin, c - origin)).sum(axis=1) / 6
        enclosed = np.bincount(net.inner, parts, codes) - np.bincount(net.outer, parts, codes)
        missing = (volumes_mm3 - enclosed)[there]
        if (np.abs(missing) <= NEAR * volumes_mm3[there]).all():
            break
        between = scipy.sparse.coo_matrix((areas, (net.inner, net.outer)), (codes, codes)).tocsr()
        between = between + between.T
        system = scipy.sparse.diags(np.asarray(between.sum(axis=1)).ravel()) - between
        pressure = np.zeros(codes)
        pressure[there] = scipy.sparse.linalg.spsolve(system[there][:, there].tocsc(), missing)
        pushed = normals * (pressure[net.inner] - pressure[net.outer])[:, None]
        corners = net.faces.ravel()
        area = np.bincount(corners, np.repeat(areas, 3), len(points))
        moved = np.stack([np.bincount(corners, np.repeat(pushed[:, axis], 3), len(points)) for axis in range(3)], axis=1)
        steps = moved / np.maximum(area, 1e-12)[:, None]
        length = np.linalg.norm(steps, axis=1, keepdims=True)
        points = points + steps * np.minimum(1, WIDE * voxel_mm / np.maximum(length, 1e-12))
    return replace(net, points=points)


def _beside(net: _Triangles, codes: int) -> list[np.ndarray]:
    """For each code the triangles that have it on one side, so that no structure looks through the triangles of all others."""
    sides = np.concatenate([net.inner, net.outer])
    order = np.argsort(sides, kind="stable")
    return np.split(order % len(net.inner), np.searchsorted(sides[order], np.arange(1, codes)))


def _surface(net: _Triangles, near: np.ndarray, inside: np.ndarray, structure: str) -> SurfaceMesh | None:
    """The triangles between the codes that are ``inside`` and all others, as a separate mesh; ``near`` has all of them."""
    pairs = near[inside[net.inner[near]] != inside[net.outer[near]]]
    if not len(pairs):
        return None
    within = inside[net.inner[pairs]]
    faces = np.where(within[:, None], net.faces[pairs], net.faces[pairs][:, ::-1])
    faces, parents = _apart(faces, np.where(within, net.below[pairs], net.above[pairs]))
    return SurfaceMesh(net.points[parents], faces.astype(np.int32), structure)


def _apart(faces: np.ndarray, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Copy vertices so that every edge belongs to two faces.

    Args:
        faces: (F, 3) vertex indices; each edge belongs to two or four faces.
        voxels: (F,) the voxel inside each; of four faces at an edge, those of the same voxel stay connected.

    Returns:
        (faces (F, 3) with new vertex indices; the vertex that each new vertex is a copy of).
    """
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    order = np.lexsort((np.repeat(voxels, 3), np.maximum(start, end), np.minimum(start, end)))
    first, second = order.reshape(-1, 2).T
    after = np.arange(len(start)) + np.where(np.arange(len(start)) % 3 == 2, -2, 1)
    joined = np.concatenate([first, after[first]]), np.concatenate([after[second], second])
    graph = scipy.sparse.coo_matrix((np.ones(len(joined[0]), bool), joined), (len(start),) * 2)
    count, numbers = scipy.sparse.csgraph.connected_components(graph, False)
    parents = np.empty(count, start.dtype)
    parents[numbers] = start
    return numbers.reshape(-1, 3), parents
