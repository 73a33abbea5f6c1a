"""A cascade in training: labels of the coarse stage among the inputs, moved with the image, and made worse as drawn."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.imaging.geometry import Geometry
from autoseg.preprocess.case import PreparedCase, find_locations, one_hot
from autoseg.preprocess.coarse import made_from, store_coarse, with_coarse
from autoseg.preprocess.store import loaded, open_case, store_case
from autoseg.training.augment.coarse import (
    LARGEST_SHARE,
    OPERATIONS,
    Corruption,
    Move,
    corrupt,
    draw_corruption,
    move_outline,
    remove_piece,
)
from autoseg.training.batches import make_batch
from autoseg.training.recipe import Recipe
from planners.plan import CoarseLabels

LABELS = LabelSchema(("a", "b"), ((1,), (2,)), False, (1, 2))


def two_labels():
    """(2, 20, 20, 20): a cube, and a slab that touches it."""
    codes = np.zeros((20, 20, 20), np.int16)
    codes[6:12, 6:12, 6:12] = 1
    codes[6:12, 6:12, 12:15] = 2
    return one_hot(codes, 2)


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_outline_is_moved_as_by_the_operation_on_the_whole_patch(operation, radius):
    channels = two_labels()
    channels.setflags(write=False)
    found = move_outline(channels, Move(0, operation, radius))
    z, y, x = np.indices((2 * radius + 1,) * 3) - radius
    element = z**2 + y**2 + x**2 <= radius**2
    expected = OPERATIONS[operation](channels[0], element)
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], channels[1] & ~(expected & ~channels[0]))
    assert found.sum(axis=0).max() <= 1, "a voxel has one label at most"


def test_dilation_grows_erosion_shrinks_and_a_label_at_the_edge_goes_on_beyond_it():
    whole = np.zeros((1, 8, 8, 8), bool)
    whole[0, :, :, :4] = True
    sizes = {name: move_outline(whole, Move(0, name, 2))[0].sum() for name in OPERATIONS}
    assert sizes["dilate"] == 8 * 8 * 6
    assert sizes["erode"] == 8 * 8 * 2, "what the patch cut off is not worn away there"
    assert sizes["close"] == sizes["open"] == 8 * 8 * 4


def test_in_a_slice_the_ball_is_a_disk():
    flat = np.zeros((1, 1, 9, 9), bool)
    flat[0, 0, 4, 4] = True
    assert move_outline(flat, Move(0, "dilate", 2))[0, 0].sum() == 13


def test_one_small_piece_is_removed_and_the_others_stay():
    mask = np.zeros((10, 20, 20), bool)
    mask[:, :8], mask[1, 12, 1], mask[4, 15, 5] = True, True, True  # the first is more than the share that may be removed
    assert mask[:, :8].sum() > LARGEST_SHARE * mask.size
    for chosen, gone in ((0.0, (1, 12, 1)), (0.49, (1, 12, 1)), (0.5, (4, 15, 5)), (0.999, (4, 15, 5))):
        found = remove_piece(mask, chosen)
        assert mask.sum() - found.sum() == 1
        assert not found[gone]
    np.testing.assert_array_equal(remove_piece(mask[:, :8], 0.3), mask[:, :8])
    assert not remove_piece(np.zeros((2, 2, 2), bool), 0.5).any()


def test_corruption_happens_as_often_as_it_should_and_by_the_numbers_alone():
    rng = np.random.default_rng(0)
    drawn = [draw_corruption(rng, 2) for _ in range(4000)]
    again = np.random.default_rng(0)
    assert [draw_corruption(again, 2) for _ in range(20)] == drawn[:20]
    assert np.mean([len(one.moves) for one in drawn]) == pytest.approx(0.4 * 0.5 * 2, abs=0.03)
    assert np.mean([len(one.removals) for one in drawn]) == pytest.approx(0.2 * 0.5 * 2, abs=0.02)
    moves = [move for one in drawn for move in one.moves]
    assert {move.operation for move in moves} == set(OPERATIONS)
    assert {move.radius for move in moves} == set(range(1, 8))
    assert min(Counter(move.channel for move in moves).values()) > 0.4 * len(moves)


def test_nothing_drawn_changes_nothing_and_the_input_is_left_as_it_is():
    channels = two_labels()
    before = channels.copy()
    np.testing.assert_array_equal(corrupt(channels, Corruption()), before)
    worse = corrupt(channels, Corruption((Move(1, "dilate", 2),), ((0, 0.0),)))
    np.testing.assert_array_equal(channels, before)
    assert not worse[0].any(), "its only piece is small"
    assert ndimage.label(worse[1])[1] == 1
    assert worse[1].sum() > before[1].sum()


@pytest.fixture
def case(tmp_path):
    """A case whose coarse labels are those of its voxels."""
    codes = np.zeros((24, 26, 28), np.int16)
    codes[6:14, 8:16, 9:17], codes[16:20, 8:12, 9:12] = 1, 2
    grid = Geometry.from_spacing(codes.shape, (1, 1, 1))
    image = np.random.default_rng(0).random((1, *codes.shape), np.float32)
    store_case(tmp_path / "a", PreparedCase("a", image, codes, grid, find_locations(codes, 0)), "")
    store_coarse(tmp_path / "coarse", "a", codes, "source")
    return with_coarse(open_case(tmp_path / "a"), tmp_path / "coarse")


@pytest.fixture
def cascade(plan):
    network = replace(
        plan.network,
        in_channels=3,
        out_channels=3,
        input_mean=(*plan.network.input_mean, 0.0, 0.0),
        input_std=(*plan.network.input_std, 1.0, 1.0),
    )
    return replace(plan, network=network, coarse=CoarseLabels("lowres_3d", 2))


@pytest.mark.parametrize("preset", ["none", "nnunet"])
def test_coarse_labels_are_channels_that_lie_where_the_labels_lie(case, cascade, preset, monkeypatch):
    monkeypatch.setattr("autoseg.training.augment.coarse.MOVED", 0.0)
    monkeypatch.setattr("autoseg.training.augment.coarse.REMOVED", 0.0)
    recipe = Recipe(batch_size=2, patch_curriculum=(), augmentation=preset)
    for step in range(4):
        batch = make_batch([case], cascade, recipe, LABELS, 0, step, 1.0)
        assert batch.images.shape[1] == 3
        for code in (1, 2):
            torch.testing.assert_close(batch.images[:, code], (batch.codes == code).float(), rtol=0, atol=0)


@pytest.mark.thorough
def test_they_are_disturbed_in_training_and_not_where_nothing_is_augmented(case, cascade, monkeypatch):
    monkeypatch.setattr("autoseg.training.augment.coarse.MOVED", 1.0)
    monkeypatch.setattr("autoseg.training.augment.coarse.OF_LABELS", 1.0)

    def is_disturbed(augmentation, free=False):
        recipe = Recipe(batch_size=2, patch_curriculum=(), augmentation=augmentation, foreground=1.0)
        batches = [make_batch([case], cascade, recipe, LABELS, 0, step, 1.0, free) for step in range(3)]
        return any(bool((batch.images[:, 1] != (batch.codes == 1)).any()) for batch in batches)

    assert is_disturbed("nnunet")
    assert not is_disturbed("nnunet", free=True)
    assert not is_disturbed("none")


def test_a_batch_without_a_coarse_stage_is_what_it_was(case, plan):
    recipe = Recipe(batch_size=2, patch_curriculum=())
    labels = LabelSchema(("a",), ((1,),), False, (1,))
    first, second = (make_batch([one], plan, recipe, labels, 0, 0, 1.0) for one in (case, replace(case, coarse=None)))
    assert torch.equal(first.images, second.images)


def test_stored_codes_are_read_in_parts_and_their_damage_is_told(case, tmp_path):
    folder = tmp_path / "coarse"
    assert (made_from(folder, "a"), made_from(folder, "b")) == ("source", "")
    assert case.coarse.shape == (24, 26, 28)
    np.testing.assert_array_equal(case.coarse[3:9, :, 5:12], case.codes[3:9, :, 5:12])
    np.testing.assert_array_equal(loaded([case], 2**20)[0].coarse, case.codes[...])
    data = bytearray((folder / "a.b2nd").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "a.b2nd").write_bytes(data)
    with pytest.raises(AutosegError):
        case.coarse[...]
    (folder / "a.b2nd").unlink()
    with pytest.raises(AutosegError, match="a.b2nd"):
        case.coarse[...]
