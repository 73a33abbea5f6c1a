"""Grids and arrays move together: properties over random oblique, anisotropic, flipped and permuted grids."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from autoseg.errors import GeometryError
from autoseg.imaging.crop import crop, nonzero_box, value_boxes
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import resample_codes
from autoseg.imaging.volume import LabelVolume, Volume, orient


@st.composite
def grids(draw, longest=9):
    shape = draw(st.tuples(*[st.integers(1, longest)] * 3))
    spacing = np.array(draw(st.tuples(*[st.floats(0.3, 6)] * 3)))
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    origin = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return Geometry.from_affine(shape, np.column_stack([turn * signs * spacing, origin]))


def indices(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)


def points(geometry):
    """(Z, Y, X, 3): where each voxel lies; the array whose values must follow the geometry."""
    return geometry.to_world(indices(geometry.shape).reshape(-1, 3)).reshape(*geometry.shape, 3)


@given(grids())
def test_index_and_world_are_inverse(geometry):
    index = indices(geometry.shape).reshape(-1, 3)
    assert np.allclose(geometry.to_index(geometry.to_world(index)), index, atol=1e-6)


@given(grids(), st.data())
def test_cropping_moves_no_voxel(geometry, data):
    lower = [data.draw(st.integers(0, n - 1)) for n in geometry.shape]
    upper = [data.draw(st.integers(a + 1, n)) for a, n in zip(lower, geometry.shape, strict=True)]
    where = np.moveaxis(points(geometry), -1, 0)
    part = crop(where, lower, upper)
    assert np.allclose(np.moveaxis(part, 0, -1), points(geometry.cropped(lower, part.shape[1:])), atol=1e-6)


@given(grids(), st.permutations([0, 1, 2]), st.sets(st.integers(0, 2)))
def test_transposing_and_flipping_move_no_voxel(geometry, order, flips):
    turned = geometry.transposed(order).flipped(sorted(flips))
    moved = np.flip(points(geometry).transpose(*order, 3), sorted(flips))
    assert np.allclose(moved, points(turned), atol=1e-6)


HALFWAY = Geometry(  # 45 degrees between two axes: once told apart by rounding alone
    shape=(1, 1, 1),
    rows=((-(0.5**0.5), 0.5**0.5 + 1e-16, 0.0, 0.0), (-(0.5**0.5) - 1e-16, -(0.5**0.5), 0.0, 0.0), (0.0, 0.0, -1.0, 0.0)),
)


@given(grids())
@example(HALFWAY)
def test_canonical_arrays_run_to_head_front_and_right(geometry):
    order, flips = geometry.canonical()
    turned = geometry.oriented(order, flips)
    assert turned.orientation == "SAR"
    assert turned.canonical() == ((0, 1, 2), ())
    moved = np.moveaxis(orient(np.moveaxis(points(geometry), -1, 0), order, flips), 0, -1)
    assert np.allclose(moved, points(turned), atol=1e-6)


@given(grids(), st.tuples(*[st.integers(1, 20)] * 3))
def test_resizing_keeps_the_outer_faces(geometry, shape):
    resized = geometry.resized(shape)
    assert resized.shape == shape
    for grid_corner in (0, 1):
        faces = [np.full(3, -0.5) + np.array(g.shape) * grid_corner for g in (geometry, resized)]
        assert np.allclose(geometry.to_world([faces[0]]), resized.to_world([faces[1]]), atol=1e-6)
    assert resized.resized(geometry.shape).matches(geometry, 1e-6)


@given(grids())
def test_a_grid_matches_itself_and_not_one_that_is_shifted_or_longer(geometry):
    assert geometry.matches(geometry)
    assert not geometry.matches(geometry.cropped((0, 0, 0), [n + 1 for n in geometry.shape]))
    shifted = geometry.affine
    shifted[0, 3] += 0.01
    shifted = Geometry.from_affine(geometry.shape, shifted)
    assert not geometry.matches(shifted)
    assert geometry.matches(shifted, tolerance_mm=0.011)
    assert geometry.distance_mm(shifted) == pytest.approx(0.01, abs=1e-6)


def test_the_canonical_grid_is_spelled_out():
    geometry = Geometry.from_spacing((2, 3, 4), (5.0, 1.0, 0.5))
    assert geometry.orientation == "SAR"
    assert geometry.spacing_mm == (5.0, 1.0, 0.5)
    assert geometry.to_world([[1, 2, 3]]).tolist() == [[1.5, 2.0, 5.0]]


@pytest.mark.parametrize("shape", [(0, 1, 1), (2, 2)])
def test_a_grid_without_voxels_is_refused(shape):
    with pytest.raises(GeometryError, match="three axes"):
        Geometry.from_affine(shape, np.eye(4))


def test_a_flat_affine_is_refused():
    with pytest.raises(GeometryError):
        Geometry.from_affine((2, 2, 2), np.diag([1, 1, 0, 1]))


def test_an_array_that_does_not_fill_its_grid_is_refused():
    geometry = Geometry.from_spacing((2, 3, 4), (1, 1, 1))
    with pytest.raises(GeometryError):
        Volume(np.zeros((1, 4, 3, 2), np.float32), geometry)
    with pytest.raises(GeometryError):
        LabelVolume(np.zeros((4, 3, 2), np.int16), geometry)


def phantom(geometry, centre_mm, radii_mm):
    return (np.square((points(geometry) - centre_mm) / radii_mm).sum(-1) < 1).astype(np.int16)


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -35, 70), (170, 10, 95)])
def test_a_phantom_comes_back_from_crop_and_resize(angles):
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    native = Geometry.from_affine((42, 84, 96), np.column_stack([turn * (-2.0, 0.9, 0.8), (12, -40, 5)]))
    label = phantom(native, native.to_world([[21, 41, 46]])[0], (33, 30, 31))
    order, flips = native.canonical()
    grid, turned = native.oriented(order, flips), orient(label, order, flips)
    lower, upper = nonzero_box(turned[None])
    grid, turned = grid.cropped(lower, np.subtract(upper, lower)), crop(turned, lower, upper)
    network = grid.resized(np.rint(np.array(grid.shape) * grid.spacing_mm / 1.3).astype(int))
    seen = resample_codes(turned, grid, network, (1, 1, 1))
    back = np.zeros_like(label)
    crop(orient(back, order, flips), lower, upper)[...] = resample_codes(seen, network, grid, (1, 1, 1))
    assert 2 * (back * label).sum() / (back.sum() + label.sum()) >= 0.99
    assert np.allclose(points(native)[back > 0].mean(0), points(native)[label > 0].mean(0), atol=0.03)


def test_the_box_of_nonzero_voxels_looks_at_all_channels():
    data = np.zeros((2, 5, 6, 7), np.float32)
    data[0, 1, 2, 3] = -1
    data[1, 3, 2, 4] = np.nan
    assert nonzero_box(data) == ((1, 2, 3), (4, 3, 5))


def test_the_box_of_an_empty_image_is_the_whole_image():
    assert nonzero_box(np.zeros((1, 2, 3, 4))) == ((0, 0, 0), (2, 3, 4))


@pytest.mark.parametrize("values", [(1, 2, 5), (-3, 1, 2), (614454277, 7, -(2**31)), (2**31 - 1, 2**31 - 2, 1), (70000, 1, 2)])
def test_boxes_of_values_are_those_of_their_voxels_and_memory_goes_with_their_number(values, monkeypatch):
    labels = np.random.default_rng(0).choice([0, *values], (4, 5, 6), p=[0.94, 0.02, 0.02, 0.02]).astype(np.int32)
    find = ndimage.find_objects
    monkeypatch.setattr(ndimage, "find_objects", lambda data, max_label: find(data, max_label) if data.max() < 2**16 else None)
    expected = {}
    for value in sorted(set(values) & set(labels.ravel().tolist())):
        places = np.argwhere(labels == value)
        expected[value] = tuple(places.min(axis=0)), tuple(places.max(axis=0) + 1)
    assert value_boxes(labels) == expected
    assert list(value_boxes(labels)) == sorted(expected)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint32])
def test_an_empty_map_has_no_boxes(kind):
    assert value_boxes(np.zeros((2, 3, 4), kind)) == {}
    assert value_boxes(np.full((2, 3, 4), np.iinfo(kind).max)) == {np.iinfo(kind).max: ((0, 0, 0), (2, 3, 4))}


def test_an_edge_that_makes_more_voxels_than_anything_holds_is_refused():
    grid = Geometry.from_spacing((10, 10, 10), (1.0, 1.0, 1.0))
    with pytest.raises(GeometryError, match=r"found 1e\+30 of them with an edge of 1e-09 mm"):
        grid.isotropic(1e-9)
    assert grid.isotropic(0.01).shape == (1000, 1000, 1000)
