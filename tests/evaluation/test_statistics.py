import inspect

import numpy as np
import pytest
from scipy import stats

from autoseg.evaluation import Difference, holm, is_equivalent, mean_interval, paired_difference, wilcoxon_holm
from autoseg.evaluation.statistics import _means_of_draws, few_cases, paired_trainings


def test_the_interval_is_the_one_scipy_finds():
    values = np.random.default_rng(1).beta(9, 1, 40)
    seed = {"rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state": 0}  # by the version of SciPy
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", **seed).confidence_interval
    low, high = mean_interval(values)
    # two bootstraps differ by their draws: about a fortieth of the width
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=(expected.high - expected.low) / 20)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        low, high = mean_interval(rng.beta(8, 2, 40), resamples=1000)
        covered += low <= 0.8 <= high
    assert 0.91 < covered / 300 < 0.98


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_over_few_cases_miss_the_mean_as_often_as_the_reader_is_told(n):
    values = np.random.default_rng(n).normal(size=(400, n))
    ends = [mean_interval(row, resamples=1000) for row in values]
    missed = sum(not low <= 0 <= high for low, high in ends) / len(ends)
    assert missed > 0.8 / 2 ** (n - 1)  # 400 draws: within a fifth
    assert f"over {n}, about one in {2 ** (n - 1)} or more misses the true mean, not one in 20" in few_cases([40, n, 1, 0])


def test_nothing_is_said_of_intervals_over_six_cases_or_of_means_without_one():
    assert few_cases([6, 40, 1, 0]) == few_cases([]) == ""


def test_the_same_values_give_the_same_interval():
    values = [0.9, 0.8, 0.95, 0.4, 0.88]
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)


def test_large_numbers_lose_no_digits():
    values = np.random.default_rng(3).normal(0, 1, 50)
    low, high = mean_interval(values)
    assert mean_interval(values + 1e6) == pytest.approx((low + 1e6, high + 1e6), abs=1e-5)


def test_few_or_equal_values():
    assert mean_interval([]) == mean_interval([0.5]) == (None, None)
    assert mean_interval([0.7, 0.7, 0.7]) == pytest.approx((0.7, 0.7))
    low, high = mean_interval([0.0, 1.0])
    assert 0 <= low < high <= 1


def test_a_paired_difference_leaves_out_what_is_undefined_and_counts_it():
    found = paired_difference([0.9, None, 0.8, 0.7, 0.95, 0.6], [0.8, 0.5, 0.75, None, 0.9, 0.58])
    assert (found.n, found.n_undefined) == (4, 2)
    assert found.mean == pytest.approx((0.1 + 0.05 + 0.05 + 0.02) / 4)
    assert found.low > 0
    assert found.p_value == pytest.approx(0.125)  # four of four higher: 2 / 2^4


def test_few_cases_of_which_one_is_equal_have_the_exact_p_value():
    found = paired_difference([0.1, 0.2, 0.0, 0.3, -0.05, 0.02], [0.0] * 6)
    assert found.p_value == 2 * 3 / 2**5  # ranks below zero add up to 2 or less for {}, {1} and {2} of the five


def test_equal_methods_do_not_differ():
    found = paired_difference([0.9, 0.8], [0.9, 0.8])
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert paired_difference([None], [0.8]).p_value is None


def test_trainings_are_paired_and_their_interval_is_students():
    first, second = [0.80, 0.82, 0.81, None], [0.79, 0.80, 0.80, 0.9]
    found = paired_trainings(first, second)
    differences = np.array([0.01, 0.02, 0.01])
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    assert (found.n, found.n_undefined, found.mean) == (3, 1, pytest.approx(0.04 / 3))
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    assert found.p_value == pytest.approx(stats.ttest_rel(first[:3], second[:3]).pvalue)


def test_few_or_equal_trainings():
    alone = paired_trainings([0.8], [0.7])
    assert (alone.n, alone.mean, alone.low, alone.p_value) == (1, pytest.approx(0.1), None, None)
    assert paired_trainings([None], [0.7]).mean is None
    same = paired_trainings([0.8, 0.7], [0.8, 0.7])
    assert (same.low, same.high, same.p_value) == (0, 0, 1)


def test_holm_as_worked_on_paper():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_several_methods_are_tested_against_one_and_corrected_for_their_number():
    rng = np.random.default_rng(4)
    reference = rng.beta(9, 1, 30)
    others = {"much": reference - 0.05 + rng.normal(0, 0.01, 30), "little": reference - rng.normal(0.002, 0.01, 30)}
    found = wilcoxon_holm(list(reference), {**others, "unscored": [None] * 30})
    raw = {name: stats.wilcoxon(reference - values).pvalue for name, values in others.items()}
    assert found["much"].p_value == pytest.approx(2 * raw["much"])  # the smallest of two
    assert found["little"].p_value == pytest.approx(max(raw["little"], 2 * raw["much"]))
    assert found["much"].mean == pytest.approx((reference - others["much"]).mean())
    assert (found["unscored"].n, found["unscored"].p_value) == (0, None)


@pytest.mark.parametrize(("low", "high", "same"), [(-0.004, 0.003, True), (-0.006, 0.001, False), (None, None, False)])
def test_equivalence_needs_the_whole_interval_within_the_margin(low, high, same):
    assert is_equivalent(Difference(40, 0, 0.0, low, high, 0.5), 0.005) is same


def test_an_interval_that_ends_at_zero_ends_there_exactly():
    assert mean_interval([0.0, 0.0, 0.0, 0.0, 0.0, 2.5])[0] == 0.0
    assert mean_interval([0.0, 0.0, 0.0, 0.0, 0.0, -2.5])[1] == 0.0


@pytest.mark.parametrize("n", [7, 300, 700])
def test_drawing_in_parts_gives_the_very_means_of_all_draws_at_once(n):
    values = np.random.default_rng(n).normal(size=n).astype(np.float32)
    drawn = np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), 3000)
    np.testing.assert_array_equal(_means_of_draws(values, 3000, 5), (drawn / n).astype(np.float32) @ values)
