"""Patches come from where they should, and are what the case holds there."""

import numpy as np
import pytest

from autoseg.imaging.geometry import Geometry
from autoseg.preprocess.case import PreparedCase, find_locations
from autoseg.preprocess.store import open_case, store_case
from autoseg.training.sampling import draw_centre, forced_foreground, read_block


def stored(folder, codes):
    image = np.random.default_rng(0).random((2, *codes.shape), np.float32)
    prepared = PreparedCase("c", image, codes, Geometry.from_spacing(codes.shape, (1, 1, 1)), find_locations(codes, seed=0))
    store_case(folder, prepared, "digest")
    return image, open_case(folder)


@pytest.fixture
def codes():
    codes = np.zeros((30, 40, 50), np.int16)
    codes[3:6, 4:9, 40:50] = 1
    codes[20:28, 30:33, 10:12] = 2
    return codes


@pytest.mark.parametrize(("size", "expected"), [(2, 1), (3, 1), (4, 1), (5, 2), (9, 3)])
def test_a_third_of_the_batch_is_forced_to_foreground(size, expected):
    assert sum(forced_foreground(None, i, size, 0.33) for i in range(size)) == expected


def test_a_third_of_the_batches_of_one_are_forced_to_foreground():
    rng = np.random.default_rng(0)
    assert sum(forced_foreground(rng, 0, 1, 0.33) for _ in range(3000)) == pytest.approx(990, abs=100)
    assert all(forced_foreground(rng, 0, 1, 1.0) for _ in range(50))
    assert not any(forced_foreground(rng, 0, 1, 0.0) for _ in range(50))


def test_foreground_centres_lie_on_every_structure_equally_often(tmp_path, codes):
    _, case = stored(tmp_path, codes)
    rng = np.random.default_rng(1)
    found = [codes[tuple(draw_centre(rng, case, (8, 8, 8), ((1,), (2,)), True))] for _ in range(400)]
    assert set(found) == {1, 2}
    assert found.count(1) == pytest.approx(200, abs=50)


def test_random_patches_stay_inside_where_they_fit_and_reach_every_corner(tmp_path, codes):
    _, case = stored(tmp_path, codes)
    rng = np.random.default_rng(1)
    patch = np.array((28, 38, 48))
    lower = np.array([draw_centre(rng, case, patch, ((1,),), False) for _ in range(300)]) - patch // 2
    assert lower.min(axis=0).tolist() == [0, 0, 0]
    assert (lower.max(axis=0) + patch).tolist() == list(codes.shape)


def test_a_small_case_stays_inside_its_patch(tmp_path, codes):
    _, case = stored(tmp_path, codes)
    rng = np.random.default_rng(1)
    lower = np.array([draw_centre(rng, case, (64, 64, 64), ((1,),), False) for _ in range(300)]) - 32
    assert (lower <= 0).all()
    assert (lower + 64 >= codes.shape).all()


def test_unannotated_voxels_are_no_centres(tmp_path, codes):
    codes[:, :, :35] = -1
    codes[20:28, 30:33, 10:12] = -1
    _, case = stored(tmp_path, codes)
    rng = np.random.default_rng(1)
    for foreground in (True, False):
        assert all(codes[tuple(draw_centre(rng, case, (8, 8, 8), ((1,), (2,)), foreground))] >= 0 for _ in range(100))


@pytest.mark.parametrize("outside", [(0.25, 0.75), (0.5, 0.5)])
def test_a_block_is_the_case_inside_and_the_outside_value_beyond(tmp_path, codes, outside):
    image, case = stored(tmp_path, codes)
    block, block_codes = read_block(case, (2, 38, 25), (10, 12, 14), np.array(outside, np.float32))
    assert block.dtype == np.float32
    assert block.shape == (2, 10, 12, 14)
    assert np.array_equal(block[:, 3:, :8], image[:, 0:7, 32:40, 18:32])
    assert np.array_equal(block_codes[3:, :8], codes[0:7, 32:40, 18:32])
    assert (block[0, :3] == outside[0]).all()
    assert (block[1, :, 8:] == outside[1]).all()
    assert (block_codes[:, 8:] == 0).all()


@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize("annotated", [0, 1])
def test_no_patch_is_centred_on_an_ignored_voxel(tmp_path, foreground, annotated):
    codes = np.full((20, 30, 40), -1, np.int16)
    codes[4:6, 10:12, 20:25] = annotated
    _, case = stored(tmp_path, codes)
    rng = np.random.default_rng(1)
    assert {codes[tuple(draw_centre(rng, case, (8, 8, 8), ((1,), (2,)), foreground))] for _ in range(50)} == {annotated}


def test_a_case_without_any_annotation_still_gives_patches(tmp_path):
    _, case = stored(tmp_path, np.full((9, 9, 9), -1, np.int16))
    assert draw_centre(np.random.default_rng(0), case, (4, 4, 4), ((1,),), True).shape == (3,)
