"""Intensities of integers, counted by value, are those of the same numbers as floats, which are sorted."""

from dataclasses import astuple

import numpy as np
import pytest

from autoseg.data.intensities import measure_channel


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16"])
def test_counted_integers_have_the_percentiles_and_moments_of_sorted_floats(kind):
    numbers = np.random.default_rng(0).normal(60, 30, (6, 9, 11)).clip(0, 100).astype(kind)
    inside = numbers != 0
    if kind.startswith("i"):
        numbers[0] *= -1
    foreground = numbers > 70
    counted = astuple(measure_channel(numbers, inside, foreground))
    for one, other in zip(counted, astuple(measure_channel(numbers.astype(np.float32), inside, foreground)), strict=True):
        assert one == pytest.approx(other, rel=1e-9)
