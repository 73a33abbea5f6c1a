"""How well the surfaces of neighbouring structures fit together: the gap and the overlap along their common border.

Two structures *touch* where a voxel of one has a face in common with a voxel of the other. Near such faces the middles of
triangles of one surface are measured against the plane of the nearest triangle of the other: a distance above zero is a gap,
below zero an overlap. That is right to second order, as surfaces are smooth and their triangles no larger than faces of voxels.
Volumes are the means of these distances times the area of the border. Both directions count alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from autoseg.engines import map_cases
from autoseg.imaging.crop import crop, nonzero_box
from autoseg.imaging.mesh import SurfaceMesh
from autoseg.imaging.volume import LabelVolume

__all__ = ["Border", "borders_as_json", "measure_borders"]

NEAR = 1.0  # diagonals of a voxel, from the middle of a common face: triangles that are nearer lie at the border
LOOKS = -0.5  # cosine of the angle between the normals of two surfaces that look at each other, at most
SAME_MM = 1e-9  # less is rounding


@dataclass(frozen=True)
class Border:
    """The common border of two structures of a case.

    Attributes:
        first, second: their names.
        faces: faces that voxels of both have in common.
        gap_mean_mm, gap_p95_mm, gap_max_mm: how far the two surfaces are apart along the border: mean, 95th percentile and
            maximum over its area. Where they overlap, how deep.
        gap_mm3: volume between them that belongs to neither.
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
        labels: LabelVolume that the surfaces are of.
        groups: {structure: label values that belong to it}. Structures with values in common, as regions have, are no
            neighbours.
        meshes: the surface of each, None for one without.
        workers: threads.

    Returns:
        tuple of Border, in the order of ``groups``.
    """
    names, values = list(groups), [set(those) for those in groups.values()]
    touching = _common_faces(labels.data)
    near_mm = NEAR * float(np.linalg.norm(labels.geometry.spacing_mm))
    pairs: list[tuple[int, int, np.ndarray]] = []
    for i, j in combinations(range(len(names)), 2):
        if meshes[i] is None or meshes[j] is None or values[i] & values[j]:
            continue
        faces = [touching[pair] for a in values[i] for b in values[j] if (pair := (min(a, b), max(a, b))) in touching]
        if faces:
            pairs.append((i, j, np.concatenate(faces)))
    shapes = {i: _Shape.of(mesh) for i, mesh in enumerate(meshes) if mesh and any(i in pair[:2] for pair in pairs)}

    def measure(pair: tuple[int, int, np.ndarray]) -> Border:
        i, j, faces = pair
        return _measured(names[i], names[j], shapes[i], shapes[j], labels.geometry.to_world(faces), near_mm)

    outcomes = map_cases(measure, pairs, workers=workers)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return tuple(outcome.value for outcome in outcomes)


def borders_as_json(borders: Iterable[Border]) -> list[dict[str, Any]]:
    """Borders as a list of dictionaries."""
    return [asdict(border) for border in borders]


def _common_faces(data: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """{(value, larger value): (N, 3) indices of the middles of the faces that two values other than 0 have in common}."""
    lower, upper = nonzero_box(data[None])
    part = crop(data, lower, upper)
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for axis in range(3):
        lines = np.moveaxis(part, axis, 0)
        before, after = lines[:-1], lines[1:]
        where = np.nonzero((before != after) & (before != 0) & (after != 0))
        if not len(where[0]):
            continue
        two = np.sort(np.stack([before[where], after[where]], axis=1).astype(np.int64), axis=1)
        order = np.lexsort(two.T)
        starts = np.flatnonzero(np.r_[True, (np.diff(two[order], axis=0) != 0).any(axis=1)])
        index = np.stack(where, axis=1)[order].astype(float)
        index[:, 0] += 0.5
        middles = index[:, np.argsort([axis, *(other for other in range(3) if other != axis)])] + lower
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            a, b = two[order[start]].tolist()
            found.setdefault((a, b), []).append(middles[start:stop])
    return {pair: np.concatenate(parts) for pair, parts in found.items()}


@dataclass(frozen=True, eq=False)
class _Shape:
    """The middles of triangles (F, 3) in mm, their unit normals (F, 3), outward, and areas in mm2 (F,)."""

    points: np.ndarray
    normals: np.ndarray
    areas: np.ndarray
    tree: cKDTree

    @classmethod
    def of(cls, mesh: SurfaceMesh) -> _Shape:
        a, b, c = (mesh.vertices_mm[mesh.faces[:, corner]] for corner in range(3))
        normals, points = np.cross(b - a, c - a), (a + b + c) / 3
        lengths = np.linalg.norm(normals, axis=1)
        return cls(points, normals / np.maximum(lengths, 1e-12)[:, None], lengths / 2, cKDTree(points))


def _measured(first: str, second: str, one: _Shape, other: _Shape, faces_mm: np.ndarray, near_mm: float) -> Border:
    border = cKDTree(faces_mm)
    found = [_apart(a, b, border, near_mm) for a, b in ((one, other), (other, one))]
    apart, weights = (np.concatenate([part[i] for part in found]) for i in (0, 1))
    area = sum(part[2] for part in found) / 2  # each direction sees the border once
    if not len(apart):
        return Border(first, second, len(faces_mm), 0.0, 0.0, 0.0, 0.0, 0.0)
    size, order = np.abs(apart), np.argsort(np.abs(apart))
    reached = np.cumsum(weights[order]) / weights.sum()
    return Border(
        first,
        second,
        len(faces_mm),
        float(np.average(size, weights=weights)),
        float(size[order[np.flatnonzero(reached >= 0.95)[0]]]),
        float(size.max()),
        float(area * np.average(apart.clip(min=0), weights=weights)),
        float(area * np.average((-apart).clip(min=0), weights=weights)),
    )


def _apart(one: _Shape, other: _Shape, border: cKDTree, near_mm: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(mm from triangles of one surface near the border to the other surface, below 0 within it, their areas, all area there).

    A triangle counts where no other one is nearer to the triangle that is nearest to it: what lies beyond the end of the border
    would be measured against that end. The area is of all that look at the other surface, be they off by half a voxel.
    """
    away, _ = border.query(one.points, distance_upper_bound=near_mm)
    at = np.flatnonzero(np.isfinite(away))
    far, nearest = other.tree.query(one.points[at])
    normals = other.normals[nearest]
    least, _ = one.tree.query(other.points[nearest])
    apart = ((one.points[at] - other.points[nearest]) * normals).sum(axis=1)
    apart[np.abs(apart) < SAME_MM] = 0
    faces = (one.normals[at] * normals).sum(axis=1) < LOOKS
    aside = far**2 - apart**2 <= (near_mm / 2) ** 2
    counts = faces & (far <= least + SAME_MM)
    return apart[counts], one.areas[at[counts]], float(one.areas[at[faces & aside]].sum())
