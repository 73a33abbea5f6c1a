"""Confidence intervals of means over cases, and tests whether two methods differ on the same cases.

Intervals come from the bootstrap: cases are resampled with replacement, with Efron's correction for bias and skewness (BCa),
since Dice is skewed. Two methods are compared case by case: the interval of the mean difference shows how much they differ,
the Wilcoxon signed-rank test whether they do. Several tests are corrected after Holm. Both generalise to other cases with the
same two models. Whether other training runs of the two methods would differ likewise can only be seen from several training
runs of each.

``scipy.stats`` is imported in the functions that test, since loading it takes longer than reading a scan, and prediction does
not need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from autoseg.names import counted

__all__ = [
    "Difference",
    "few_cases",
    "holm",
    "is_equivalent",
    "mean_interval",
    "paired_difference",
    "paired_trainings",
    "wilcoxon_holm",
]

LEVEL = 0.95  # of every interval
RESAMPLES = 10_000
SEED = 20_240_101
FEWEST = 6  # cases; see few_cases
MOST_DRAWN = 255  # times that a case is in a resample; even 20 times is very rare
Values = Sequence[float | None]  # one metric, case by case; None where undefined


@dataclass(frozen=True)
class Difference:
    """How much higher the first of two methods scores.

    Attributes:
        n: cases in which both values are defined.
        n_undefined: cases left out because a value is undefined.
        mean, low, high: mean difference and its 95 % interval; None where ``mean_interval`` has none.
        p_value: two-sided Wilcoxon signed-rank; 1 when no case differs, None without cases.
    """

    n: int
    n_undefined: int
    mean: float | None
    low: float | None
    high: float | None
    p_value: float | None


def mean_interval(
    values: Sequence[float] | np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float] | tuple[None, None]:
    """BCa bootstrap interval of the mean (Efron 1987).

    Args:
        values: (n,) numbers, all defined.

    Returns:
        (low, high), the same for the same input; (None, None) for fewer than two values.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return None, None
    deviations = values - values.mean()
    if np.abs(deviations).max() < 1e-12:
        return float(values.mean()), float(values.mean())
    # as deviations from the mean in units of their size, so that float32 weights cost no digits
    scale = np.abs(deviations).max()
    means = _means_of_draws((deviations / scale).astype(np.float32), resamples, seed)
    below = (np.count_nonzero(means < -1e-6) + np.count_nonzero(np.abs(means) <= 1e-6) / 2) / resamples
    bias = ndtri(below)
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    tails = bias + ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = values.mean() + scale * np.quantile(means, ndtr(bias + tails / (1 - acceleration * tails)))
    none = 1e-6 * scale  # zero, up to float32 rounding
    return float(low) if abs(low) > none else 0.0, float(high) if abs(high) > none else 0.0


def few_cases(counts: Iterable[int]) -> str:
    """What a reader must know of intervals from ``mean_interval`` over few cases, as a sentence; '' if no interval needs it.

    A bootstrap interval of a mean lies between the smallest and the largest value. All n values of a symmetric distribution
    are on one side of its mean with probability 2^(1-n) (Thompson 1936, Annals of Mathematical Statistics 7, 122-128), and
    then the interval misses it. Below six cases this alone is more than the one in 20 that a 95 % interval may miss. BCa
    intervals are too short for more cases, too (Owen 2025, arXiv:2508.10083).

    Args:
        counts: cases behind each mean; a mean over fewer than two has no interval.
    """
    fewest = min((n for n in counts if n > 1), default=FEWEST)
    if fewest >= FEWEST:
        return ""
    return (
        f"Intervals over fewer than {counted(FEWEST, 'case')} say little about other cases: of those over {fewest}, about "
        f"one in {2 ** (fewest - 1)} or more misses the true mean, not one in 20."
    )


