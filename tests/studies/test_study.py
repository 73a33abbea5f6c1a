"""A study on small phantoms: cross-validated, decided, one model left; gone on with, and refused where it differs.

Trainings run in this process here, by the words that the study gives to another one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg import locks
from autoseg.cli import main
from autoseg.data.labels import LabelSchema
from autoseg.engines import run_commands
from autoseg.errors import TrainingError
from autoseg.evaluation.comparison import Method
from autoseg.evaluation.report import summarise
from autoseg.inference.bundle import load_bundle, store_windows
from autoseg.inference.windows import AdaptiveWindows, Doubt
from autoseg.options import Runtime
from autoseg.phantoms import write_phantoms
from autoseg.pipeline import reporting, studying, training
from autoseg.studies import configuration, deciding, side_by_side
from autoseg.studies.choice import choose, improvements
from autoseg.studies.configuration import Configuration, CrossValidated, TrainConfiguration
from autoseg.studies.fold import Run
from tests.helpers.told_numbers import unknown_numbers

SHORT = ["--iterations", "2", "--set", "validations=1", "--set", "cpu_width=1", "--device", "cpu", "--quiet"]
CALIBRATED = AdaptiveWindows(Doubt(1.0, 6.0, 0.0), 0.5, 2, 100, 400, {})  # as `model calibrate` leaves it
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

    def of_all_folds(path: Path, runtime: Runtime) -> None:
        page = reporting.try_report if path.name == "cross_validation" else without_page
        page(path, runtime=runtime)

    def here(words: list[str], name: str) -> None:
        trained.append(name)
        assert main([*words, "--quiet"]) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration, "run_apart", here)
        patch.setattr(training, "try_report", of_all_folds)
        assert call(folder, *STUDY, "--groups", f"{folder / 'cases.csv'}:site") == 0
        yield folder


def without_page(path: Path, runtime: Runtime) -> None:
    """A page takes longer than all else that these tests are about; an empty one says that the folder is done."""
    (path / "report.html").write_text('<p class="kind">autoseg report</p>')


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
    assert (list(bundle.folds) == ["0", "0b", "1", "1b"]) == record["chosen"].startswith("ensemble ")
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
    titles = [line for line in told.splitlines() if line.startswith("#")]
    assert [line for line in titles if line.startswith("# ")] == ["# Abdomen: study"] == titles[:1]
    assert {"## Segmentation", "## Decided"} < set(titles)
    assert "- Dice: " in told
    assert "negative log likelihood per voxel (mean of -ln p of the true label, 0 is best)" in told
    assert "ensemble unet + fcn" in told or "ensemble fcn + unet" in told
    assert "unet and fcn" not in told
    assert "fcn and unet" not in told
    assert str(place) not in told
    assert "| site | structure |" in (folder / "metrics.md").read_text()
    page = (folder / "report.html").read_text()
    assert "By site" in page
    for heading in ("Configurations", "Decisions", "Ensembles that were considered", "Calibration", "minus the others"):
        assert f"<h3>{heading}" in page or heading in page.split("<h3>Decisions")[0]
    assert all(decision["what"] in page for decision in record["decisions"])
    assert page.count("percentage points on average (expected calibration error)") == page.count('<article class="case"')
    assert str(place) not in page
    assert "case-10" in page or 'id="case-4"' in page
    scans = place / "Dataset007_Abdomen" / "imagesTs"
    words = ["predict", "-i", str(scans), "-o", str(tmp_path), "-m", record["model"], "--probabilities", "--device", "cpu"]
    assert call(place, *words, "--quiet") == 0
    assert call(place, "report", str(tmp_path)) == 0
    assert "percentage points on average" in (tmp_path / "report.html").read_text()  # the model has it from the study
    with np.load(next(tmp_path.glob("*_probabilities.npz"))) as stored:
        np.testing.assert_allclose(stored["probabilities"].astype(float).sum(axis=0), 1, atol=5e-3)


def test_the_same_study_trains_nothing_again_and_another_is_refused(
    place: Path, trained: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studying, "try_report", without_page)
    assert trained == ["unet", "fcn"]
    shipped = place / "workspace" / "models" / "Abdomen_study"
    store_windows(shipped, dict.fromkeys(load_bundle(shipped).folds, CALIBRATED))
    model = (shipped / "model.json").read_bytes()
    assert call(place, *STUDY) == 0
    assert len(trained) == 2
    assert (shipped / "model.json").read_bytes() == model
    capsys.readouterr()
    assert call(place, *STUDY, "--seed", "4") == 2
    told = capsys.readouterr().err
    assert "seed was 0, is 4" in told
    assert "--name" in told
    assert len(trained) == 2
    assert call(place, "study", "Abdomen", "--folds", "1", *SHORT, "--name", "one") == 2
    assert "two folds or more" in capsys.readouterr().err
    (run,) = (path.name for path in (place / "workspace" / "models").iterdir() if path.name.startswith("Abdomen_study_fcn"))
    assert call(place, *STUDY, "--name", run.removeprefix("Abdomen_")) == 2
    assert "is a model that this study did not make" in capsys.readouterr().err


def test_what_cannot_be_trained_is_told_before_the_first_training_run_and_the_others_go_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, networks = json.loads((place / "workspace" / "plans" / "Abdomen" / "fullres_3d.json").read_text()), ["unet"]
    for outputs in (8, 9):
        (tmp_path / f"net{outputs}.json").write_text(json.dumps({**plan["network"], "out_channels": outputs}))
        networks.append(str(tmp_path / f"net{outputs}.json"))
    told: list[str] = []
    run = TrainConfiguration.run

    def listening(step: TrainConfiguration, item: tuple[Configuration, Run]) -> Path:
        told.append(f"{item[0].name} after {capsys.readouterr().err}")
        return run(step, item)

    monkeypatch.setattr(studying, "try_report", without_page)
    monkeypatch.setattr(TrainConfiguration, "run", listening)
    words = ["study", "Abdomen", "--folds", "0-1", "--networks", ",".join(networks), *SHORT, "--name", "four"]
    assert call(place, *words) == 1
    (first,) = told
    assert first.startswith("unet after ")
    for outputs in (8, 9):
        assert f"net{outputs}: cannot be trained, and is left out: " in first
        assert f"the network has {outputs} outputs, but the labels need" in first
    record = json.loads((place / "workspace" / "studies" / "Abdomen" / "four" / "study.json").read_text())
    assert record["failed"].keys() == {"net8", "net9"}
    assert record["chosen"] == "unet"


def test_a_plan_that_does_not_exist_is_an_error_before_anything_is_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--plans", "fullres_3d,nope", "--networks", "unet,net"]
    assert call(place, "study", "Abdomen", *names, "--name", "typo", *SHORT) == 2
    told = capsys.readouterr().err
    assert "no plan called 'nope' for Abdomen" in told
    assert "no network called 'net'" in told
    assert not (place / "workspace" / "studies" / "Abdomen" / "typo").exists()


def test_a_configuration_that_was_killed_before_its_last_page_is_trained_to_its_end(
    place: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studying, "try_report", without_page)
    count, runs = len(trained), place / "workspace" / "runs" / "Abdomen"
    for name, page in (("unet", "fold_1/report.html"), ("fcn", "cross_validation/report.html")):
        (path,) = runs.glob(f"study_{name}_*/{page}")
        whole = path.read_bytes()
        path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(configuration, "run_apart", lambda words, name: trained.append(name))
            assert call(place, *STUDY) == 0
        path.write_bytes(whole)
    assert trained[count:] == ["unet", "fcn"]
    del trained[count:]


@pytest.mark.thorough
def test_a_study_on_other_data_or_by_another_plan_is_refused_and_nothing_changes(
    place: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, count = place / "workspace", len(trained)
    shipped = (workspace / "models" / "Abdomen_study" / "model.json").read_bytes()
    for path, old, new, told in (
        (workspace / "plans" / "Abdomen" / "fullres_3d.json", '"batch_dice": false', '"batch_dice": true', "by another plan"),
        (place / "Dataset007_Abdomen" / "dataset.json", '"liver"', '"hepar"', "labels was"),
    ):
        before = path.read_text()
        assert old in before or new in before
        path.write_text(before.replace(old, "TEMPORARY").replace(new, old).replace("TEMPORARY", new))
        capsys.readouterr()
        assert call(place, *STUDY) == 2
        said = capsys.readouterr().err
        assert told in said
        assert "--fresh" in said
        path.write_text(before)
    assert len(trained) == count
    assert (workspace / "models" / "Abdomen_study" / "model.json").read_bytes() == shipped


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_folds_side_by_side_are_those_in_a_row(place: Path, monkeypatch: pytest.MonkeyPatch, apart: bool) -> None:
    lanes: list[list[str]] = []

    def run(commands: Sequence[Sequence[str]], *, on_line: Callable[[int, str], object]) -> list[int]:
        lanes.extend(list(words) for words in commands)
        if apart:
            return run_commands(commands, on_line=on_line)
        return [main([*words, "--quiet"]) for words in commands]

    train, names = ["train", "Abdomen", "0-1", "--network", "unet", "--threads", "1", *SHORT], (f"row{apart}", f"side{apart}")
    threads, workspace = torch.get_num_threads(), place / "workspace"
    monkeypatch.setattr(training, "try_report", without_page)
    monkeypatch.setattr(side_by_side, "run_commands", run)
    try:
        assert call(place, *train, "--name", names[0]) == 0
        assert lanes == []
        assert call(place, *train, "--name", names[1], "--at-once", "2") == 0
    finally:
        torch.set_num_threads(threads)
    assert [words[2] for words in lanes] == ["0", "1"]
    assert call(place, *train, "--name", names[1], "--at-once", "2") == 0
    assert len(lanes) == 2  # what is trained is read
    row, side = (workspace / "models" / f"Abdomen_{name}" for name in names)
    for fold in ("fold_0.safetensors", "fold_1.safetensors"):
        assert (row / fold).read_bytes() == (side / fold).read_bytes()
    tables = [workspace / "runs" / "Abdomen" / name / "cross_validation" / "metrics.csv" for name in names]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_a_study_that_was_interrupted_goes_on_to_the_same_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    models = place / "workspace" / "models"
    monkeypatch.setattr(studying, "try_report", without_page)
    with monkeypatch.context() as patch:
        patch.setattr(deciding, "decide_rules", stop)
        assert call(place, *STUDY, "--name", "two") == 130
    assert not (models / "Abdomen_two").exists()
    assert call(place, *STUDY, "--name", "two") == 0
    first, second = (load_bundle(models / name) for name in ("Abdomen_study", "Abdomen_two"))
    assert first.digest == second.digest
    records = [place / "workspace" / "studies" / "Abdomen" / name / "study.json" for name in ("study", "two")]
    assert len({json.dumps(json.loads(path.read_text())["decisions"]) for path in records}) == 1


def test_a_fresh_training_that_is_interrupted_leaves_no_fold_of_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    runs = place / "workspace" / "runs" / "Abdomen"
    shutil.copytree(next(runs.glob("study_unet_*")), runs / "anew")
    monkeypatch.setattr(training, "train_one", stop)
    train = ["train", "Abdomen", "0-1", "--network", "unet", *SHORT, "--name", "anew", "--fresh"]
    assert call(place, *train) == 130
    assert not list((runs / "anew").glob("fold_*"))


def test_two_commands_at_one_study_do_not_decide_for_each_other(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "RUN_SECONDS", 0.1)
    folder = place / "workspace" / "studies" / "Abdomen" / "twice"
    with locks.study_lock(folder):
        assert call(place, *STUDY, "--name", "twice") == 2
    assert "another command is running this study" in capsys.readouterr().err
    assert not (folder / "study.json").exists()
    assert not (place / "workspace" / "models" / "Abdomen_twice").exists()


def test_a_study_without_a_configuration_that_failed_decides_again_when_it_is_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies, models = place / "workspace" / "studies" / "Abdomen", place / "workspace" / "models"
    chosen = json.loads((studies / "study" / "study.json").read_text())["chosen"]
    run = TrainConfiguration.run

    def without_the_best(step: TrainConfiguration, item: tuple[Configuration, Run]) -> Path:
        if item[0].name == chosen.partition(" and ")[0]:
            raise TrainingError("the disk is full")
        return run(step, item)

    monkeypatch.setattr(studying, "try_report", without_page)
    with monkeypatch.context() as patch:
        patch.setattr(TrainConfiguration, "run", without_the_best)
        assert call(place, *STUDY, "--name", "three") == 1
    incomplete = load_bundle(models / "Abdomen_three").digest
    assert call(place, *STUDY, "--name", "three") == 0
    assert load_bundle(models / "Abdomen_three").digest == load_bundle(models / "Abdomen_study").digest != incomplete
    assert load_bundle(models / ".Abdomen_three.old1").digest == incomplete


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


def test_one_that_failed_in_some_cases_is_left_out_where_another_did_all() -> None:
    costs, unable = {"cheap": 1.0, "dearer": 5.0}, ("case_7: no memory",)
    cheap, dear = method("cheap", 0.0, 0.001), method("dearer", 0.01, 0.001)
    name, why = choose([cheap, replace(dear, failures=unable)], costs, 0.005)
    assert name == "cheap"
    assert "left out, since they failed in some cases: dearer (1)" in why.numbers
    assert choose([replace(one, failures=unable) for one in (cheap, dear)], costs, 0.005)[0] == "dearer"
    assert not improvements(cheap, [replace(dear, failures=unable)], 0.005)["dearer"][0]


def test_two_together_are_kept_only_where_the_data_support_it() -> None:
    one, better, noisy = method("one", 0.0, 0.001), method("better", 0.01, 0.001), method("noisy", 0.002, 0.02)
    found = improvements(one, [better, noisy], 0.005)
    assert found["better"][0]
    assert not found["noisy"][0]
    assert found["better"][1].startswith("+")
    assert not improvements(better, [one], 0.005)["one"][0]
    assert improvements(one, [], 0.005) == {}


def test_the_best_is_tried_with_the_next_and_with_the_best_of_another_plan() -> None:
    def of(name: str, plan: str, gain: float) -> CrossValidated:
        return CrossValidated(name, Path(name), report, method(name, gain, 0.0), 1.0, {}, {}, plan=plan)

    report = summarise([], LabelSchema((), (), False, ()))
    volumes, other, slices = of("unet", "fullres_3d", 0.02), of("fcn", "fullres_3d", 0.01), of("flat", "slices_2d", 0.0)
    assert deciding._pairs([slices, other, volumes]) == [(volumes, other), (volumes, slices)]
    assert deciding._pairs([slices, volumes]) == [(volumes, slices)]
    assert deciding._pairs([other, volumes]) == [(volumes, other)]
    assert deciding._pairs([volumes]) == []
