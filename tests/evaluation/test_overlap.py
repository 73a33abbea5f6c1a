import numpy as np
import pytest

from autoseg.evaluation import volumes
from autoseg.evaluation.overlap import Counts, count_voxels, dice, iou, precision, recall


def test_counts_add_up_to_the_image():
    rng = np.random.default_rng(0)
    reference, predicted = rng.random((2, 5, 6, 7)) < 0.4
    found = count_voxels(reference, predicted)
    assert found.tp + found.fp + found.fn + found.tn == reference.size
    assert found.n_reference == reference.sum()
    assert found.n_predicted == predicted.sum()


def test_scores_as_worked_on_paper():
    counts = Counts(tp=6, fp=2, fn=4, tn=100)
    assert dice(counts) == pytest.approx(12 / 18)
    assert iou(counts) == pytest.approx(6 / 12)
    assert precision(counts) == pytest.approx(6 / 8)
    assert recall(counts) == pytest.approx(6 / 10)


def test_no_voxels_no_score():
    nothing = Counts(tp=0, fp=0, fn=0, tn=9)
    assert dice(nothing) is iou(nothing) is precision(nothing) is recall(nothing) is None


def test_volumes_in_millilitres():
    counts = Counts(tp=900, fp=50, fn=100, tn=0)
    assert volumes.volume_ml(1000, (1, 1, 1)) == 1
    assert volumes.volume_error_ml(counts, (2, 1, 1)) == pytest.approx(-0.1)
    assert volumes.relative_volume_error(counts) == pytest.approx(-0.05)
    assert volumes.relative_volume_error(Counts(tp=0, fp=5, fn=0, tn=0)) is None
