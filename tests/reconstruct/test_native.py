"""The way back to the scan: equal to turning, resampling everything at full size and deciding there."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from skimage.transform import resize

from autoseg.errors import GeometryError
from autoseg.imaging.crop import crop, nonzero_box
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import resample_codes, resample_image
from autoseg.imaging.volume import orient
from autoseg.reconstruct.native import logits_to_codes, maps_to_native, probabilities_to_native
from tests.helpers.examples import examples


@st.composite
def grids(draw):
    """Oblique, anisotropic, flipped and permuted grids of 4 to 12 voxels along each axis."""
    shape = draw(st.tuples(*[st.integers(4, 12)] * 3))
    spacing = np.array(draw(st.tuples(*[st.floats(0.4, 5)] * 3)))
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    origin = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return Geometry.from_affine(shape, np.column_stack([turn * signs * spacing, origin]))


def network_grid(native, lower, upper, shape, order=(0, 1, 2)):
    """Canonical, transposed, cropped, resized: (grid, what turns a native array to the cropped one's axes)."""
    turns, flips = native.canonical()
    turned = native.oriented(turns, flips).transposed(order)
    cropped = turned.cropped(lower, np.subtract(upper, lower))
    return cropped.resized(shape), cropped, lambda array: orient(array, turns, flips).transpose(order)


def noise(shape, seed=0):
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    array.setflags(write=False)
    return array


@examples(40)
@given(grids(), st.data())
def test_codes_equal_the_plain_full_computation(native, data):
    order = data.draw(st.permutations([0, 1, 2]))
    turned_shape = native.oriented(*native.canonical()).transposed(order).shape
    lower = [data.draw(st.integers(0, n - 2)) for n in turned_shape]
    upper = [data.draw(st.integers(a + 1, n)) for a, n in zip(lower, turned_shape, strict=True)]
    shape = data.draw(st.tuples(*[st.integers(2, 9)] * 3))
    network, cropped, turn = network_grid(native, lower, upper, shape, order)
    logits = noise((4, *shape))

    full = resample_image(logits, network, cropped, (1, 1, 1))
    expected = np.zeros(native.shape, np.int16)
    crop(turn(expected), lower, upper)[...] = full.argmax(0)
    found = logits_to_codes(logits, network, native, slab_voxels=data.draw(st.sampled_from([1, 50, 10000])))
    assert found.dtype == np.int16
    assert found.shape == native.shape
    assert np.array_equal(found, expected)

    expected = np.zeros(native.shape, np.int16)
    for logit, code in zip(full, (5, 3, 9, 1), strict=True):
        crop(turn(expected), lower, upper)[logit > 0] = code
    paint = np.repeat([[5], [3], [9], [1]], 10, axis=1)
    found = logits_to_codes(logits, network, native, has_regions=True, paint_codes=paint, slab_voxels=50)
    assert np.array_equal(found, expected)


@examples(20)
@given(grids(), st.data())
def test_probabilities_belong_to_the_codes_and_sum_to_one(native, data):
    turned_shape = native.oriented(*native.canonical()).shape
    lower = [data.draw(st.integers(0, n - 2)) for n in turned_shape]
    network, cropped, turn = network_grid(native, lower, turned_shape, (5, 6, 7))
    logits = noise((3, 5, 6, 7))
    codes = logits_to_codes(logits, network, native)
    found = probabilities_to_native(logits, network, native, slab_voxels=30)
    assert found.dtype == np.float16
    assert found.shape == (3, *native.shape)
    assert np.allclose(found.astype(np.float32).sum(0), 1, atol=2e-3)
    chosen = np.take_along_axis(found, codes[None].astype(int), 0)[0]
    assert (chosen >= found.max(0)).all()
    outside = np.ones(native.shape, bool)
    crop(turn(outside), lower, turned_shape)[...] = False
    assert (found[0][outside] == 1).all()
    assert not found[1:, outside].any()

    regions = probabilities_to_native(logits, network, native, has_regions=True)
    painted = logits_to_codes(logits, network, native, has_regions=True, paint_codes=((1, 1),) * 3)
    assert np.array_equal((regions > 0.5).any(0), painted > 0) or np.abs(regions - 0.5).min() < 1e-3
    assert not regions[:, outside].any()


def test_maps_are_255ths_of_their_largest_value_and_zero_outside():
    native = Geometry.from_affine((9, 10, 11), np.array([[0, -0.6, 0.8, 3], [0, -0.8, -0.6, 50], [-2.5, 0, 0, 8]]))
    lower, upper = (1, 2, 0), (9, 8, 11)
    network, cropped, turn = network_grid(native, lower, upper, (6, 7, 5))
    maps = np.abs(noise((3, 6, 7, 5))) * np.reshape([1, 100, 0.01], (3, 1, 1, 1)).astype(np.float32)
    found, largest = maps_to_native(maps, network, native, slab_voxels=50)
    assert largest == maps.max(axis=(1, 2, 3)).tolist()
    assert found.dtype == np.uint8
    for result, scaled in zip(found, maps / np.reshape(largest, (3, 1, 1, 1)), strict=True):
        expected = np.zeros(native.shape)
        crop(turn(expected), lower, upper)[...] = resample_image(scaled[None], network, cropped, (1, 1, 1))[0]
        np.testing.assert_allclose(result, 255 * expected, atol=0.51)


def test_very_sure_logits_make_no_overflow():
    geometry = Geometry.from_spacing((1, 1, 2), (1, 1, 1))
    logits = np.array([[[[-9e4, 9e4]]], [[[9e4, -9e4]]]], np.float32)
    for has_regions in (False, True):
        found = probabilities_to_native(logits, geometry, geometry, has_regions=has_regions)
        assert found[:, 0, 0].tolist() == [[0, 1], [1, 0]]


def test_equal_logits_are_background():
    geometry = Geometry.from_spacing((3, 3, 3), (1, 1, 1))
    assert not logits_to_codes(np.zeros((4, 3, 3, 3), np.float16), geometry, geometry.resized((5, 4, 6))).any()


@pytest.mark.parametrize("shape", [(5, 6, 7), (31, 29, 37)], ids=["the same grid", "another grid"])
def test_logits_in_half_precision_tie_as_in_nnunet(shape: tuple[int, int, int]) -> None:
    """scikit-image in float64, rounded to half precision, the first of equals: what nnU-Net 2.8 does on the way to a scan."""
    geometry = Geometry.from_spacing((5, 6, 7), (1, 1, 1))
    logits = (2 + 0.002 * noise((3, *geometry.shape))).astype(np.float16).astype(np.float32)  # 2 and 2.002 are neighbours
    how = {"mode": "edge", "anti_aliasing": False}
    exact = np.stack([resize(head.astype(float), shape, 1, **how) for head in logits])
    rounded = exact.astype(np.float16)
    native = geometry.resized(shape)
    found = logits_to_codes(logits, geometry, native, in_half=True, slab_voxels=10_000)
    # between two numbers of half precision lies a multiple of 1/2048, and who computes in float32 may end on its other side
    clear = np.abs(exact * 2048 - np.rint(exact * 2048)).min(axis=0) > 1e-6
    assert np.array_equal(found[clear], rounded.argmax(axis=0)[clear])
    assert (found == rounded.argmax(axis=0)).mean() > 0.999
    chances = probabilities_to_native(logits, geometry, native, in_half=True)
    expected = np.exp(rounded.astype(float)) / np.exp(rounded.astype(float)).sum(axis=0)
    assert np.abs(chances - expected).max(axis=0)[clear].max(initial=0) < 3e-4
    differ = (found != logits_to_codes(logits, geometry, native)).mean()
    assert differ == 0 if shape == geometry.shape else differ > 0.05


def test_logits_are_left_as_they_were():
    geometry = Geometry.from_spacing((4, 4, 4), (1, 1, 1))
    logits = noise((3, 4, 4, 4))  # read-only
    assert np.array_equal(logits_to_codes(logits, geometry, geometry), logits.argmax(0))


def test_a_scan_that_only_touches_the_network_grid_is_background():
    network = Geometry.from_spacing((4, 4, 4), (1, 1, 1))
    far = network.cropped((50, 0, 0), (3, 4, 4))
    assert not logits_to_codes(noise((2, 4, 4, 4)), network, far).any()


@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -25, 100), (-160, 40, 10)])
def test_a_phantom_comes_back_with_dice_above_99_percent(angles):
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    native = Geometry.from_affine((70, 52, 60), np.column_stack([turn * (0.9, -1.5, 1.1), (30, -60, 8)]))
    index = np.stack(np.meshgrid(*map(np.arange, native.shape), indexing="ij"), -1)
    where = native.to_world(index.reshape(-1, 3)).reshape(*native.shape, 3)
    distance = 22 - np.linalg.norm(where - native.to_world([[35, 26, 30]])[0], axis=-1)  # of a sphere of radius 22 mm
    label = (distance > 0).astype(np.int16)
    turns, flips = native.canonical()
    turned = orient(label, turns, flips)
    lower, upper = nonzero_box(turned[None])
    lower, upper = np.subtract(lower, 2), np.add(upper, 2)
    grid = native.oriented(turns, flips).cropped(lower, upper - lower)
    network = grid.resized(np.rint(np.array(grid.shape) * grid.spacing_mm / 1.3).astype(int))
    field = crop(orient(distance, turns, flips), lower, upper).astype(np.float32)
    seen = resample_image(field[None], grid, network, (3, 3, 3))
    back = logits_to_codes(np.concatenate([-seen, seen]), network, native)
    assert 2 * (back * label).sum() / (back.sum() + label.sum()) >= 0.99


