import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.data.labels import IGNORE, read_labels
from autoseg.errors import DatasetError

REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def test_codes_are_positions_among_the_declared_values():
    labels = read_labels({"background": 0, "a": 1, "b": 2, "c": 4})
    assert labels.declared_values == (0, 1, 2, 4)
    assert labels.encode(np.array([[0, 4], [2, 1]])).tolist() == [[0, 3], [2, 1]]
    assert labels.n_heads == 4


@settings(deadline=None)
@given(
    values=st.sets(st.integers(-300, 3000).filter(bool), min_size=1, max_size=12),
    ignore=st.none() | st.integers(-400, 3100),
    kind=st.sampled_from([np.int16, np.int32, np.int64]),
    seed=st.integers(0, 99),
)
def test_every_declared_value_gets_its_own_code_and_ignore_gets_ignore(values, ignore, kind, seed):
    ignore = None if ignore in values | {0} else ignore
    entries = {f"s{value}": value for value in values} | ({} if ignore is None else {"ignore": ignore})
    labels = read_labels(entries)
    pool = [*labels.declared_values, *([] if ignore is None else [ignore])]
    array = np.random.default_rng(seed).choice(pool, (3, 4, 5)).astype(kind)
    array.setflags(write=False)
    codes = labels.encode(array)
    slow = [IGNORE if value == ignore else labels.declared_values.index(value) for value in array.ravel().tolist()]
    assert codes.dtype == np.int16
    assert codes.ravel().tolist() == slow


@pytest.mark.parametrize("value", [3, 5, 200, -1])
def test_an_undeclared_value_is_named(value):
    labels = read_labels({"a": 1, "b": 2, "c": 4})
    with pytest.raises(DatasetError, match=rf"\[{value}\] are not declared.*\[0, 1, 2, 4\]"):
        labels.encode(np.array([0, 1, value]))


def test_an_empty_array_is_encoded_as_an_empty_array():
    assert read_labels({"a": 1}).encode(np.zeros((0, 3), np.int16)).shape == (0, 3)


def test_unsigned_labels_can_be_encoded_where_ignore_is_negative():
    labels = read_labels({"a": 1, "ignore": -1})
    assert labels.encode(np.array([0, 1], np.uint8)).tolist() == [0, 1]
    assert labels.encode(np.array([0, -1], np.int8)).tolist() == [0, IGNORE]


def test_regions_are_sets_of_codes_in_the_order_of_the_file():
    labels = read_labels(REGIONS, [1, 2, 3])
    assert labels.has_regions
    assert labels.n_heads == 3
    assert labels.structures == ("whole", "core", "enhancing")
    assert labels.structure_codes == ((1, 2, 3), (2, 3), (3,))
    values = np.array([0, 1, 2, 3])
    assert [labels.mask(values, s).sum() for s in range(3)] == [3, 2, 1]


def test_structures_are_ordered_by_value_where_they_cannot_overlap():
    assert read_labels({"b": 2, "a": 1}).structures == ("a", "b")


@pytest.mark.parametrize(
    ("entries", "order", "message"),
    [
        ({"background": 1, "a": 2}, None, "background must be 0"),
        ({"background": 0}, None, "no structure"),
        ({"a": 1, "b": 1}, None, "its own value"),
        ({"Background": 0, "a": 1}, None, "value 0"),
        ({"a": [0, 1]}, [1], "value 0"),
        ({"a": 1, "ignore": 1}, None, "ignore must be"),
        ({"a": 1, "ignore": 0}, None, "ignore must be"),
        ({"a": 1, "ignore": [2, 3]}, None, "ignore must be"),
        ({"a": 1, "Ignore": 2}, None, "'Ignore'"),
        ({"": 1}, None, "expected a name for the value 1"),
        ({"  ": 2}, None, "expected a name for the value 2"),
        ({"a": "1"}, None, "integer"),
        ({"a": 1.5}, None, "integer"),
        ({"a": True}, None, "integer"),
        ({"a": []}, None, "integer"),
        ({"a": 2**31}, None, "must lie in"),
        ({"0": "background", "1": "liver"}, None, "older form"),
        (REGIONS, None, "regions_class_order: expected 3 values"),
        (REGIONS, [1, 2], "regions_class_order: expected 3 values"),
        (REGIONS, [1, 2, "x"], "integer"),
        (REGIONS, [3, 3, 3], "no other region"),
        (REGIONS, [1, 1, 3], "its own values"),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused_with_its_reason(entries, order, message):
    with pytest.raises(DatasetError, match=message):
        read_labels(entries, order)


def paint(labels, found):
    """The code of a voxel in which the structures with numbers ``found`` are above one half."""
    code = 0
    for number in sorted(found):
        code = labels.paint_codes[number][code]
    return code


@given(st.sets(st.sampled_from(range(3))))
def test_nested_regions_are_painted_one_over_the_other(found):
    labels = read_labels(REGIONS, [1, 2, 3])
    plain = max((labels.declared_values.index(labels.paint_values[number]) for number in found), default=0)
    assert paint(labels, found) == plain


@given(st.sets(st.sampled_from(range(3))), st.permutations([1, 2, 4]))
def test_a_value_that_means_all_structures_found_keeps_their_overlap(found, own):
    a, b, c = own
    labels = read_labels({"a": [a, 8, 9, 11], "b": [b, 8, 10, 11], "c": [c, 9, 10, 11]}, own)
    value = labels.declared_values[paint(labels, found)]
    assert {number for number in range(3) if value in labels.values[number]} == found


def test_of_two_values_with_one_meaning_the_painted_one_is_written():
    labels = read_labels({"whole": [1, 3, 4], "inner": [3, 4]}, [1, 4])
    assert labels.declared_values[paint(labels, {0, 1})] == 4


def test_label_values_that_lie_far_apart_are_encoded_as_those_that_do_not():
    far, near = (614454277, -(2**31), 7), (3, -2, 1)
    values = np.random.default_rng(0).choice([0, *far, 5], (4, 5, 6))
    closer = np.zeros_like(values)
    for a, b in zip((*far, 5), (*near, 2), strict=True):
        closer[values == a] = b
    schemas = [read_labels({"a": a, "b": b, "c": c, "ignore": i}) for (a, b, c), i in ((far, 5), (near, 2))]
    codes = [schema.encode(numbers) for schema, numbers in zip(schemas, (values, closer), strict=True)]
    named = [[int(c.max(initial=0)) for c in (code, -code)] for code in codes]
    assert named == [[3, 1], [3, 1]]
    for schema, code, numbers in zip(schemas, codes, (values, closer), strict=True):
        back = np.array(schema.declared_values)[code]
        np.testing.assert_array_equal(np.where(code < 0, schema.ignore, back), numbers)
    with pytest.raises(DatasetError, match=r"\[8\] are not declared"):
        schemas[0].encode(np.array([7, 8]))
    with pytest.raises(DatasetError, match="not declared"):
        schemas[0].encode(np.array([614454278]))
