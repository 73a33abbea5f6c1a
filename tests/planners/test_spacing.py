import pytest

from planners import get_planner
from planners.spacing import choose_grid, is_flat


def warnings_of(decisions):
    return [decision for decision in decisions if decision.warning]


def test_the_target_is_the_median(fingerprint_of):
    grid, decisions = choose_grid(fingerprint_of([((1, 1, 1), (90, 90, 90), 2), ((1.2, 1.1, 1), (80, 90, 90), 3)]))
    assert grid.spacing_mm == (1.2, 1.1, 1.0)
    assert not warnings_of(decisions)


def test_thick_slices_take_the_tenth_percentile(fingerprint_of):
    # of ten spacings 4, 5, ..., 13 numpy's percentile 10 is 4.9
    groups = [((4 + i, 1, 1), (20, 200, 200), 1) for i in range(10)]
    grid, _ = choose_grid(fingerprint_of(groups))
    assert grid.spacing_mm == pytest.approx((4.9, 1, 1))


def test_thick_slices_stay_the_coarsest_axis(fingerprint_of):
    grid, _ = choose_grid(fingerprint_of([((0.5, 1, 1), (30, 200, 200), 4), ((6, 1, 1), (30, 200, 200), 6)]))
    assert grid.spacing_mm == (1 + 1e-5, 1, 1)


def test_thick_slices_of_a_long_stack_keep_the_median(fingerprint_of):
    grid, _ = choose_grid(fingerprint_of([((3, 1, 1), (100, 200, 200), 2), ((5, 1, 1), (100, 200, 200), 3)]))
    assert grid.spacing_mm == (5, 1, 1)


@pytest.mark.parametrize(
    ("spacing", "order"),
    [((5, 1, 1), (0, 1, 2)), ((1, 5, 1), (1, 0, 2)), ((1, 2, 5), (2, 0, 1)), ((1, 1, 1), (0, 1, 2))],
)
def test_the_coarsest_axis_comes_first(fingerprint_of, spacing, order):
    shape = tuple(round(200 / mm) for mm in spacing)
    grid, _ = choose_grid(fingerprint_of([(spacing, shape, 5)]))
    assert grid.axis_order == order
    assert grid.spacing_mm == tuple(spacing[axis] for axis in order)
    assert grid.median_shape == tuple(shape[axis] for axis in order)


def test_a_single_slice_axis_comes_first_whatever_its_spacing(fingerprint_of):
    flat = fingerprint_of([((1, 0.1, 1), (300, 1, 200), 5)])
    assert is_flat(flat)
    assert choose_grid(flat)[0].axis_order == (1, 0, 2)
    assert get_planner("slices_2d").plan(flat).patch_size[0] == 1


def test_two_kinds_of_scans_are_told_with_their_numbers(fingerprint_of):
    mixed = fingerprint_of([((1, 1, 1), (200, 200, 200), 12), ((5, 1, 1), (40, 200, 200), 8)])
    (warning,) = warnings_of(choose_grid(mixed)[1])
    assert "along z" in warning.what
    assert warning.numbers == "12 cases around 1 mm, 8 around 5 mm"


def test_a_spread_without_a_gap_is_one_kind(fingerprint_of):
    spread = fingerprint_of([((1 + 0.3 * i, 1, 1), (100, 200, 200), 1) for i in range(7)])
    assert not warnings_of(choose_grid(spread)[1])


def test_a_few_unusual_scans_are_named(fingerprint_of):
    unusual = fingerprint_of([((1, 1, 1), (100, 100, 100), 19), ((1, 1, 20), (100, 100, 100), 1)])
    (warning,) = warnings_of(choose_grid(unusual)[1])
    assert warning.numbers == "1 of 20: case_0019 1 x 1 x 20 mm"


def test_a_case_never_vanishes_in_resampling(fingerprint_of):
    grid, _ = choose_grid(fingerprint_of([((9, 9, 9), (90, 90, 90), 3), ((1, 1, 1), (3, 3, 3), 2)]))
    assert min(grid.median_shape) >= 1
