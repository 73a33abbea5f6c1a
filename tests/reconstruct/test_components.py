from __future__ import annotations

import inspect
import json
from dataclasses import dataclass

import numpy as np
import pytest
from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component
from skimage.measure import label as label_pieces
from skimage.morphology import remove_small_objects

from autoseg.reconstruct.components import DropSmall, FillHoles, KeepLargest, LabelRule, apply_rules
from planners.records import digest, from_json, identity, to_json


@pytest.mark.parametrize("values", [(1,), (2,), (1, 2), (3,)])
def test_only_the_largest_piece_stays_as_acvl_utils_finds_it(values: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(values))
    for _ in range(20):
        labels = np.where(rng.random((6, 7, 8)) < 0.15, rng.integers(1, 4, (6, 7, 8)), 0)
        labels.setflags(write=False)
        mask = np.isin(labels, values)
        expected = np.where(mask & ~remove_all_but_largest_component(mask), 0, labels)
        assert np.array_equal(apply_rules(labels, [KeepLargest(values)], 1.0), expected)


def test_small_pieces_vanish_as_scikit_image_removes_them() -> None:
    is_new = "max_size" in inspect.signature(remove_small_objects).parameters
    rng = np.random.default_rng(0)
    for fewest in (2, 3, 5):
        labels = np.where(rng.random((6, 7, 8)) < 0.15, rng.integers(1, 4, (6, 7, 8)), 0)
        labels.setflags(write=False)
        mask = labels == 2
        pieces = label_pieces(mask, connectivity=3)
        kept = (remove_small_objects(pieces, max_size=fewest - 1) if is_new else remove_small_objects(pieces, fewest)) > 0
        expected = np.where(mask & ~kept, 0, labels)
        assert np.array_equal(apply_rules(labels, [DropSmall((2,), fewest * 0.0012)], 0.0012), expected)


def test_enclosed_background_is_filled_and_other_structures_in_it_stay() -> None:
    labels = np.zeros((7, 9, 9), np.int32)
    labels[1:6, 1:8, 1:8] = 2
    labels[2:5, 3:6, 3:6] = 0
    labels[3, 4, 4] = 5
    labels.setflags(write=False)
    filled = apply_rules(labels, [FillHoles((2,))], 1.0)
    assert (filled[1:6, 1:8, 1:8] == 2).sum() == 5 * 7 * 7 - 1
    assert filled[3, 4, 4] == 5
    opened = labels.copy()
    opened[0:2, 4, 4] = 0  # a way out
    assert apply_rules(opened, [FillHoles((2,))], 1.0) is opened
    ring = np.where(np.arange(7)[:, None, None] == 3, labels, 0)  # one slice thick in an image of several
    assert apply_rules(ring, [FillHoles((2,))], 1.0) is ring
    flat = labels[3:4]  # an image of one slice, in which every voxel lies at the border
    assert (apply_rules(flat, [FillHoles((2,))], 1.0) == 2).sum() == 7 * 7 - 1


def test_a_piece_of_a_region_becomes_what_is_around_it() -> None:
    labels = np.array([[[2, 3, 3, 2, 2, 3, 2, 0]]])
    assert apply_rules(labels, [KeepLargest((3,), becomes=2)], 1.0).tolist() == [[[2, 3, 3, 2, 2, 2, 2, 0]]]
    assert apply_rules(labels, [DropSmall((3,), 1.5, becomes=2)], 1.0).tolist() == [[[2, 3, 3, 2, 2, 2, 2, 0]]]


def test_rules_follow_one_another() -> None:
    labels = np.array([[[1, 2, 2, 0, 1, 1, 0, 2]]])
    both = apply_rules(labels, [KeepLargest((1, 2))], 1.0)
    assert both.tolist() == [[[1, 2, 2, 0, 0, 0, 0, 0]]]
    assert apply_rules(labels, [KeepLargest((1,)), KeepLargest((1, 2))], 1.0).tolist() == [[[0, 2, 2, 0, 1, 1, 0, 0]]]
    assert labels.tolist() == [[[1, 2, 2, 0, 1, 1, 0, 2]]]


def test_labels_without_the_structure_or_rules_stay_as_they_are() -> None:
    labels = np.zeros((2, 2, 2), np.int32)
    assert apply_rules(labels, [KeepLargest((1,)), DropSmall((1,), 1.0), FillHoles((1,))], 1.0) is labels
    assert apply_rules(labels, [], 1.0) is labels


@pytest.mark.parametrize("rule", [KeepLargest((1,)), DropSmall((1,), 1.5), FillHoles((1,))])
def test_cleaning_leaves_the_labels_that_it_is_given(rule: LabelRule) -> None:
    """MONAI 1.6.1 overwrites them: see findings."""
    labels = np.pad(np.ones((3, 3, 3), np.uint8), 2)
    labels[3, 3, 3], labels[0, 0, 0] = 0, 1
    given = labels.copy()
    assert not np.array_equal(apply_rules(labels, [rule], 1.0), given)
    np.testing.assert_array_equal(labels, given)


@pytest.mark.parametrize("values", [(), (0, 1)])
def test_a_rule_is_about_structures(values: tuple[int, ...]) -> None:
    for make in (KeepLargest, FillHoles, lambda given: DropSmall(given, 1.0)):
        with pytest.raises(ValueError, match="structures"):
            make(values)
    with pytest.raises(ValueError, match="above 0"):
        DropSmall((1,), 0.0)


@dataclass(frozen=True)
class Held:
    rules: tuple[LabelRule, ...]


def test_each_kind_of_rule_is_read_back_as_itself_and_the_first_kind_has_its_old_digest() -> None:
    rules: tuple[LabelRule, ...] = (KeepLargest((1, 2)), KeepLargest((1,), 2), DropSmall((3,), 0.5), FillHoles((4, 1)))
    held = Held(rules)
    assert from_json(Held, json.loads(json.dumps(to_json(held)))) == held
    assert identity(rules[0]) == {"values": [1, 2]}
    assert len({digest(rule) for rule in rules}) == 4
