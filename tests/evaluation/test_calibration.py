"""Temperatures: those of overconfident logits are found, errors fall on voxels that were held out, and no mask changes."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.evaluation.calibration import (
    Samples,
    calibrate,
    calibration_error,
    errors_of,
    fit_temperatures,
    probabilities_of,
)


def drawn(seed: int, sharper: float | tuple[float, ...], *, regions: bool = False, n: int = 20_000) -> Samples:
    """Voxels whose truth is drawn from probabilities, and logits that many times too large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 3))
    if regions:
        truth = rng.random((n, 3)) < 1 / (1 + np.exp(-logits))
    else:
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        truth = np.arange(3) == (rng.random((n, 1)) > chances.cumsum(axis=1)).sum(axis=1, keepdims=True)
    return Samples((logits * np.array(sharper)).astype(np.float32), truth, regions)


def test_the_temperature_of_overconfident_logits_is_found() -> None:
    assert fit_temperatures(drawn(0, 3.0)) == pytest.approx((3.0,), rel=0.05)
    assert fit_temperatures(drawn(0, (3.0, 0.5, 1.0), regions=True)) == pytest.approx((3.0, 0.5, 1.0), rel=0.08)


@pytest.mark.parametrize("regions", [False, True])
def test_errors_fall_on_folds_that_were_held_out_and_masks_stay(regions: bool) -> None:
    folds = {str(seed): drawn(seed, 3.0, regions=regions) for seed in range(3)}
    names = ("a", "b", "c")[not regions :]
    found = calibrate(folds, names)
    assert set(found.before) == set(found.after) == set(names)
    for name in names:
        assert found.before[name] > 0.05
        assert found.after[name] < 0.01
    assert found.loss_after < found.loss_before
    for one in folds.values():
        before, after = probabilities_of(one), probabilities_of(one, found.temperatures)
        if regions:
            assert np.array_equal(before > 0.5, after > 0.5)
        else:
            assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
            np.testing.assert_allclose(after.sum(axis=1), 1)
    assert "| a |" in found.table() or "| b |" in found.table()


def test_calibrated_logits_get_a_temperature_near_one() -> None:
    assert fit_temperatures(drawn(5, 1.0)) == pytest.approx((1.0,), abs=0.03)
    assert max(errors_of(drawn(5, 1.0))) < 0.01


def test_the_error_is_that_of_plain_bins() -> None:
    rng = np.random.default_rng(1)
    chances, truth = rng.random(500), rng.random(500) < 0.3
    edges, expected = np.linspace(0, 1, 16), 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (chances >= low) & (chances < high)
        if inside.any():
            expected += inside.mean() * abs(chances[inside].mean() - truth[inside].mean())
    assert calibration_error(chances, truth) == pytest.approx(expected)
    assert calibration_error(np.zeros(0), np.zeros(0, bool)) == 0