def _means_of_draws(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(resamples,) float32: the mean of each resample of (n,) float32 values."""
    n = len(values)
    shares = (np.arange(MOST_DRAWN + 1) / n).astype(np.float32)  # weight of a case in a resample, by how often it was drawn
    draws = _draws(n, resamples, seed)
    return np.concatenate([np.take(shares, draws[rows], mode="clip") @ values for rows in _blocks(n, resamples)])


@lru_cache(maxsize=4)
def _draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, n) uint8: how often each case is drawn in each resample. Many columns of a report have the same n."""
    rng, chances, drawn = np.random.default_rng(seed), np.full(n, 1 / n), np.empty((resamples, n), np.uint8)
    for rows in _blocks(n, resamples):
        drawn[rows] = rng.multinomial(n, chances, rows.stop - rows.start)
    return drawn


def _blocks(n: int, resamples: int) -> list[slice]:
    """The resamples in blocks, so that arrays with more than one byte per case and resample stay small.

    Matrix products sum in groups of rows, so blocks of a multiple of 64 rows give exactly the same numbers as the whole.
    """
    step = 64 * max(1, 2**12 // n)
    return [slice(start, min(start + step, resamples)) for start in range(0, resamples, step)]


def paired_difference(first: Values, second: Values) -> Difference:
    """Compare two methods on the same cases.

    Args:
        first, second: values of one metric, case by case in the same order; None where undefined.

    Returns:
        Difference, ``first`` minus ``second``.
    """
    from scipy.stats import wilcoxon

    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    differences = np.array([a - b for a, b in pairs])
    low, high = mean_interval(differences)
    p_value = None if not pairs else float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return Difference(
        n=len(pairs),
        n_undefined=len(first) - len(pairs),
        mean=float(differences.mean()) if pairs else None,
        low=low,
        high=high,
        p_value=p_value,
    )


def paired_trainings(first: Values, second: Values) -> Difference:
    """Compare two methods over several training runs of each, with an interval from Student's t.

    Args:
        first, second: mean of one metric over the cases for each training run, in the same order; None where undefined.

    Returns:
        Difference, ``first`` minus ``second``, ``n`` counting training runs; interval and p value are None for fewer than two.
    """
    from scipy.stats import ttest_1samp

    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    differences = np.array([a - b for a, b in pairs])
    mean = float(differences.mean()) if pairs else None
    low = high = p_value = None
    if mean is not None and len(pairs) > 1 and np.ptp(differences) < 1e-12:  # Student's t is not defined
        low, high, p_value = mean, mean, float(abs(mean) < 1e-12)
    elif len(pairs) > 1:
        test = ttest_1samp(differences, 0.0)
        low, high = map(float, test.confidence_interval(LEVEL))
        p_value = float(test.pvalue)
    return Difference(len(pairs), len(first) - len(pairs), mean, low, high, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for multiple tests (Holm 1979); each can be compared with the level for a single test.

    Returns:
        list of floats in the order given, at most 1.
    """
    given = np.asarray(p_values, float)
    order = np.argsort(given)
    corrected = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    result = np.empty(len(given))
    result[order] = np.minimum(corrected, 1.0)
    return [float(value) for value in result]


def wilcoxon_holm(reference: Values, others: Mapping[str, Values]) -> dict[str, Difference]:
    """One method against several on the same cases, with p values corrected for multiple tests.

    Args:
        reference: values of one metric, case by case; None where undefined.
        others: name -> the values of another method, for the same cases in the same order.

    Returns:
        name -> Difference, ``reference`` minus that method, its ``p_value`` corrected after Holm.
    """
    found = {name: paired_difference(reference, values) for name, values in others.items()}
    tested = {name: difference.p_value for name, difference in found.items() if difference.p_value is not None}
    corrected = holm(list(tested.values()))
    return found | {name: replace(found[name], p_value=p) for name, p in zip(tested, corrected, strict=True)}


def is_equivalent(difference: Difference, margin: float) -> bool:
    """Whether the whole interval is within ``margin`` of zero: two one-sided tests, at half the level of the interval."""
    low, high = difference.low, difference.high
    return low is not None and high is not None and -margin < low and high < margin
