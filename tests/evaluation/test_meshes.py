"""Distances of surfaces against formulas and against VTK."""

import numpy as np
import pytest
import trimesh

from autoseg.evaluation import meshes
from autoseg.evaluation.meshes import score_surfaces, surface_distances
from autoseg.imaging.mesh import SurfaceMesh


def ball(radius, middle=(0, 0, 0), subdivisions=5):
    shape = trimesh.creation.icosphere(subdivisions, radius)
    return SurfaceMesh(shape.vertices + np.array(middle), np.asarray(shape.faces, np.int32), "ball")


def box(extents):
    shape = trimesh.creation.box(extents)
    return SurfaceMesh(np.asarray(shape.vertices), np.asarray(shape.faces, np.int32), "box")


def scores_of(reference, predicted, case=""):
    return {name: value for name, value, _ in score_surfaces(reference, predicted, case=case)}


@pytest.mark.thorough
def test_concentric_balls_are_the_difference_of_their_radii_apart():
    found = surface_distances(ball(20), ball(22))
    for distances in (found.from_reference_mm, found.from_predicted_mm):
        np.testing.assert_allclose(distances, 2, atol=0.02)  # the chords of the triangles
    assert found.reference_areas.sum() == pytest.approx(4 * np.pi * 20**2, rel=0.002)
    scores = scores_of(ball(20), ball(22))
    assert scores.pop("surface_nsd") == 0
    assert list(scores.values()) == pytest.approx([2] * 3, abs=0.01)
    scores = scores_of(ball(20), ball(20.9))
    assert scores["surface_nsd"] == 1


def test_large_triangles_are_measured_to_their_inside_and_means_are_told_apart():
    """Each point of the inner box lies 1 mm under the outer one, whose edges and corners lie further."""
    inner, outer = box((98, 98, 98)), box((100, 100, 100))
    scores = scores_of(inner, outer)
    found = surface_distances(inner, outer)
    np.testing.assert_allclose(found.from_reference_mm, 1, atol=0.03)
    assert found.from_predicted_mm.min() == pytest.approx(1)
    assert found.from_predicted_mm.max() < 3**0.5 + 0.03
    assert scores["surface_masd_mm"] == pytest.approx(1 + np.mean(found.from_predicted_mm - 1) / 2, rel=1e-4)
    assert scores["surface_assd_mm"] == pytest.approx(
        (98**2 + 100**2 * found.from_predicted_mm.mean()) / (98**2 + 100**2), rel=1e-4
    )


@pytest.mark.thorough
def test_distances_are_those_of_vtk():
    vtk = pytest.importorskip("vtk", reason="VTK comes with the extra dev")
    from vtk.util import numpy_support

    reference, predicted = ball(10, subdivisions=4), ball(9, (3, 1, 0), subdivisions=3)

    def implicit(mesh):
        data, points, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
        points.SetData(numpy_support.numpy_to_vtk(mesh.vertices_mm, deep=True))
        rows = np.column_stack([np.full(len(mesh.faces), 3), mesh.faces]).astype(np.int64).ravel()
        cells.SetCells(len(mesh.faces), numpy_support.numpy_to_vtkIdTypeArray(rows, deep=True))
        data.SetPoints(points)
        data.SetPolys(cells)
        distance = vtk.vtkImplicitPolyDataDistance()
        distance.SetInput(data)
        return distance

    def directed(mesh, other):
        """(distances, areas) at the middles of triangles cut into four."""
        vertices, faces = trimesh.remesh.subdivide(mesh.vertices_mm, mesh.faces)
        shape, distance = trimesh.Trimesh(vertices, faces, process=False), implicit(other)
        middles = shape.triangles_center
        return np.abs([distance.EvaluateFunction(p) for p in middles]), shape.area_faces

    (a, a_areas), (b, b_areas) = directed(reference, predicted), directed(predicted, reference)
    means = np.average(a, weights=a_areas), np.average(b, weights=b_areas)
    every, areas = np.concatenate([a, b]), np.concatenate([a_areas, b_areas])
    expected = {
        "surface_assd_mm": np.average(every, weights=areas),
        "surface_masd_mm": np.mean(means),
        "surface_hd95_mm": max(np.quantile(a, 0.95), np.quantile(b, 0.95)),  # of triangles about as large as each other
        "surface_nsd": np.average(every <= 1, weights=areas),
    }
    scores = scores_of(reference, predicted, case="one")
    assert scores == pytest.approx(expected, rel=0.01)
    assert scores == scores_of(reference, predicted, case="one")
    assert scores["surface_nsd"] != scores_of(reference, predicted, case="two")["surface_nsd"]


def test_small_surfaces_need_few_points(monkeypatch):
    reference, predicted = ball(4, subdivisions=2), box((6.0, 7.0, 5.0))
    assert len(surface_distances(reference, predicted).from_reference_mm) == 2_000
    assert len(surface_distances(ball(20), predicted).from_predicted_mm) == 10_000
    few = scores_of(reference, predicted)
    monkeypatch.setattr(meshes, "FEWEST_POINTS", 100_000)
    monkeypatch.setattr(meshes, "MOST_POINTS", 100_000)
    assert few == pytest.approx(scores_of(reference, predicted), rel=0.005)


def test_each_triangle_is_measured_once_for_a_point(monkeypatch):
    def counting(triangles, points):
        measured.append(len(points))
        return closest(triangles, points)

    measured, closest = [], trimesh.triangles.closest_point
    monkeypatch.setattr(trimesh.triangles, "closest_point", counting)
    score_surfaces(ball(4, subdivisions=2), box((6.0, 7.0, 5.0)))
    assert sum(measured) < 2 * 2_000 * 7


def test_a_surface_that_is_missing_is_undefined_and_said():
    assert {value for _, value, _ in score_surfaces(None, ball(3))} == {None}
    assert {reason for _, _, reason in score_surfaces(ball(3), None)} == {"no surface of the prediction"}
    assert {reason for _, _, reason in score_surfaces(None, None)} == {"no surface of the reference and the prediction"}
