import numpy as np
import pytest

from autoseg.evaluation.overlap import Counts, count_voxels, dice, iou, precision, recall, relative_volume_error


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


def test_relative_errors_of_volumes():
    counts = Counts(tp=900, fp=50, fn=100, tn=0)
    assert relative_volume_error(counts) == pytest.approx(-0.05)
    assert relative_volume_error(Counts(tp=0, fp=5, fn=0, tn=0)) is None
