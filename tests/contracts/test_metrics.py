"""What every metric in the registry keeps to."""

import numpy as np
import pytest

from autoseg.evaluation import METRICS
from autoseg.evaluation.metrics import unit_of

SPACING_MM = (2.5, 1.5, 1.0)


def ball(shape, centre, radius):
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2


@pytest.fixture
def masks():
    shape = (14, 18, 20)
    pair = ball(shape, (6, 8, 9), 5), ball(shape, (7, 8, 11), 5)
    for mask in pair:
        mask.setflags(write=False)
    return pair


@pytest.mark.parametrize("name", METRICS)
def test_flipping_both_masks_changes_nothing(name, masks):
    expected = METRICS[name](*masks, SPACING_MM)
    for axis in range(3):
        assert METRICS[name](*(np.flip(m, axis) for m in masks), SPACING_MM) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_doubling_the_spacing_scales_by_the_unit(name, masks):
    factor = {"mm": 2, "mL": 8, "": 1}[unit_of(name)]
    doubled = tuple(2 * s for s in SPACING_MM)
    assert METRICS[name](*masks, doubled) == pytest.approx(factor * METRICS[name](*masks, SPACING_MM), rel=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_agreement_is_perfect(name, masks):
    reference, _ = masks
    value = METRICS[name](reference, reference, SPACING_MM)
    if name in ("reference_ml", "predicted_ml"):
        assert value == pytest.approx(reference.sum() * 2.5 * 1.5 / 1000)
    elif name == "foreground_share":
        assert value == reference.mean()
    else:
        assert value == (0 if unit_of(name) or "error" in name or "mse" in name else 1)


@pytest.mark.parametrize("name", METRICS)
def test_empty_masks_give_a_number_or_none_and_no_warning(name, masks):
    full, empty = masks[0], np.zeros_like(masks[0])
    for pair in ((empty, empty), (full, empty), (empty, full)):
        value = METRICS[name](*pair, SPACING_MM)
        assert value is None or np.isfinite(value)


@pytest.mark.parametrize("name", METRICS)
def test_disjoint_masks_give_a_finite_number(name):
    shape = (10, 10, 30)
    value = METRICS[name](ball(shape, (5, 5, 5), 3), ball(shape, (5, 5, 24), 3), SPACING_MM)
    assert np.isfinite(value)
    if name in ("dice", "iou", "precision", "recall", "nsd"):
        assert value == 0


@pytest.mark.parametrize("name", METRICS)
def test_the_order_in_memory_changes_nothing(name, masks):
    assert METRICS[name](*(np.asfortranarray(m) for m in masks), SPACING_MM) == METRICS[name](*masks, SPACING_MM)
