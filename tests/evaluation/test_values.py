"""What evaluations make of label values, whatever these are."""

import time
import tracemalloc

import numpy as np
import pytest

from autoseg.data.labels import LabelSchema, read_labels
from autoseg.engines import LocalEngine
from autoseg.errors import AutosegError
from autoseg.evaluation import evaluate_case, evaluate_folder, summarise
from autoseg.evaluation.overlap import Counts
from autoseg.evaluation.report import CaseMetrics
from autoseg.evaluation.values import count_structures, unknown_values
from autoseg.imaging.files import write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.values import count_values
from autoseg.imaging.volume import LabelVolume
from autoseg.options import Runtime
from autoseg.page.scores import scores_section
from autoseg.pipeline import evaluate

ATLAS = 614_454_277  # a structure of the mouse brain
LOWEST = -(2**31)


def volume(data):
    data.setflags(write=False)
    return LabelVolume(data, Geometry.from_spacing(data.shape, (1.0, 1.0, 1.0)))


def plain(*values):
    return LabelSchema(tuple(f"label {v}" for v in values), tuple((v,) for v in values), False, values)


def maps(*values):
    """A label map with a slab of each value, and one in which every slab begins a voxel later."""
    data = np.zeros((8, 12, 4 * len(values) + 2), np.int32)
    for number, value in enumerate(values):
        data[1:7, 1:11, 4 * number : 4 * number + 4] = value
    return volume(data), volume(np.roll(data, 1, 2))


@pytest.mark.parametrize("values", [(1, ATLAS), (-3, 5), (LOWEST, 2**31 - 1), (2**16 - 1, 2**16, 2**16 + 1)])
def test_scores_do_not_depend_on_the_numbers_of_the_structures(values):
    numbered = [row.values for row in evaluate_case(**pair(*range(1, 1 + len(values))))]
    found = [row.values for row in evaluate_case(**pair(*values))]
    assert found == numbered


def pair(*values):
    reference, predicted = maps(*values)
    return {"reference": reference, "predicted": predicted, "labels": plain(*values)}


def test_memory_goes_by_the_number_of_labels_not_by_their_values():
    inputs = pair(1, ATLAS)
    tracemalloc.start()
    evaluate_case(**inputs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize("tolerance", [float("nan"), -1.0, float("inf"), {"label 1": -0.5}])
def test_a_tolerance_that_is_no_length_is_refused(tolerance, tmp_path):
    with pytest.raises(AutosegError, match=r"tolerance_mm: expected a length in mm, 0 or more, found"):
        evaluate_case(**pair(1), tolerance_mm=tolerance)
    with pytest.raises(AutosegError, match="tolerance_mm"):
        evaluate_folder(tmp_path / "a", tmp_path / "b", plain(1), tolerance_mm=tolerance)


def test_values_are_counted_by_structure():
    data = np.array([[[0, 1, 1], [2, 3, 9]]], np.uint8)
    labels = read_labels({"background": 0, "all": [1, 2, 3], "core": [2, 3], "ignore": 7}, [1, 2])
    assert count_values(data) == {0: 1, 1: 2, 2: 1, 3: 1, 9: 1}
    assert count_structures(data, labels) == [4, 2]
    assert unknown_values(data, labels) == {9}
    assert unknown_values(np.full((2, 2, 2), 7), labels) == frozenset()


@pytest.fixture
def folders(tmp_path):
    """References number a structure 1, predictions 5; both have another, 2."""
    reference, predicted = maps(1, 2)
    for case in ("a", "b"):
        write_label_volume(reference, tmp_path / "reference" / f"{case}.nii.gz")
        data = np.where(predicted.data == 1, 5, predicted.data)
        write_label_volume(volume(data), tmp_path / "predicted" / f"{case}.nii.gz")
    return tmp_path / "reference", tmp_path / "predicted"


def test_a_value_that_no_reference_has_is_scored_where_nobody_says_what_values_mean(folders, tmp_path):
    report = evaluate(*folders, tmp_path / "out", runtime=Runtime(workers=1))
    assert report.labels.structures == ("label 1", "label 2", "label 5")
    assert report.summary("label 5", "dice").mean == 0
    text = report.table()
    assert "- in references alone: label 1 (value 1)" in text
    assert "- in predictions alone: label 5 (value 5)" in text
    assert "if another tool numbers the structures differently, renumber its maps" in text
    assert "in predictions alone: label 5 (value 5)" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_value_that_is_not_declared_is_said_to_count_as_background(folders):
    report = evaluate_folder(*folders, read_labels({"background": 0, "one": 1, "two": 2}), engine=LocalEngine(1))
    assert report.notes[0] == "2 of 2 predictions hold 5, which no structure has and which count as background"
    assert report.notes[1] == "in references alone: one (value 1)"
    same = evaluate_folder(folders[0], folders[0], read_labels({"background": 0, "one": 1, "two": 2}), engine=LocalEngine(1))
    assert same.notes == ()


def seconds_for(count):
    """Of the table and of the page's scores, for so many structures in one case."""
    structures = tuple(f"s{i}" for i in range(count))
    labels = LabelSchema(structures, tuple((i + 1,) for i in range(count)), False, tuple(range(1, count + 1)))
    (row,) = evaluate_case(**pair(1))
    rows = [CaseMetrics("a", name, row.values, row.reasons, 1.0, Counts(1, 0, 0, 9)) for name in structures]
    begun = time.process_time()
    report = summarise(rows, labels)
    report.table()
    scores_section(report, {}, ())
    return time.process_time() - begun


@pytest.mark.thorough
def test_four_times_the_structures_take_about_four_times_as_long():
    seconds_for(8)  # templates and colours are made once
    few, many = (min(seconds_for(count) for _ in range(3)) for count in (150, 600))
    assert many < 9 * few
