"""Resampling against slow and obvious ways to the same numbers: scikit-image, SciPy, one-hot and argmax."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import (
    apply_operators,
    axis_matrix,
    axis_orders,
    grid_mapping,
    interpolation_operators,
    part_of,
    resample_codes,
    resample_image,
)
from tests.helpers.examples import examples

GRID = Geometry.from_affine((11, 17, 14), [[0.2, 0.1, 0.7, 5], [0.1, 0.8, -0.1, -9], [3.0, -0.1, 0, 2]])
shapes = st.tuples(*[st.integers(1, 24)] * 3)


def noise(shape, seed=0):
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    array.setflags(write=False)
    return array


def blobs(shape, n_labels, seed=0):
    """(Z, Y, X) int16: smooth regions of codes 0 to n_labels - 1."""
    fields = np.random.default_rng(seed).normal(size=(n_labels, *shape))
    codes = np.argmax([ndimage.gaussian_filter(field, 1.5) for field in fields], 0).astype(np.int16)
    codes.setflags(write=False)
    return codes


def slow_codes(codes, shape):
    labels = np.unique(codes)
    masks = [resize((codes == label).astype(float), shape, order=1, mode="edge", anti_aliasing=False) for label in labels]
    return labels[np.argmax(np.round(masks, 6), 0)]


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(20, 12, 14), (7, 30, 5), (11, 17, 90), (1, 1, 1)])
def test_images_equal_those_of_scikit_image(order, shape):
    data = noise((2, *GRID.shape))
    found = resample_image(data, GRID, GRID.resized(shape), (order,) * 3)
    expected = [resize(c.astype(float), shape, order=order, mode="edge", anti_aliasing=False, clip=False) for c in data]
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5


@examples(30)
@given(shapes, shapes, st.sampled_from([1, 3]))
def test_any_shape_becomes_any_shape(before, after, order):
    geometry = Geometry.from_spacing(before, (2.0, 1.0, 0.5))
    data = noise((1, *before))
    found = resample_image(data, geometry, geometry.resized(after), (order,) * 3)
    expected = resize(data[0].astype(float), after, order=order, mode="edge", anti_aliasing=False, clip=False)
    assert np.abs(found[0] - expected).max() < 2e-5


@pytest.mark.parametrize("orders", [(3, 3, 3), (1, 1, 1), (3, 1, 0), (0, 3, 3), (0, 0, 0)])
def test_other_offsets_equal_those_of_scipy(orders):
    onto = GRID.cropped((-4.3, 2.4, 5.2), (30, 20, 12)).resized((33, 17, 19))
    data = noise((1, *GRID.shape))
    scale, offset = grid_mapping(GRID, onto)
    expected = data[0].astype(float)
    for axis, order in enumerate(orders):
        at = scale[axis] * np.arange(onto.shape[axis]) + offset[axis]
        lines = np.moveaxis(expected, axis, -1).reshape(-1, expected.shape[axis])
        lines = np.array([ndimage.map_coordinates(line, at[None], order=order, mode="nearest") for line in lines])
        kept = [n for other, n in enumerate(expected.shape) if other != axis]
        expected = np.moveaxis(lines.reshape(*kept, len(at)), -1, axis)
    assert np.abs(resample_image(data, GRID, onto, orders)[0] - expected).max() < 1e-5


def test_every_row_of_a_matrix_sums_to_one():
    for order in (1, 2, 3):
        assert np.allclose(axis_matrix(30, 41, 0.7, -3.2, order).sum(1), 1, atol=1e-5)


def test_the_same_grid_gives_the_data_itself():
    data, codes = noise((1, *GRID.shape)), blobs(GRID.shape, 3)
    assert resample_image(data, GRID, GRID, (3, 3, 3)) is data
    assert resample_codes(codes, GRID, GRID, (1, 1, 1)) is codes


def test_whole_voxel_shifts_copy_voxels_and_repeat_the_edge():
    data = noise((1, *GRID.shape))
    found = resample_image(data, GRID, GRID.cropped((-2, 3, 0), (9, 5, 14)), (3, 3, 3))
    assert np.array_equal(found[0, 2:], data[0, :7, 3:8])
    assert np.array_equal(found[0, 0], data[0, 0, 3:8])


def test_order_zero_takes_the_nearest_slice():
    data = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    geometry = Geometry.from_spacing((4, 1, 1), (3, 1, 1))
    assert resample_image(data, geometry, geometry.resized((8, 1, 1)), (0, 1, 1)).ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resample_image(data, geometry, geometry.resized((2, 1, 1)), (0, 1, 1)).ravel().tolist() == [1, 3]


def test_integers_become_float():
    data = np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2)
    geometry = Geometry.from_spacing((2, 2, 2), (1, 1, 1))
    assert resample_image(data, geometry, geometry, (3, 3, 3)).dtype == np.float32


def test_a_part_of_a_map_needs_only_some_of_the_input():
    data = noise(GRID.shape)
    maps = interpolation_operators(GRID, GRID.resized((30, 9, 20)), (1, 1, 1))
    inputs, part = part_of(maps[0], 12, 17)
    assert inputs.stop - inputs.start < 5
    whole = apply_operators(data, maps)
    assert np.allclose(apply_operators(data[inputs], (part, *maps[1:])), whole[12:17], atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 12, 14), (7, 30, 5), (22, 34, 28), (5, 8, 7)])
@pytest.mark.parametrize("n_labels", [2, 6])
def test_codes_equal_one_hot_and_argmax(shape, n_labels):
    codes = blobs(GRID.shape, n_labels)
    assert np.array_equal(resample_codes(codes, GRID, GRID.resized(shape), (1, 1, 1)), slow_codes(codes, shape))


def test_codes_to_ignore_are_codes_like_others():
    codes = blobs(GRID.shape, 5) - 1
    found = resample_codes(codes, GRID, GRID.resized((15, 15, 15)), (1, 1, 1))
    assert found.dtype == np.int16
    assert np.array_equal(found, slow_codes(codes, (15, 15, 15)))


def test_codes_without_any_background_or_structure():
    onto = GRID.resized((5, 5, 5))
    assert (resample_codes(np.full(GRID.shape, 7, np.int16), GRID, onto, (1, 1, 1)) == 7).all()
    assert (resample_codes(np.zeros(GRID.shape, np.int16), GRID, onto, (1, 1, 1)) == 0).all()


def test_codes_of_skipped_slices_vanish():
    codes = np.zeros((9, 4, 4), np.int16)
    codes[1], codes[4, 1:3, 1:3] = 2, 5
    geometry = Geometry.from_spacing(codes.shape, (1, 1, 1))
    found = resample_codes(codes, geometry, geometry.resized((3, 8, 8)), (0, 1, 1))
    assert (found[0] == 2).all()
    assert (found[1, 2:6, 2:6] == 5).sum() >= 12
    assert not found[2].any()


@examples(20)
@given(shapes, shapes, st.integers(0, 9))
def test_no_code_is_invented(before, after, seed):
    geometry = Geometry.from_spacing(before, (1.0, 1.0, 1.0))
    codes = np.random.default_rng(seed).integers(-1, 4, before).astype(np.int16)
    assert np.isin(resample_codes(codes, geometry, geometry.resized(after), (1, 1, 1)), codes).all()


def test_memory_does_not_grow_with_the_number_of_codes():
    geometry = Geometry.from_spacing((40, 40, 40), (1, 1, 1))

    def peak(n_codes):
        codes = np.zeros(geometry.shape, np.int16)
        codes[10:30] = 1 + np.arange(20)[:, None, None] % n_codes
        tracemalloc.start()
        resample_codes(codes, geometry, geometry.resized((60, 60, 60)), (1, 1, 1))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # fills the cache of matrices
    assert peak(20) < 1.1 * peak(2)


def test_thick_slices_get_their_own_order():
    assert axis_orders((5, 1, 1), (2, 1, 1), 3, 0, 3.0) == (0, 3, 3)
    assert axis_orders((2, 1, 1), (1, 1, 4), 3, 0, 3.0) == (3, 3, 0)
    assert axis_orders((3, 1, 1), (3, 1, 1), 3, 0, 3.0) == (3, 3, 3)
    assert axis_orders((4, 4, 1), (5, 1, 1), 3, 0, 3.0) == (3, 3, 3)


def test_grids_that_are_turned_against_each_other_are_refused():
    with pytest.raises(GeometryError, match="same directions"):
        grid_mapping(GRID, GRID.flipped([1]))
    with pytest.raises(GeometryError, match="same directions"):
        resample_image(noise((1, *GRID.shape)), GRID, GRID.transposed((1, 0, 2)), (1, 1, 1))


def test_clipped_resampling_is_scikit_images_for_volumes_and_for_each_slice():
    data = np.zeros((1, 6, 12, 10), np.float32)
    data[0, 1:4, 3:8, 2:7] = 100  # edges, where cubic splines overshoot
    data[0, 2] += 50  # slices of different ranges
    grid = Geometry.from_spacing((6, 12, 10), (5.0, 1.0, 1.0))
    onto = grid.resized((6, 17, 15))
    whole = resize(data[0].astype(float), (6, 17, 15), 3, mode="edge", anti_aliasing=False)
    assert resample_image(data, grid, onto, (3, 3, 3), clip=True)[0] == pytest.approx(whole, abs=1e-3)
    assert resample_image(data, grid, onto, (3, 3, 3)).min() < -1  # what is clipped
    slices = np.stack([resize(one.astype(float), (17, 15), 3, mode="edge", anti_aliasing=False) for one in data[0]])
    assert resample_image(data, grid, onto, (0, 3, 3), clip=True)[0] == pytest.approx(slices, abs=1e-3)
    thicker = resample_image(data, grid, grid.resized((3, 17, 15)), (0, 3, 3), clip=True)[0]
    assert thicker == pytest.approx(slices[[1, 3, 5]], abs=1e-3)  # half-way between two the later is the nearest