def test_left_stays_left():
    native = Geometry.from_affine((6, 8, 10), [[0, 0, -2, 9], [0, 3, 0, -10], [-4, 0, 0, 40]])  # x to the left, z down
    assert native.orientation == "IAL"
    network = native.oriented(*native.canonical()).resized((12, 8, 10))
    index = np.stack(np.meshgrid(*map(np.arange, network.shape), indexing="ij"), -1).reshape(-1, 3)
    x, _, z = network.to_world(index).T.reshape(3, *network.shape)
    logits = np.stack([np.zeros_like(x), x, z - 30]).astype(np.float32)  # 1: right half; 2: head end, if z - 30 > x
    codes = logits_to_codes(logits, network, native)
    index = np.stack(np.meshgrid(*map(np.arange, native.shape), indexing="ij"), -1).reshape(-1, 3)
    x, _, z = native.to_world(index).T.reshape(3, *native.shape)
    expected = np.argmax([np.zeros_like(x), x, z - 30], 0)
    assert np.array_equal(codes[1:-1], expected[1:-1])  # the edge is extended flat, so the outermost slices may differ
    assert set(np.unique(codes)) == {0, 1, 2}


def test_memory_does_not_grow_with_the_number_of_classes():
    network = Geometry.from_spacing((24, 24, 24), (2.0, 2.0, 2.0))
    native = network.resized((64, 64, 64))

    def peak(heads):
        logits = noise((heads, *network.shape)).astype(np.float16)
        tracemalloc.start()
        logits_to_codes(logits, network, native, slab_voxels=8 * 64 * 64)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # fills the cache of matrices
    few, many = peak(3), peak(30)
    assert many < 1.1 * few
    assert few < 4 * 2 * 64**3  # the result has 2 bytes a voxel, slabs of an eighth of it come on top


