"""A cascade by one ``train`` and one ``predict``: the fine stage learns from coarse labels of cases that no coarse fold saw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from autoseg.cli import main
from autoseg.data.dataset import read_dataset
from autoseg.imaging.files import read_label_volume, read_volume
from autoseg.inference.bundle import load_bundle
from autoseg.phantoms import write_phantoms
from autoseg.preprocess.case import coarse_codes
from autoseg.preprocess.coarse import StoredCodes
from autoseg.records import read_fold
from autoseg.training.fold import CHECKPOINT
from autoseg.workspace import read_record
from planners.plan import Plan

TRAIN = ["train", "Abdomen", "0", "--plan", "cascade_3d"]
SHORT = [
    "--iterations",
    "1",
    "--set",
    "validations=1",
    "--set",
    "cpu_width=1",
    "--device",
    "cpu",
    "--network",
    "unet",
    "--quiet",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms, planned for a cascade of small networks, and its first fold trained."""
    folder = tmp_path_factory.mktemp("cascade")
    raw = write_phantoms(folder / "Dataset007_Abdomen", training=2, test=1, in_plane_mm=10)
    assert call(folder, "plan_and_preprocess", str(raw), "--planner", "cascade_3d", "--quiet") == 0
    for name in ("cascade_3d", "lowres_3d"):
        narrow(folder / "workspace" / "plans" / "Abdomen" / f"{name}.json", 8)
    assert call(folder, "train", "Abdomen", "0", "--plan", "cascade_3d", *SHORT) == 0
    return folder


def call(place: Path, *words: str) -> int:
    return main([*words, "--workspace", str(place / "workspace")])


def narrow(plan: Path, features: int) -> None:
    """Edit a plan: the same number of features in each stage."""
    edited = json.loads(plan.read_text())
    edited["network"]["features"] = [features] * len(edited["network"]["features"])
    plan.write_text(json.dumps(edited))


