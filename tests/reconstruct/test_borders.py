"""Gap and overlap of the surfaces of neighbours: known by construction, and against VTK's points within surfaces."""

from dataclasses import replace

import numpy as np
import pytest
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.borders import measure_borders
from autoseg.reconstruct.shared import shared_surfaces
from autoseg.reconstruct.surface import surfaces_from_labels

TWO = {"left": (1,), "right": (2,)}


def two_blocks():
    data = np.zeros((20, 20, 30), np.uint8)
    data[2:18, 2:18, 2:15], data[2:18, 2:18, 15:28] = 1, 2
    return LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1)))


@pytest.mark.parametrize("by", [0.4, -0.4])
def test_a_surface_that_was_moved_away_leaves_a_gap_of_that_width_or_overlaps(by):
    labels = two_blocks()
    left, right, both = shared_surfaces(labels, TWO | {"both": (1, 2)})
    area = (left.area_mm2 + right.area_mm2 - both.area_mm2) / 2  # less than 256, as corners are round
    moved = replace(right, vertices_mm=right.vertices_mm + [by, 0, 0])
    (found,) = measure_borders(labels, TWO, (left, moved))
    assert (found.first, found.second, found.faces) == ("left", "right", 256)
    assert (found.gap_mean_mm, found.gap_p95_mm) == pytest.approx((0.4, 0.4), abs=0.03)
    volumes = (found.gap_mm3, found.overlap_mm3)
    # triangles along its rim, a quarter of all, may be nearer to the walls of the blocks, and are left out
    assert volumes[by < 0] == pytest.approx(0.4 * area, rel=0.1 if by > 0 else 0.15)
    assert volumes[by > 0] < 1


def inside(mesh, points):
    """Which points VTK finds within a surface."""
    surface, cloud = vtk.vtkPolyData(), vtk.vtkPolyData()
    for data, coordinates in ((surface, mesh.vertices_mm), (cloud, points)):
        places = vtk.vtkPoints()
        places.SetData(numpy_to_vtk(np.ascontiguousarray(coordinates)))
        data.SetPoints(places)
    cells = vtk.vtkCellArray()
    faces = np.ascontiguousarray(mesh.faces, np.int64)
    cells.SetData(numpy_to_vtk(np.arange(0, 3 * len(faces) + 1, 3)), numpy_to_vtk(faces.ravel()))
    surface.SetPolys(cells)
    chosen = vtk.vtkSelectEnclosedPoints()
    chosen.SetInputData(cloud)
    chosen.SetSurfaceData(surface)
    chosen.Update()
    return vtk_to_numpy(chosen.GetOutput().GetPointData().GetArray("SelectedPoints")).astype(bool)


@pytest.mark.slow
def test_the_overlap_of_surfaces_of_single_structures_is_that_of_points_within_both():
    step = np.indices((24, 24, 24)) - 11.5
    data = np.where((step**2).sum(axis=0) < 100, 1, 0).astype(np.uint8)
    data[((step - np.reshape((0, 0, 4), (3, 1, 1, 1))) ** 2).sum(axis=0) < 36] = 2  # a ball within a ball
    labels = LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1)))
    meshes = surfaces_from_labels(labels, TWO)
    (found,) = measure_borders(labels, TWO, meshes)
    assert 0 < found.gap_mean_mm < found.gap_p95_mm <= found.gap_max_mm < 1.5
    edge = 0.25
    points = np.stack(np.meshgrid(*[np.arange(7, 25, edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) - 4
    both = inside(meshes[0], points) & inside(meshes[1], points)
    assert found.overlap_mm3 == pytest.approx(both.sum() * edge**3, rel=0.15)


def test_only_structures_that_touch_over_faces_have_a_border():
    data = np.zeros((8, 8, 24), np.int16)
    data[2:6, 2:6, 2:6], data[2:6, 2:6, 6:10], data[2:6, 2:6, 12:16], data[2:6, 2:6, 16:20] = 1, 2, 3, -9
    data[6, 6, 10] = 4  # touches 2 in a corner
    labels = LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1)))
    groups = {"a": (1,), "b": (2,), "c": (3,), "d": (-9,), "e": (4,), "a and b": (1, 2), "none": (5,)}
    found = measure_borders(labels, groups, surfaces_from_labels(labels, groups))
    assert [(one.first, one.second, one.faces) for one in found] == [("a", "b", 16), ("c", "d", 16)]
