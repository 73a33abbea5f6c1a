"""Files that an earlier version wrote are opened by this one: same digests, nothing done twice, same masks.

``tests/golden/v*`` were made by ``tests/golden/make.py`` of their day. Each test works on a copy, at another place and with
other dates than the files were made at, as after a move to another disk.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import autoseg
from autoseg.cli import main
from autoseg.data.dataset import read_dataset
from autoseg.imaging.files import read_label_volume, read_volume
from autoseg.options import InferenceOptions
from autoseg.plans import write_plan
from autoseg.workspace import read_record
from planners.plan import Plan
from planners.records import digest

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.glob("v*"))
# pages and texts for people are made anew of the records each time; some are of later versions
MADE_AGAIN = {"report.html", "curves.png", "methods.md", "references.bib"}
TABLES = {"measurements.csv"}  # written anew of the records, with as many digits as the version has


@pytest.fixture(params=VERSIONS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for path in sorted((GOLDEN / request.param).rglob("*")):
        copy = tmp_path / path.relative_to(GOLDEN / request.param)
        if path.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)  # without the dates
    return tmp_path


def expected(golden: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((golden / "expected.json").read_text())
    return found


def call(golden: Path, verb: str, *more: str, fold: str = "0") -> int:
    raw = str(next(golden.glob("Dataset*")))
    named = {"predictions": str(golden / "predictions"), "reconstructed": str(golden / "reconstructed"), "0": fold}
    words = [named.get(word, word.replace("DATA", raw)) for word in expected(golden)["words"][verb]]
    return main([*words, *more, "--workspace", str(golden / "workspace")])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name not in MADE_AGAIN | TABLES
    }


def model_of(golden: Path) -> Path:
    return next((golden / "workspace" / "models").iterdir())


def fold_of(golden: Path, fold: int) -> Path:
    return next((golden / "workspace" / "runs").glob(f"*/*/fold_{fold}"))


def test_digests_of_model_plan_and_labels_are_those_of_the_day(golden: Path) -> None:
    bundle, told = autoseg.load_bundle(model_of(golden)), expected(golden)
    plan = read_record(Plan, next((golden / "workspace" / "plans").glob("*/fullres_3d.json")))
    labels = read_dataset(next(golden.glob("Dataset*"))).labels
    found = {"model": bundle.digest, "plan": digest(plan), "model_plan": digest(bundle.plan), "labels": digest(labels)}
    assert found == {name: told[name] for name in found}
    assert bundle.labels == labels
    assert bundle.scans is None


def test_planning_keeps_the_edited_plan_and_every_prepared_case(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {part: bytes_of(golden / "workspace" / part) for part in ("plans", "prepared")}
    assert call(golden, "plan") == 0
    text = capsys.readouterr().out
    assert "fullres_3d (kept as edited)" in text
    assert "prepared 0 cases, 5 were ready" in text
    assert {part: bytes_of(golden / "workspace" / part) for part in before} == before


def test_a_plan_in_the_words_of_an_older_version_is_not_taken_for_another(golden: Path) -> None:
    folder = next((golden / "workspace" / "plans").iterdir())
    before = bytes_of(folder)
    for path in sorted(folder.glob("*.json")):
        write_plan(path, read_record(Plan, path))
    assert bytes_of(folder) == before


def test_a_finished_fold_is_not_trained_or_predicted_again(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fold, model = fold_of(golden, 0), model_of(golden)
    weights, before = bytes_of(model)["fold_0.safetensors"], load_file(fold / "checkpoint.safetensors")
    history, predicted = (fold / "history.jsonl").read_bytes(), sorted((fold / "validation").glob("phantom_*"))
    written = [(path.read_bytes(), path.stat().st_mtime_ns) for path in predicted]
    assert [path.name for path in predicted] == ["phantom_000.json", "phantom_000.nii.gz"]
    assert call(golden, "train") == 0
    assert f"resuming at step {expected(golden)['steps']}" in capsys.readouterr().err
    assert (fold / "history.jsonl").read_bytes() == history
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in predicted] == written
    after = load_file(fold / "checkpoint.safetensors")
    assert all(np.array_equal(after[name], before[name]) for name in before | after)
    assert bytes_of(model)["fold_0.safetensors"] == weights
    assert autoseg.load_bundle(model).digest == expected(golden)["model"]


def test_an_interrupted_fold_goes_on_to_its_end(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, fold, model = expected(golden), fold_of(golden, 1), model_of(golden)
    begun, weights = (fold / "history.jsonl").read_text(), bytes_of(model)["fold_0.safetensors"]
    assert call(golden, "train", fold="1") == 0
    assert f"resuming at step {told['stopped_at']}" in capsys.readouterr().err
    history = (fold / "history.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in history.splitlines()]
    assert history.startswith(begun)
    assert (steps[-1], len(steps)) == (told["steps"], len(set(steps)))
    assert list(autoseg.load_bundle(model).folds) == ["0", "1"]
    assert bytes_of(model)["fold_0.safetensors"] == weights


def test_predictions_are_skipped_and_stay_as_they_are(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = bytes_of(golden / "predictions")
    assert call(golden, "predict") == 0
    assert "0 predicted, 1 were done already, 0 failed" in capsys.readouterr().out
    after = bytes_of(golden / "predictions")
    assert after.pop("run.json") != before.pop("run.json")  # of another day and machine
    assert after == before


def test_masks_predicted_anew_are_the_same(golden: Path) -> None:
    predictor = autoseg.Predictor(model_of(golden), InferenceOptions(precision="fp32"), device="cpu")
    scan = next(golden.glob("Dataset*/imagesTs/*_0000.nii.gz"))
    stored = read_label_volume(golden / "predictions" / scan.name.replace("_0000", ""))
    found = predictor.predict(read_volume(scan)).labels
    assert found.geometry == stored.geometry
    assert len(np.unique(stored.data)) > 2
    assert found.data.tobytes() == stored.data.astype(found.data.dtype).tobytes()


def test_reconstructed_label_maps_are_skipped_and_stay_as_they_are(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = bytes_of(golden / "reconstructed")
    assert call(golden, "reconstruct") == 0
    assert "0 label maps reconstructed, 1 were done already, 0 failed" in capsys.readouterr().out
    assert bytes_of(golden / "reconstructed") == before


def test_a_prediction_of_the_day_is_scored(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(golden, "predict", "--reference", str(next(golden.glob("Dataset*/labelsTs")))) == 0
    assert "0 predicted, 1 were done already, 0 failed" in capsys.readouterr().out
    assert (golden / "predictions" / "metrics.csv").read_text().count("phantom_005") == 4