def test_labels_and_logits_agree_on_the_way_back():
    native = Geometry.from_affine((20, 30, 25), [[0.1, 0.02, 0.8, 0], [0, 0.9, -0.02, 0], [2.5, 0, -0.1, 0]])
    turned = native.oriented(*native.canonical())
    network = turned.resized((33, 20, 18))
    codes = (noise(network.shape) > 0.7).astype(np.int16)
    one_hot = np.stack([codes == 0, codes == 1]).astype(np.float32)
    expected = np.zeros(native.shape, np.int16)
    orient(expected, *native.canonical())[...] = resample_codes(codes, network, turned, (1, 1, 1))
    assert (logits_to_codes(one_hot, network, native) == expected).mean() > 0.999


def test_grids_and_arrays_that_do_not_belong_together_are_refused():
    network = Geometry.from_spacing((4, 4, 4), (1, 1, 1))
    with pytest.raises(GeometryError, match="do not fill"):
        logits_to_codes(noise((2, 4, 4, 5)), network, network)
    turn = Rotation.from_euler("x", 30, degrees=True).as_matrix()
    with pytest.raises(GeometryError, match="same directions"):
        logits_to_codes(noise((2, 4, 4, 4)), network, Geometry.from_affine((9, 9, 9), np.column_stack([turn, [0, 0, 0]])))
