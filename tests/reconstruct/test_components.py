import numpy as np
import pytest
from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component

from autoseg.reconstruct.components import KeepLargest, keep_largest


@pytest.mark.parametrize("values", [(1,), (2,), (1, 2), (3,)])
def test_only_the_largest_piece_stays_as_acvl_utils_finds_it(values):
    rng = np.random.default_rng(sum(values))
    for _ in range(20):
        labels = np.where(rng.random((6, 7, 8)) < 0.15, rng.integers(1, 4, (6, 7, 8)), 0)
        labels.setflags(write=False)
        mask = np.isin(labels, values)
        expected = np.where(mask & ~remove_all_but_largest_component(mask), 0, labels)
        assert np.array_equal(keep_largest(labels, [KeepLargest(values)]), expected)


def test_rules_follow_one_another():
    labels = np.array([[[1, 2, 2, 0, 1, 1, 0, 2]]])
    both = keep_largest(labels, [KeepLargest((1, 2))])
    assert both.tolist() == [[[1, 2, 2, 0, 0, 0, 0, 0]]]
    assert keep_largest(labels, [KeepLargest((1,)), KeepLargest((1, 2))]).tolist() == [[[0, 2, 2, 0, 1, 1, 0, 0]]]


def test_labels_without_the_structure_or_rules_stay_as_they_are():
    labels = np.zeros((2, 2, 2), np.int32)
    assert keep_largest(labels, [KeepLargest((1,))]) is labels
    assert keep_largest(labels, []) is labels


@pytest.mark.parametrize("values", [(), (0, 1)])
def test_a_rule_is_about_structures(values):
    with pytest.raises(ValueError, match="structures"):
        KeepLargest(values)
