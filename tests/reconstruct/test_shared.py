"""Surfaces that share borders: closed, without gap or overlap, against VTK's net and surfaces of single structures."""

import numpy as np
import pytest
import trimesh
import vtk
from hypothesis import given, settings
from hypothesis import strategies as st
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from autoseg.evaluation.meshes import score_surfaces
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.borders import measure_borders
from autoseg.reconstruct.shared import shared_surfaces, surface_net
from autoseg.reconstruct.surface import surfaces_from_labels
from tests.reconstruct.test_surface import SPACINGS, check_closed, ellipsoid, errors

LEFT, RIGHT = -3, 70_000  # label values may be any whole numbers


def halves(spacing_mm, *, mirrored=False, radius=20):
    """A ball in two halves, on an oblique grid."""
    distance, geometry, _ = ellipsoid((radius,) * 3, spacing_mm, shift=(0.3, 0.1, -0.2), mirrored=mirrored)
    data = np.where(distance > 0, LEFT, 0).astype(np.int32)
    right = data[:, :, data.shape[2] // 2 :]
    right[right != 0] = RIGHT
    data.setflags(write=False)
    return LabelVolume(data, geometry)


def rows_of(points):
    return {tuple(point) for point in points.tolist()}


@pytest.mark.parametrize(("spacing", "mirrored"), [(SPACINGS[0], True), (SPACINGS[1], False), (SPACINGS[2], True)])
def test_halves_of_a_ball_are_closed_and_have_the_vertices_of_their_border_in_common(spacing, mirrored):
    labels = halves(spacing, mirrored=mirrored)
    groups = {"left": (LEFT,), "right": (RIGHT,), "all": (LEFT, RIGHT)}
    left, right, both = shared_surfaces(labels, groups)
    for mesh, values in zip((left, right, both), groups.values(), strict=True):
        check_closed(mesh)
        counted = np.isin(labels.data, values).sum() * np.prod(spacing)
        assert mesh.volume_mm3 == pytest.approx(counted, rel=2e-3)
    assert left.volume_mm3 + right.volume_mm3 == pytest.approx(both.volume_mm3, rel=1e-9)  # no gap, no overlap
    border = rows_of(left.vertices_mm) & rows_of(right.vertices_mm)
    assert len(border) > 0.8 * np.pi * 20**2 / min(spacing) ** 2
    assert rows_of(left.vertices_mm) | rows_of(right.vertices_mm) == rows_of(both.vertices_mm) | border
    (found,) = measure_borders(labels, {"left": (LEFT,), "right": (RIGHT,)}, (left, right))
    assert (found.gap_max_mm, found.gap_mm3, found.overlap_mm3) == (0, 0, 0)
    assert found.faces == (labels.data[:, :, labels.data.shape[2] // 2] == RIGHT).sum()


NEAR = [((20, 14, 10), SPACINGS[0]), ((6, 6, 6), SPACINGS[1]), ((20, 14, 10), SPACINGS[1]), ((6, 6, 6), SPACINGS[2])]


@pytest.mark.parametrize(("half", "spacing"), NEAR)
def test_shared_surfaces_are_near_those_of_single_structures(spacing, half):
    """Which interpolate within the slices too: steps between voxels leave 2 to 4 % more area."""
    distance, geometry, _ = ellipsoid(half, spacing, shift=(0.3, 0.1, -0.2))
    labels = LabelVolume((distance > 0).astype(np.uint8), geometry)
    (shared,), (single,) = (make(labels, {"it": (1,)}) for make in (shared_surfaces, surfaces_from_labels))
    check_closed(shared)
    assert shared.volume_mm3 == pytest.approx(single.volume_mm3, rel=2e-3)
    assert -0.01 < shared.area_mm2 / single.area_mm2 - 1 < 0.04
    assert np.abs(errors(shared, half)).max() < 0.06
    scores = {name: value for name, value, _ in score_surfaces(single, shared)}
    assert scores["surface_hd95_mm"] < 0.6 * min(spacing)
    assert scores["surface_assd_mm"] < 0.25 * min(spacing)


def test_the_net_is_that_of_vtk():
    codes = np.random.default_rng(3).integers(0, 4, (6, 7, 8)).astype(np.int32)
    net = surface_net(codes)
    image = vtk.vtkImageData()
    padded = np.pad(codes, 1)
    image.SetDimensions(*padded.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel().astype(float)))
    nets = vtk.vtkSurfaceNets3D()
    nets.SetInputData(image)
    nets.GenerateLabels(4, 0, 3)
    nets.SetBackgroundLabel(0)
    nets.SmoothingOff()
    nets.SetOutputMeshTypeToQuads()
    nets.Update()
    found = nets.GetOutput()
    points = vtk_to_numpy(found.GetPoints().GetData())[:, ::-1] - 1
    quads = vtk_to_numpy(found.GetPolys().GetConnectivityArray()).reshape(-1, 4)
    sides = np.sort(vtk_to_numpy(found.GetCellData().GetArray("BoundaryLabels")), axis=1)

    def described(points, quads, sides):
        middles = points[quads].mean(axis=1)
        return sorted(tuple(row) for row in np.concatenate([middles, sides], axis=1).tolist())

    ours = np.sort(np.stack([net.inner, net.outer], axis=1), axis=1)
    assert described(net.points, net.quads, ours) == described(points, quads, sides)
    assert rows_of(net.points) == rows_of(points.astype(float))


@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_every_structure_of_any_map_is_closed(shape, values, seed):
    """Noise touches itself along edges and in corners, and fills the volume up to its border."""
    data = np.random.default_rng(seed).integers(0, values + 1, shape)
    labels = LabelVolume(data, Geometry.from_spacing(shape, (1.2, 1.0, 0.9)))
    groups = {f"{value}": (value,) for value in range(1, values + 1)} | {"odd": tuple(range(1, values + 1, 2))}
    for mesh, those in zip(shared_surfaces(labels, groups), groups.values(), strict=True):
        counted = np.isin(data, those).sum()
        assert (mesh is None) == (counted == 0)
        if mesh is not None:
            assert mesh.is_watertight
            shape_of = trimesh.Trimesh(mesh.vertices_mm, mesh.faces, process=False)
            assert shape_of.euler_number % 2 == 0
            assert mesh.volume_mm3 == pytest.approx(counted * 1.08, rel=0.1)


def test_what_the_border_cuts_is_closed_at_the_outer_faces():
    data = np.zeros((12, 12, 12), np.uint8)
    data[:, :, :6], data[:, :, 6:] = 1, 2
    labels = LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1)))
    for mesh in shared_surfaces(labels, {"a": (1,), "b": (2,)}):
        check_closed(mesh)
        assert mesh.volume_mm3 == pytest.approx(864, rel=1e-3)
        assert np.abs(mesh.vertices_mm[:, 1:] - 5.5).max() == pytest.approx(6, abs=0.2)


def test_structures_without_voxels_have_no_shared_surface():
    labels = LabelVolume(np.zeros((4, 5, 6), np.int16), Geometry.from_spacing((4, 5, 6), (1, 1, 1)))
    assert shared_surfaces(labels, {"a": (1,), "b": (2, 3)}) == [None, None]
    assert shared_surfaces(LabelVolume(labels.data + 7, labels.geometry), {"a": (1,)}) == [None]
