"""autoseg compare on small phantoms: trained once, resumed, and one broken network among sound ones."""

import csv
import json
import shutil

import pytest

from autoseg.cli import main
from autoseg.phantoms import write_phantoms
from tests.helpers.told_numbers import unknown_numbers

pytestmark = pytest.mark.slow  # whole comparisons; test_studies.py and test_outside.py have their parts

COMMAND = ["compare", "Abdomen", "0", "--iterations", "2", "--set", "validations=1", "--set", "cpu_width=1", "--device", "cpu"]
COMMAND += ["--match-flops"]


def call(place, *arguments):
    return main([*COMMAND, *arguments, "--workspace", str(place / "workspace")])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with phantoms, planned for a small network, and two networks compared on them."""
    folder = tmp_path_factory.mktemp("compare")
    raw = write_phantoms(folder / "Dataset007_Abdomen", training=10, test=0, in_plane_mm=10)
    assert main(["plan_and_preprocess", str(raw), "--workspace", str(folder / "workspace"), "--quiet"]) == 0
    plan = folder / "workspace" / "plans" / "Abdomen" / "fullres_3d.json"
    edited = json.loads(plan.read_text())
    edited["network"]["features"] = [16] * len(edited["network"]["features"])
    edited["network"]["attention"] = [{"stage": 1, "kind": "full", "heads": 2, "slots": 0}]
    plan.write_text(json.dumps(edited))
    assert call(folder, "--networks", "self_attention_unet,fcn", "--quiet", "--json", str(folder / "all.json")) == 0
    return folder


def test_both_networks_are_scored_with_their_costs(place):
    (target,) = (place / "workspace" / "comparisons").iterdir()
    stored = json.loads((place / "all.json").read_text())
    assert stored == json.loads((target / "comparison.json").read_text())
    assert [network["name"] for network in stored["networks"]] == ["self_attention_unet", "fcn"]
    for network in stored["networks"]:
        assert {row["case"] for row in network["cases"]} == {"phantom_000", "phantom_007"}
        cost = network["cost"]
        assert cost["steps"] == 2
        assert 100 < cost["memory_mib"] < 4000
        assert cost["seconds_per_step"] == pytest.approx(cost["seconds"] / 2)
    first, second = (network["cost"] for network in stored["networks"])
    assert first["features"][0] == 16
    assert second["features"][0] > 16  # widened to the operations of the first
    assert second["operations"] / first["operations"] == pytest.approx(1, abs=0.35)  # in steps of 8 of so few
    assert "fcn" in stored["differences"]["dice"]
    assert stored["gates_closed"].keys() == {"self_attention_unet"}
    assert stored["gates_closed"]["self_attention_unet"]["difference"]["n"] == 2
    assert (target / "cost.png").stat().st_size > 0
    methods = (target / "methods.md").read_text()
    assert "Wilcoxon" in methods
    assert unknown_numbers(methods, target) == []
    rows = csv.DictReader((target / "cases.csv").read_text().splitlines())
    assert {row["network"] for row in rows} == {"self_attention_unet", "fcn"}


def test_the_same_call_repeats_nothing(place, capsys):
    runs = sorted((place / "workspace" / "runs" / "Abdomen").glob("*/fold_0/checkpoint.safetensors"))
    times = [path.stat().st_mtime_ns for path in runs]
    assert len(runs) == 2
    assert call(place, "--networks", "self_attention_unet,fcn", "-o", str(place / "again")) == 0
    text = capsys.readouterr()
    assert "resuming" not in text.err
    assert "Dice: self_attention_unet" in text.out
    assert [path.stat().st_mtime_ns for path in runs] == times
    first = json.loads((place / "all.json").read_text())
    assert json.loads((place / "again" / "comparison.json").read_text())["differences"] == first["differences"]


@pytest.mark.slow
def test_repeats_train_with_the_next_seeds_and_keep_what_there_is(place, capsys):
    runs = place / "workspace" / "runs" / "Abdomen"
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/fold_0/checkpoint.safetensors")}
    try:
        assert call(place, "--networks", "self_attention_unet,fcn", "--repeats", "2", "-o", str(place / "twice")) == 0
        seeds = sorted(json.loads(path.read_text())["task"]["seed"] for path in runs.glob("*/fold_0/fold.json"))
    finally:
        for path in runs.iterdir():
            if not any(path in known.parents for known in before):
                shutil.rmtree(path)
    assert seeds == [0, 0, 1, 1]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    text = capsys.readouterr().out
    assert "2 training runs each" in text
    assert "which two training runs hardly allow" in text
    assert "seeds 0, 1, 8 training cases" in text
    assert "| network | seed 0 | seed 1 | standard deviation | self_attention_unet minus it |" in text
    stored = json.loads((place / "twice" / "comparison.json").read_text())
    single = json.loads((place / "all.json").read_text())
    for network, alone in zip(stored["networks"], single["networks"], strict=True):
        means = [network["trainings"][seed]["means"]["dice"] for seed in ("0", "1")]
        assert means[0] == pytest.approx(alone["means"]["dice"]["mean"])
        assert means[0] != means[1]
        assert network["means"]["dice"]["mean"] == pytest.approx(sum(means) / 2)
    assert stored["over_trainings"]["dice"]["fcn"]["n"] == 2


def test_restored_intensities_and_whether_it_was_mirrored_are_read_from_a_run(place):
    (fold,) = (place / "workspace" / "runs" / "Abdomen").glob("compare_fcn_*/fold_0")
    found = [("phantom_000", "noise", 0.01, 0.9), ("phantom_000", "blur", 0.03, 0.8), ("phantom_007", "noise", 0.05, None)]
    rows = [{"case": c, "degradation": d, "mse": mse, "psnr": 20.0, "ssim": ssim} for c, d, mse, ssim in found]
    before = (fold / "fold.json").read_text()
    record = json.loads(before)
    record["task"]["plan"]["mirror_axes"] = [0]
    (fold / "fold.json").write_text(json.dumps(record))
    (fold / "validation" / "restoration.json").write_text(json.dumps({"rows": rows}))
    try:
        assert call(place, "--networks", "self_attention_unet,fcn", "-o", str(place / "restored")) == 0
    finally:
        (fold / "validation" / "restoration.json").unlink()
        (fold / "fold.json").write_text(before)
    first, second = json.loads((place / "restored" / "comparison.json").read_text())["networks"]
    assert first["means"]["mse"]["n"] == 0
    assert second["means"]["mse"]["mean"] == pytest.approx((0.02 + 0.05) / 2)  # of each case over its degradations
    assert (second["means"]["ssim"]["n"], second["means"]["ssim"]["mean"]) == (1, pytest.approx(0.85))
    assert [network["cost"]["mirrored"] for network in (first, second)] == ["no", "yes"]


@pytest.mark.slow
def test_a_network_that_fails_is_named_and_the_others_go_on(place, capsys):
    (broken,) = (place / "workspace" / "runs" / "Abdomen").glob("compare_self_attention_unet_*/fold_0")
    (broken / "validation" / "metrics.json").unlink()
    (broken / "fold.json").unlink()
    (broken / "fold.json").mkdir()  # in the way of the record
    try:
        assert call(place, "--networks", "self_attention_unet,fcn", "-o", str(place / "broken")) == 1
    finally:
        (broken / "fold.json").rmdir()
    text = capsys.readouterr().out
    assert "- self_attention_unet: not trained: FileError: " in text
    assert "fold.json: cannot be written" in text
    assert "fcn stands alone" in text


def test_a_wrong_call_trains_nothing(place, capsys):
    for arguments, sentence in [
        (["--networks", "unet,plain_net"], "no network called 'plain_net'"),
        (["--networks", "unet", "--recipe", "best"], "no recipe called 'best'"),
        (["--networks", "unet", "--plan", "huge"], "no plan called 'huge'"),
    ]:
        assert call(place, *arguments) == 2
        assert sentence in capsys.readouterr().err
    every = [word if word != "0" else "all" for word in COMMAND]
    assert main([*every, "--workspace", str(place / "workspace")]) == 2
    assert "needs the validation cases of one fold" in capsys.readouterr().err
    assert len(list((place / "workspace" / "runs" / "Abdomen").iterdir())) == 2


def test_a_training_that_cannot_fit_into_memory_says_what_to_do(place, capsys):
    assert main(["train", "Abdomen", "0", "--set", "batch_size=999999", "--workspace", str(place / "workspace")]) == 2
    assert "999999 at once, needs at least" in (text := capsys.readouterr().err)
    assert "--set batch_size=1" in text