def copied(place: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of ``place`` to change, and the folder of its models."""
    copy = shutil.copytree(place, folder / "copy")
    return copy, copy / "workspace" / "models"


def test_the_plan_of_the_fine_stage_reads_the_labels_of_the_coarse_one(place: Path) -> None:
    plans = {path.stem: read_record(Plan, path) for path in (place / "workspace" / "plans" / "Abdomen").glob("*.json")}
    fine = plans["cascade_3d"]
    assert fine.coarse is not None
    assert (fine.coarse.plan, fine.coarse.count) == ("lowres_3d", 4)
    assert fine.network.in_channels == 1 + 4
    assert any(decision.what == "cascade" for decision in fine.decisions)


@pytest.mark.thorough
def test_one_command_trains_all_folds_of_the_coarse_stage_and_the_fold_of_the_fine_one(place: Path) -> None:
    runs = place / "workspace" / "runs" / "Abdomen"
    assert {(path.parent.name, path.name) for path in runs.glob("*/fold_*")} == {
        ("cascade_3d_unet_coarse", "fold_0"),
        ("cascade_3d_unet_coarse", "fold_1"),
        ("cascade_3d_unet", "fold_0"),
    }
    model = load_bundle(place / "workspace" / "models" / "Abdomen_cascade_3d_unet")
    assert list(model.folds) == ["0"]
    assert model.coarse is not None
    assert list(model.coarse.folds) == ["0", "1"]
    assert model.coarse.digest == load_bundle(place / "workspace" / "models" / "Abdomen_cascade_3d_unet_coarse").digest


@pytest.mark.thorough
def test_coarse_labels_are_the_predictions_of_the_fold_that_did_not_see_the_case(place: Path) -> None:
    runs = place / "workspace" / "runs" / "Abdomen"
    plan = read_record(Plan, place / "workspace" / "plans" / "Abdomen" / "cascade_3d.json")
    spec = read_dataset(place / "Dataset007_Abdomen")
    splits = json.loads((place / "workspace" / "fingerprints" / "Abdomen" / "splits.json").read_text())["folds"]
    for number, fold in enumerate(splits):
        for name in fold["val"]:
            case = next(one for one in spec.training if one.id == name)
            said = read_label_volume(runs / "cascade_3d_unet_coarse" / f"fold_{number}" / "validation" / f"{name}.nii.gz")
            expected = coarse_codes(spec.labels.encode(said.data), read_volume(case.images), plan)
            np.testing.assert_array_equal(StoredCodes(runs / "cascade_3d_unet" / "coarse", name)[...], expected)


@pytest.mark.slow
def test_the_same_command_trains_no_stage_again_and_another_recipe_is_another_training(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = place / "workspace" / "runs" / "Abdomen"
    kept = {path: path.stat().st_mtime_ns for path in [*runs.glob("*_coarse/fold_*/*.safetensors"), *runs.glob("*/coarse/*")]}
    assert len(kept) == 2 + 4
    assert call(place, "train", "Abdomen", "0", "--plan", "cascade_3d", *SHORT) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert call(place, "train", "Abdomen", "0", "--plan", "cascade_3d", *SHORT, "--set", "learning_rate=0.5") == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.thorough
def test_one_command_predicts_both_stages(place: Path, tmp_path: Path) -> None:
    scans = place / "Dataset007_Abdomen" / "imagesTs"
    assert call(place, "predict", "-i", str(scans), "-o", str(tmp_path), "-m", "Abdomen_cascade_3d_unet", "--quiet") == 0
    assert len(list(tmp_path.glob("*.nii.gz"))) == 1


@pytest.mark.slow
def test_fresh_trains_a_coarse_stage_of_other_settings_again_and_keeps_one_that_fits(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, models = copied(place, tmp_path)
    runs = copy / "workspace" / "runs" / "Abdomen" / "cascade_3d_unet_coarse"
    words = [*TRAIN, *SHORT]

    def rates() -> list[float]:
        records = [read_fold(runs / f"fold_{fold}") for fold in (0, 1)]
        return [record.task.recipe["learning_rate"] for record in records if record]

    def times() -> list[int]:
        return [(runs / f"fold_{fold}" / CHECKPOINT).stat().st_mtime_ns for fold in (0, 1)]

    kept = times()
    assert call(copy, *words, "--fresh") == 0
    assert times() == kept
    words += ["--set", "learning_rate=0.005"]
    assert call(copy, *words) == 2
    assert "cascade_3d_unet_coarse/fold_0/checkpoint.safetensors was made with other settings" in capsys.readouterr().err
    assert call(copy, *words, "--fresh") == 0
    assert rates() == [0.005, 0.005]
    assert (models / ".Abdomen_cascade_3d_unet.old1" / "model.json").is_file()
    assert load_bundle(models / "Abdomen_cascade_3d_unet").coarse is not None
    kept = times()
    (runs / "fold_1" / CHECKPOINT).write_bytes(b"damaged")
    assert call(copy, *words) == 2
    assert "Start the run again with --fresh" in capsys.readouterr().err
    assert call(copy, *words, "--fresh") == 0
    assert times()[0] == kept[0]


@pytest.mark.slow
def test_fresh_moves_models_aside_that_cannot_take_a_coarse_stage_of_another_plan(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, models = copied(place, tmp_path)
    narrow(copy / "workspace" / "plans" / "Abdomen" / "lowres_3d.json", 4)
    assert call(copy, *TRAIN, *SHORT) == 2
    assert "--fresh" in capsys.readouterr().err
    assert call(copy, *TRAIN, *SHORT, "--fresh") == 0
    assert {path.name for path in models.glob(".*.old1")} == {
        ".Abdomen_cascade_3d_unet.old1",
        ".Abdomen_cascade_3d_unet_coarse.old1",
    }
    coarse = load_bundle(models / "Abdomen_cascade_3d_unet").coarse
    assert coarse is not None
    assert set(coarse.plan.network.features) == {4}
