"""A study on small phantoms: cross-validated, decided, one model left; gone on with, and refused where it differs.

Trainings run in this process here, by the words that the study gives to another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autoseg.cli import main
from autoseg.evaluation.comparison import Method
from autoseg.inference.bundle import load_bundle
from autoseg.phantoms import write_phantoms
from autoseg.studies import configuration
from autoseg.studies import study as study_module
from autoseg.studies.choice import choose
from tests.helpers.told_numbers import unknown_numbers

SHORT = ["--iterations", "2", "--set", "validations=1", "--set", "cpu_width=1", "--device", "cpu", "--quiet"]
STUDY = ["study", "Abdomen", "--folds", "0-1", "--networks", "unet,fcn", *SHORT]


@pytest.fixture(scope="module")
def trained() -> list[str]:
    """Names of the configurations that were trained, one after the other."""
    return []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, trained: list[str]) -> Iterator[Path]:
    """A folder with phantoms, planned for a small network, and a study of two networks on them."""
    folder = tmp_path_factory.mktemp("study")
    raw = write_phantoms(folder / "Dataset007_Abdomen", training=10, test=1, in_plane_mm=10)
    workspace = ["--workspace", str(folder / "workspace"), "--quiet"]
    assert main(["plan_and_preprocess", str(raw), *workspace]) == 0
    plan = folder / "workspace" / "plans" / "Abdomen" / "fullres_3d.json"
    edited = json.loads(plan.read_text())
    edited["network"]["features"] = [16] * len(edited["network"]["features"])
    plan.write_text(json.dumps(edited))
    (folder / "cases.csv").write_text("case,site\nphantom_000,north\nphantom_001,south\n")

    def here(words: list[str], name: str) -> None:
        trained.append(name)
        assert main([*words, "--quiet"]) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration, "run_apart", here)
        assert call(folder, *STUDY, "--groups", f"{folder / 'cases.csv'}:site") == 0
        yield folder


def call(place: Path, *words: str) -> int:
    return main([*words, "--workspace", str(place / "workspace")])


def test_every_case_is_scored_by_the_fold_that_did_not_see_it(place: Path) -> None:
    splits = json.loads((place / "workspace" / "fingerprints" / "Abdomen" / "splits.json").read_text())["folds"]
    held_back = [case for fold in splits[:2] for case in fold["val"]]
    runs = sorted((place / "workspace" / "runs" / "Abdomen").iterdir())
    assert len(runs) == 2
    for run in runs:
        stored = json.loads((run / "cross_validation" / "metrics.json").read_text())
        assert {row["case"] for row in stored["cases"]} == set(held_back)
        for number, fold in enumerate(splits[:2]):
            alone = json.loads((run / f"fold_{number}" / "validation" / "metrics.json").read_text())
            assert {row["case"] for row in alone["cases"]} == set(fold["val"])
            assert [row for row in stored["cases"] if row["case"] in fold["val"]] == alone["cases"]
        found = json.loads((run / "cross_validation" / "calibration.json").read_text())
        assert found["voxels"] > 1000
        assert (run / "cross_validation" / "report.html").is_file()


def test_a_study_leaves_one_model_with_its_decisions(place: Path, tmp_path: Path) -> None:
    folder = place / "workspace" / "studies" / "Abdomen" / "study"
    record = json.loads((folder / "study.json").read_text())
    assert {decision["what"] for decision in record["decisions"]} >= {
        "configuration",
        "ensemble",
        "post-processing",
        "temperature",
    }
    bundle = load_bundle(place / "workspace" / "models" / record["model"])
    assert [fold for fold in bundle.folds if not fold.endswith("b")] == ["0", "1"]
    assert (list(bundle.folds) == ["0", "0b", "1", "1b"]) == (" and " in record["chosen"])
    assert list(bundle.temperatures) == record["calibration"]["temperatures"]
    assert len(bundle.postprocessing) == len(record["rules"])
    assert all(bundle.learned_from[fold] for fold in bundle.folds)
    assert bundle.info["study"]["decisions"] == record["decisions"]
    (run, *_) = sorted((place / "workspace" / "runs" / "Abdomen").iterdir())
    sections = {folder: "bootstrap", Path(bundle.name): "## Decisions of the study", run / "cross_validation": "bootstrap"}
    for where, section in sections.items():
        text = (where / "methods.md").read_text()
        assert section in text, where
        assert unknown_numbers(text, where) == []
    told = (folder / "study.md").read_text()
    assert "Decided:" in told
    assert str(place) not in told
    assert "| site | structure |" in (folder / "metrics.md").read_text()
    assert "By site" in (folder / "report.html").read_text()
    scans = place / "Dataset007_Abdomen" / "imagesTs"
    words = ["predict", "-i", str(scans), "-o", str(tmp_path), "-m", record["model"], "--probabilities", "--device", "cpu"]
    assert call(place, *words, "--quiet") == 0
    with np.load(next(tmp_path.glob("*_probabilities.npz"))) as stored:
        np.testing.assert_allclose(stored["probabilities"].astype(float).sum(axis=0), 1, atol=5e-3)


def test_the_same_study_trains_nothing_again_and_another_is_refused(
    place: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained == ["unet", "fcn"] or trained == ["default_plan_unet", "default_plan_fcn"]
    model = (place / "workspace" / "models" / "Abdomen_study" / "model.json").read_bytes()
    assert call(place, *STUDY) == 0
    assert len(trained) == 2
    assert (place / "workspace" / "models" / "Abdomen_study" / "model.json").read_bytes() == model
    capsys.readouterr()
    assert call(place, *STUDY, "--seed", "4") == 2
    told = capsys.readouterr().err
    assert "seed was 0, is 4" in told
    assert "--name" in told
    assert len(trained) == 2
    assert call(place, "study", "Abdomen", "--folds", "1", *SHORT, "--name", "one") == 2
    assert "two folds or more" in capsys.readouterr().err


def test_a_study_that_was_interrupted_goes_on_to_the_same_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    models = place / "workspace" / "models"
    with monkeypatch.context() as patch:
        patch.setattr(study_module, "decide_rules", stop)
        assert call(place, *STUDY, "--name", "two") == 130
    assert not (models / "Abdomen_two").exists()
    assert call(place, *STUDY, "--name", "two") == 0
    first, second = (load_bundle(models / name) for name in ("Abdomen_study", "Abdomen_two"))
    assert first.digest == second.digest
    records = [place / "workspace" / "studies" / "Abdomen" / name / "study.json" for name in ("study", "two")]
    assert len({json.dumps(json.loads(path.read_text())["decisions"]) for path in records}) == 1


def method(name: str, gain: float, noise: float) -> Method:
    rng = np.random.default_rng(0)
    dice = 0.8 + 0.02 * rng.normal(size=30) + gain + noise * np.random.default_rng(len(name)).normal(size=30)
    return Method(name, {(f"case_{i}", "organ"): {"dice": float(value)} for i, value in enumerate(dice)})


def test_the_better_one_is_chosen_where_the_data_support_it_else_the_cheaper_one() -> None:
    cheap, dear = method("cheap", 0.0, 0.001), method("dearer", 0.01, 0.001)
    costs = {"cheap": 1.0, "dearer": 5.0}
    name, why = choose([cheap, dear], costs, 0.005)
    assert name == "dearer"
    assert "better than each that costs less" in why.rule
    name, why = choose([cheap, method("dearer", 0.001, 0.02)], costs, 0.005)
    assert name == "cheap"
    assert "not shown to be better" in why.rule or "costs least" in why.rule
    assert choose([cheap, dear], {"cheap": 5.0, "dearer": 1.0}, 0.005)[0] == "dearer"
    assert choose([cheap], costs, 0.005)[0] == "cheap"
