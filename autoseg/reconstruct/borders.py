"""Gap and overlap between the surfaces of neighbouring structures, along their common border.

Two structures *touch* if a voxel of one shares a face with a voxel of the other. A triangle of a surface belongs to the border
with the label on the other side of the nearest outer voxel face. There, the distance from the centroid of a triangle to the
plane of the nearest triangle of the other surface is measured: positive is a gap, negative an overlap. This is accurate to
second order, since the surfaces are smooth and their triangles no larger than voxel faces. A volume is the mean of these
distances times the area of the border. Both directions count equally.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy  # its parts are imported where they are first used

from autoseg.engines import map_cases, values_of
from autoseg.imaging.crop import crop, nonzero_box
from autoseg.imaging.mesh import SurfaceMesh
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.surface import Box, label_boxes

__all__ = ["Border", "borders_as_json", "measure_borders"]

LOOKS = -0.5  # surfaces face each other if the cosine of the angle between their normals is below this
SAME_MM = 1e-9  # smaller distances are rounding errors


@dataclass(frozen=True)
class Border:
    """The common border of two structures of a case.

    Attributes:
        first, second: names of the structures.
        faces: number of voxel faces that they share.
        gap_mean_mm, gap_p95_mm, gap_max_mm: distance between the two surfaces along the border: mean and 95th percentile,
            weighted by area, and maximum. An overlap counts with its depth.
        gap_mm3: volume between the surfaces.
        overlap_mm3: volume that both enclose.
    """

    first: str
    second: str
    faces: int
    gap_mean_mm: float
    gap_p95_mm: float
    gap_max_mm: float
    gap_mm3: float
    overlap_mm3: float


def measure_borders(
    labels: LabelVolume,
    groups: Mapping[str, Sequence[int]],
    meshes: Sequence[SurfaceMesh | None],
    *,
    workers: int | None = None,
) -> tuple[Border, ...]:
    """The Border of each pair of structures that touch.

    Args:
        labels: LabelVolume that the surfaces were made from.
        groups: {structure: label values that belong to it}. Structures that share values, as regions do, are not
            neighbours.
        meshes: the surface of each structure in the same order, None for one without.
        workers: threads.

    Returns:
        tuple of Border, in the order of ``groups``. Distances and volumes are 0 if no triangles face each other.
    """
    names, values = list(groups), [sorted({int(value) for value in those}) for those in groups.values()]
    boxes = label_boxes(labels.data, dict(enumerate(values)))
    there = [i for i, mesh in enumerate(meshes) if mesh is not None and boxes[i] is not None]
    pairs = _touching(labels.data)

    def outline(i: int) -> _Outline:
        mesh, box = meshes[i], boxes[i]
        assert mesh is not None and box is not None  # noqa: PT018 - what has a surface has voxels
        return _Outline.of(mesh, labels, values[i], box)

    faces = _faces_between(pairs, {i: values[i] for i in there})
    touch = sorted(faces)
    needed = sorted({i for pair in touch for i in pair})
    outlines = dict(zip(needed, values_of(map_cases(outline, needed, workers=workers)), strict=True))
    away_mm = float(np.linalg.norm(labels.geometry.spacing_mm)) / 2

    def measure(pair: tuple[int, int]) -> Border:
        i, j = pair
        found = [_apart(outlines[a], outlines[b], values[a], values[b], away_mm) for a, b in (pair, pair[::-1])]
        return _border(names[i], names[j], faces[pair], found)

    return tuple(values_of(map_cases(measure, touch, workers=workers)))


def borders_as_json(borders: Iterable[Border]) -> list[dict[str, Any]]:
    """Borders as a list of dictionaries."""
    return [asdict(border) for border in borders]


def _touching(data: np.ndarray) -> dict[tuple[int, int], int]:
    """{(value, larger value): number of voxel faces that these two values share}, without 0."""
    found = []
    data = crop(data, *nonzero_box(data[None]))
    for at, plane in enumerate(data):  # its neighbours within the plane, and those in the next one
        beside = [(plane[:-1], plane[1:]), (plane[:, :-1], plane[:, 1:]), *((plane, below) for below in data[at + 1 : at + 2])]
        for before, after in beside:
            where = (before != after) & (before != 0) & (after != 0)
            found.append(np.sort(np.stack([before[where], after[where]]).astype(np.int64), axis=0))
    low, high = np.concatenate(found, axis=1) if found else np.zeros((2, 0), np.int64)
    values, places = np.unique(np.concatenate([low, high]), return_inverse=True)
    names, counts = np.unique(places[: len(low)] * len(values) + places[len(low) :], return_counts=True)
    ends = zip(*(values[part].tolist() for part in np.divmod(names, max(1, len(values)))), strict=True)
    return dict(zip(ends, counts.tolist(), strict=True))


def _faces_between(pairs: Mapping[tuple[int, int], int], values: Mapping[int, Sequence[int]]) -> dict[tuple[int, int], int]:
    """{(i, j) of structures that touch, i < j: how many faces they have in common}; none for two with values in common."""
    owners: dict[int, list[int]] = {}
    for i, those in values.items():
        for value in those:
            owners.setdefault(value, []).append(i)
    found = Counter[tuple[int, int]]()
    for (a, b), faces in pairs.items():
        for i, j in itertools.product(owners.get(a, ()), owners.get(b, ())):
            found[min(i, j), max(i, j)] += faces
    return {(i, j): faces for (i, j), faces in found.items() if not {*values[i]} & {*values[j]}}


@dataclass(frozen=True, eq=False)
class _Outline:
    """The triangles of a surface.

    Attributes:
        points: (F, 3) centroids in mm.
        normals: (F, 3) of length 1, outward.
        areas: (F,) mm².
        beyond: (F,) label value on the other side of the nearest outer voxel face.
        tree: k-d tree of the points.
    """

    points: np.ndarray
    normals: np.ndarray
    areas: np.ndarray
    beyond: np.ndarray
    tree: Any  # scipy.spatial.cKDTree

    @classmethod
    def of(cls, mesh: SurfaceMesh, labels: LabelVolume, values: Sequence[int], box: Box) -> _Outline:
        a, b, c = (mesh.vertices_mm[mesh.faces[:, corner]] for corner in range(3))
        normals, points = np.cross(b - a, c - a), (a + b + c) / 3
        lengths = np.linalg.norm(normals, axis=1)
        middles, beyond = _faces(labels, values, box)
        _, nearest = scipy.spatial.cKDTree(middles).query(points)
        return cls(
            points, normals / np.maximum(lengths, 1e-12)[:, None], lengths / 2, beyond[nearest], scipy.spatial.cKDTree(points)
        )


def _faces(labels: LabelVolume, values: Sequence[int], box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Outer faces of the voxels with some values: (centres (N, 3) in mm, label value on the other side, 0 outside the map)."""
    lower = [a - 1 for a in box[0]]
    inner = tuple(slice(max(0, a - 1), b + 1) for a, b in zip(*box, strict=True))
    margins = [(int(a == 0), int(b == n)) for a, b, n in zip(*box, labels.data.shape, strict=True)]
    part = np.pad(labels.data[inner], margins)
    inside = part == values[0] if len(values) == 1 else np.isin(part, values)
    middles, beyond = [], []
    for axis in range(3):
        lines, data = np.moveaxis(inside, axis, 0), np.moveaxis(part, axis, 0)
        where = np.nonzero(lines[1:] != lines[:-1])
        outside = np.where(lines[:-1][where], data[1:][where], data[:-1][where])
        index = np.stack(where, axis=1) + [0.5, 0, 0]
        order = np.argsort([axis, *(other for other in range(3) if other != axis)])
        middles.append(index[:, order] + lower)
        beyond.append(outside)
    return labels.geometry.to_world(np.concatenate(middles)), np.concatenate(beyond)


