"""Distances between two triangle meshes: the written surface of a structure and the reference's.

Points are sampled uniformly over each surface. Each is measured against the *triangles* of the other surface, not against its
points, so no fine meshing is needed. The nearest triangle is searched among the ``CANDIDATES`` with the nearest centroids or
points (scipy's KD-tree); missing it overestimates a distance, by less than a fiftieth of a millimetre on surfaces made here.
With ``MOST_POINTS`` points on each surface, percentiles and fractions are known to about half a percent of the area. Surfaces
of few triangles get fewer points, so that a thousand small structures take no longer than they must.

These differ from ``hd95_mm`` and so on, which are measured on voxels; hence their prefix.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from autoseg.evaluation.surfaces import SurfaceDistances, hausdorff, mean_surface_distance, surface_dice
from autoseg.imaging.mesh import SurfaceMesh

__all__ = ["SURFACE_SCORES", "TOLERANCE_MM", "score_surfaces", "surface_distances"]

FEWEST_POINTS, POINTS_PER_TRIANGLE, MOST_POINTS, CANDIDATES = 2_000, 4, 10_000, 12
TOLERANCE_MM = 1.0  # of the normalised surface distance


def _mean_of_both_directions(found: SurfaceDistances) -> float:
    directed = ((found.from_reference_mm, found.reference_areas), (found.from_predicted_mm, found.predicted_areas))
    return float(np.mean([np.average(distances, weights=areas) for distances, areas in directed]))


SURFACE_SCORES: dict[str, Callable[[SurfaceDistances], float]] = {
    "surface_assd_mm": mean_surface_distance,
    "surface_masd_mm": _mean_of_both_directions,
    "surface_hd95_mm": lambda found: hausdorff(found, 95.0),
    "surface_nsd": lambda found: surface_dice(found, TOLERANCE_MM),
}


def score_surfaces(
    reference: SurfaceMesh | None, predicted: SurfaceMesh | None, *, case: str = ""
) -> tuple[tuple[str, float | None, str], ...]:
    """((name, value, reason), ...) of ``SURFACE_SCORES`` for two SurfaceMeshes; either may be None.

    The mean distance over both surfaces together (ASSD), the mean of both directions (MASD), the larger 95th percentile of
    both directions, and the fraction of both surfaces within 1 mm of each other. None, with the reason, if a surface is
    missing.

    Args:
        case: identifier; seeds the random numbers, together with the structure's name.
    """
    missing = [name for name, mesh in (("reference", reference), ("prediction", predicted)) if mesh is None]
    if reference is None or predicted is None:
        reason = f"no surface of the {' and the '.join(missing)}"
        return tuple((name, None, reason) for name in SURFACE_SCORES)
    found = surface_distances(reference, predicted, case=case)
    return tuple((name, read(found), "") for name, read in SURFACE_SCORES.items())


def surface_distances(reference: SurfaceMesh, predicted: SurfaceMesh, *, case: str = "") -> SurfaceDistances:
    """SurfaceDistances of two SurfaceMeshes, from each point of one to the other."""
    rng = np.random.default_rng([zlib.crc32(name.encode()) for name in (case, reference.structure)])
    triangles = max(len(reference.faces), len(predicted.faces))
    count = int(np.clip(POINTS_PER_TRIANGLE * triangles, FEWEST_POINTS, MOST_POINTS))
    points, trees = zip(*(_spread(mesh, count, rng) for mesh in (reference, predicted)), strict=True)
    areas = [np.full(count, mesh.area_mm2 / count) for mesh in (reference, predicted)]
    return SurfaceDistances(
        from_reference_mm=_distances(points[0], predicted, *trees[1]),
        reference_areas=areas[0],
        from_predicted_mm=_distances(points[1], reference, *trees[0]),
        predicted_areas=areas[1],
    )


def _spread(mesh: SurfaceMesh, count: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple[cKDTree, np.ndarray]]:
    """(points (count, 3), (tree of these and the triangles' centroids, the triangle of each))."""
    corners = mesh.vertices_mm[mesh.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    reached = np.cumsum(areas) / areas.sum()
    face = np.searchsorted(reached, (np.arange(count) + rng.random(count)) / count).clip(max=len(areas) - 1)
    root, along = np.sqrt(rng.random((count, 1))), rng.random((count, 1))  # uniform within a triangle
    points = (1 - root) * corners[face, 0] + root * (1 - along) * corners[face, 1] + root * along * corners[face, 2]
    tree = cKDTree(np.concatenate([points, corners.mean(axis=1)]))
    return points, (tree, np.concatenate([face, np.arange(len(areas))]))


def _distances(points: np.ndarray, mesh: SurfaceMesh, tree: cKDTree, owner: np.ndarray) -> np.ndarray:
    """(N,) mm from points to the triangles of a mesh."""
    from trimesh.triangles import closest_point  # takes half a second

    _, near = tree.query(points, CANDIDATES)
    candidates = np.sort(owner[near], axis=1)
    which, place = np.nonzero(np.diff(candidates, axis=1, prepend=-1))  # a triangle once, however many points of it are near
    beside = points[which]
    away = np.linalg.norm(closest_point(mesh.vertices_mm[mesh.faces[candidates[which, place]]], beside) - beside, axis=1)
    return np.asarray(np.minimum.reduceat(away, np.flatnonzero(place == 0)))
