"""The box "How sure is this?": what it says of the probabilities of a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autoseg.data.labels import LabelSchema
from autoseg.data.unlike import Unlike
from autoseg.evaluation.calibration import CALIBRATION, Calibration
from autoseg.options import ReportOptions
from autoseg.page.sure import sure_box
from autoseg.pipeline import report
from autoseg.records import CalibrationAbout, CaseRecord, CohortRecord, ModelAbout, ModelInfo, ModelName, StudyAbout
from autoseg.workspace import write_json
from planners.records import to_json
from tests.helpers.evaluations import ONE_WORKER
from tests.helpers.models import make_plan

LABELS = LabelSchema(("liver", "cyst"), ((1,), (2,)), False, (1, 2))
BEFORE, AFTER = {"liver": 0.04, "cyst": 0.02}, {"liver": 0.01, "cyst": 0.015}
PLAIN = CaseRecord()
COLD, WARM = CalibrationAbout(BEFORE, AFTER, used=False), CalibrationAbout(BEFORE, AFTER, used=True)


def box(calibration: CalibrationAbout | None, record: CaseRecord = PLAIN) -> str:
    return str(sure_box(record, LABELS, calibration))


def test_the_error_of_probabilities_is_told_in_percentage_points_with_the_worst_structure() -> None:
    assert "off by 3.0 percentage points on average" in box(COLD)
    assert "most for liver, by 4.0." in box(COLD)
    assert "with one they would be off by 1.2." in box(COLD)


def test_a_model_with_a_temperature_says_what_it_does() -> None:
    assert "off by 1.2 percentage points on average" in box(WARM)
    assert "most for cyst, by 1.5. Without its temperature" in box(WARM)
    assert "they would be off by 3.0." in box(WARM)


def test_one_structure_is_not_said_to_be_the_worst() -> None:
    alone = box(CalibrationAbout({"liver": 0.04}, {"liver": 0.04}, used=False))
    assert "that it had not seen." in alone
    assert "most for" not in alone
    assert "did not help, so the model has none" in alone


def test_of_a_scan_unlike_the_training_data_more_is_to_be_expected() -> None:
    unlike = CaseRecord(unlike=(Unlike("spacing along z", 5.0, 1.0, 2.5, "mm"),))
    assert "This scan is not, so expect a larger error." in box(COLD, unlike)
    assert "expect a larger" not in box(COLD)


def test_without_knowledge_there_is_no_box() -> None:
    assert box(None) == ""
    assert box(CalibrationAbout({}, {}, used=False)) == ""


def test_predictions_tell_the_calibration_of_the_model_that_made_them(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "predicted" / "case_b.nii.gz", tmp_path)
    plan = make_plan()
    about = ModelAbout(plan, LABELS, ("CT",), info=ModelInfo(study=StudyAbout("s", (), WARM)))
    record = CohortRecord(made_by="autoseg predict", model=ModelName("m", "", to_json(about)), labels=LABELS)
    write_json(tmp_path / "run.json", record)
    page = report(tmp_path, ReportOptions(), ONE_WORKER).path.read_text(encoding="utf-8")
    assert page.count("off by 1.2 percentage points") == 1


@pytest.mark.thorough
def test_a_cross_validation_tells_its_own_and_only_of_cases_with_a_prediction(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "evaluation" / "metrics.json", tmp_path)
    write_json(tmp_path / CALIBRATION, Calibration((1.5,), BEFORE, AFTER, 0.3, 0.2, 1000))
    options = ReportOptions(reference=place / "labelsTr", predicted=place / "predicted")
    page = report(tmp_path, options, ONE_WORKER).path.read_text(encoding="utf-8")
    assert page.count("off by 3.0 percentage points") == 3  # of four cases one was not predicted