def _apart(
    one: _Outline, other: _Outline, values: Sequence[int], others: Sequence[int], away_mm: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Distances from the triangles of one surface to another surface, along their border.

    A triangle counts if it and a triangle of the other surface are nearest to each other and both are at the border: triangles
    past the end of the border are not measured against that end. If most of these triangles are the same in both surfaces, only
    those count. The border's area includes every triangle that faces the other surface and is off its nearest triangle by at
    most ``away_mm`` sideways.

    Returns:
        (distances in mm, negative inside the other surface; areas of these triangles; area of the border, both in mm²).
    """
    at = np.flatnonzero(np.isin(one.beyond, others))
    far, nearest = other.tree.query(one.points[at])
    normals = other.normals[nearest]
    least, _ = one.tree.query(other.points[nearest])
    apart = ((one.points[at] - other.points[nearest]) * normals).sum(axis=1)
    apart[np.abs(apart) < SAME_MM] = 0
    looks = (one.normals[at] * normals).sum(axis=1) < LOOKS
    area = one.areas[at[looks & (far**2 - apart**2 <= away_mm**2)]].sum()
    counts = looks & (far <= least + SAME_MM) & np.isin(other.beyond[nearest], values)
    same = counts & (far < SAME_MM)
    counts = same if 2 * same.sum() > counts.sum() else counts
    return apart[counts], one.areas[at[counts]], float(area)


def _border(first: str, second: str, faces: int, found: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> Border:
    """The Border of two structures, from ``_apart`` in both directions."""
    apart, weights = (np.concatenate([part[i] for part in found]) for i in (0, 1))
    if not len(apart):
        return Border(first, second, faces, 0.0, 0.0, 0.0, 0.0, 0.0)
    area = sum(part[2] for part in found) / 2  # each direction sees the border once
    size, order = np.abs(apart), np.argsort(np.abs(apart))
    reached = np.cumsum(weights[order]) / weights.sum()
    return Border(
        first,
        second,
        faces,
        float(np.average(size, weights=weights)),
        float(size[order[np.flatnonzero(reached >= 0.95)[0]]]),
        float(size.max()),
        float(area * np.average(apart.clip(min=0), weights=weights)),
        float(area * np.average((-apart).clip(min=0), weights=weights)),
    )
