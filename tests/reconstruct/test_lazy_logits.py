"""Logits made of features where they are looked at: the same as an array of them, in less memory."""

import tracemalloc

import numpy as np
import pytest

from autoseg.imaging.geometry import Geometry
from autoseg.reconstruct.confidence import entropies, votes_of
from autoseg.reconstruct.lazy_logits import LazyLogits, all_finite
from autoseg.reconstruct.native import logits_to_codes, probabilities_to_native
from autoseg.reconstruct.surface import surfaces_from_scores

GRID = Geometry.from_affine((9, 12, 10), [[0, 0, -1.5, 9], [0, 1.2, 0, -10], [2, 0, 0, 40]])
NATIVE = GRID.resized((14, 11, 17)).transposed((2, 0, 1))


@pytest.fixture(params=[1, 5000, 1 << 22], ids=lambda elements: f"{elements} at once")
def both(request, monkeypatch):
    """(LazyLogits, the array they stand for), with so much of them computed at once."""
    monkeypatch.setattr("autoseg.reconstruct.lazy_logits._ELEMENTS", request.param)
    return compose(11, GRID.shape)


def compose(heads, shape, n_features=3):
    rng = np.random.default_rng(0)
    features, weights, bias = (
        rng.normal(size=size).astype(np.float32) for size in ((n_features, *shape), (heads, n_features), heads)
    )
    features.setflags(write=False)
    return LazyLogits(features, weights, bias), np.einsum("kf,fzyx->kzyx", weights, features) + bias[:, None, None, None]


def test_it_reads_like_an_array(both):
    composed, array = both
    assert composed.shape == array.shape
    assert len(composed) == len(array)
    near = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(list(composed), array, **near)
    np.testing.assert_allclose(np.asarray(composed), array, **near)
    np.testing.assert_allclose(composed[-1], array[-1], **near)
    np.testing.assert_allclose(composed[4, 2:5, :, 3:4], array[4, 2:5, :, 3:4], **near)
    np.testing.assert_allclose(np.asarray(composed[1:4][:, 2:]), array[1:4, 2:], **near)
    voxels = np.array([5, 100, 7])
    np.testing.assert_allclose(composed.reshape(11, -1)[:, voxels], array.reshape(11, -1)[:, voxels], **near)


@pytest.mark.parametrize("orders", [(1, 1, 1), (3, 3, 3), (0, 3, 1)])
@pytest.mark.parametrize("slab_voxels", [1, 1 << 22])
def test_labels_and_probabilities_on_the_native_grid_are_those_of_the_array(both, orders, slab_voxels):
    how = {"orders": orders, "slab_voxels": slab_voxels}
    composed, array = both
    codes = logits_to_codes(composed, GRID, NATIVE, **how)
    assert (codes == logits_to_codes(array, GRID, NATIVE, **how)).mean() > 0.999  # but for ties within rounding
    assert len(np.unique(codes)) > 5
    for regions in (False, True):
        found, expected = (probabilities_to_native(x, GRID, NATIVE, has_regions=regions, **how) for x in both)
        np.testing.assert_allclose(found, expected, atol=1e-3)  # half precision


def test_regions_are_painted_alike(both):
    paint = np.arange(1, 12)[:, None].repeat(12, axis=1)
    found, expected = (logits_to_codes(x, GRID, NATIVE, has_regions=True, paint_codes=paint) for x in both)
    assert (found == expected).mean() > 0.999


@pytest.mark.thorough
@pytest.mark.parametrize("regions", [False, True])
def test_confidence_and_surfaces_are_those_of_the_array(both, regions):
    np.testing.assert_array_equal(*(votes_of(x, has_regions=regions) for x in both))
    np.testing.assert_allclose(*(np.array(entropies(x, has_regions=regions), float) for x in both), rtol=1e-3)
    names = [str(k) for k in range(11 if regions else 10)]
    meshes = [surfaces_from_scores(x, GRID, names, has_regions=regions, workers=1) for x in both]
    assert sum(mesh is not None for mesh in meshes[1]) > 5
    for found, expected in zip(*meshes, strict=True):
        assert (found is None) == (expected is None)
        assert found is None or found.volume_mm3 == pytest.approx(expected.volume_mm3, rel=1e-3)


def test_a_number_that_is_not_finite_is_found_wherever_it_stands():
    composed, array = compose(4, (3, 3, 3))
    assert all_finite(composed)
    assert all_finite(array)
    bad = np.array(composed.features)
    bad[1, 2, 0, 1] = np.nan
    assert not all_finite(LazyLogits(bad, composed.weights, composed.bias))
    assert not all_finite(LazyLogits(composed.features, np.full_like(composed.weights, np.inf), composed.bias))
    array[3, 0, 0, 0] = np.inf
    assert not all_finite(array)


def test_memory_does_not_grow_with_the_number_of_heads(monkeypatch):
    monkeypatch.setattr("autoseg.reconstruct.lazy_logits._ELEMENTS", 1 << 15)
    grid = Geometry.from_spacing((32, 32, 32), (1.0, 1.0, 1.0))

    def peak(heads):
        composed, _ = compose(heads, grid.shape)
        tracemalloc.start()
        codes = logits_to_codes(composed, grid, grid.resized((40, 40, 40)), slab_voxels=1 << 12)
        entropies(composed)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, len(np.unique(codes))

    monkeypatch.setattr("autoseg.reconstruct.confidence._CHUNK", 1 << 15)
    peak(2)  # fills the cache of matrices
    (few, _), (many, found) = peak(5), peak(100)
    assert found > 20
    assert many < 1.2 * few
