"""The whole road on small phantoms, through the command line, as a user goes it."""

import csv
import html
import json
import re
import shutil

import numpy as np
import pytest
import trimesh

import autoseg
from autoseg.cli import main
from autoseg.imaging.files import read_file, read_label_volume, read_volume, write_label_volume, write_volume
from autoseg.imaging.volume import LabelVolume, Volume, orient
from autoseg.options import InferenceOptions
from autoseg.page.viewer import find_viewer
from autoseg.phantoms import write_phantoms
from autoseg.records import read_fold
from tests.helpers.told_numbers import unknown_numbers


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with phantoms, planned, and a small network trained on them for a few steps."""
    folder = tmp_path_factory.mktemp("story")
    raw = write_phantoms(folder / "Dataset007_Abdomen", training=10, test=3, in_plane_mm=5)
    workspace = str(folder / "workspace")
    assert main(["plan_and_preprocess", str(raw), "--workspace", workspace, "--explain"]) == 0
    plan = folder / "workspace" / "plans" / "Abdomen" / "fullres_3d.json"
    edited = json.loads(plan.read_text())
    edited["network"]["features"] = [min(16, f) for f in edited["network"]["features"]]  # as a person may edit it
    edited["network"]["attention"] = [entry | {"heads": 1} for entry in edited["network"]["attention"]]
    edited["batch_size"] = 3  # of which a CPU takes 2
    plan.write_text(json.dumps(edited))
    train = [
        "train",
        "7",
        "0",
        "--workspace",
        workspace,
        "--iterations",
        "60",
        "--device",
        "cpu",
        "--set",
        "learning_rate=0.03",
        "--set",
        "restoration_weight=0.1",
    ]
    assert main(train) == 0
    return folder


def call(place, *arguments):
    return main([*arguments, "--workspace", str(place / "workspace")])


def test_every_stage_left_what_it_should(place):
    workspace = place / "workspace"
    run = workspace / "runs" / "Abdomen" / "fullres_3d_self_attention_unet" / "fold_0"
    for name in ("checkpoint.safetensors", "history.jsonl", "curves.png", "fold.json"):
        assert (run / name).stat().st_size > 0
    for name in ("metrics.csv", "metrics.json", "metrics.md", "summary.json"):
        assert (run / "validation" / name).stat().st_size > 0
    assert (workspace / "models" / "Abdomen_fullres_3d_self_attention_unet" / "model.json").is_file()
    restored = json.loads((run / "validation" / "restoration.json").read_text())
    assert {row["degradation"] for row in restored["rows"]} == {"noise", "thick_slices", "blur"}
    assert restored["summary"]["noise"]["ssim"]["n"] == len({row["case"] for row in restored["rows"]}) > 0
    assert restored["failures"] == {}
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    record = json.loads((run / "fold.json").read_text())
    assert record["task"]["recipe"]["learning_rate"] == 0.03
    assert record["applied"]["precision"] in ("fp32", "bf16")
    assert record["applied"]["why"]


def test_a_fold_ends_with_a_page_about_data_plan_training_and_the_cases_held_back(place):
    fold = place / "workspace" / "runs" / "Abdomen" / "fullres_3d_self_attention_unet" / "fold_0"
    page = (fold / "report.html").read_text(encoding="utf-8")
    task = json.loads((fold / "fold.json").read_text())["task"]
    assert "<dt>patches in a batch</dt><dd>2</dd>" in page
    assert "<dt>planned batch</dt><dd>3</dd>" in page
    for title in ("Training", "Plan and its reasons", "Recipe", "Data set", "Restored images", "Scores", "Cases"):
        assert f">{title}</h2>" in page
    assert page.count("<article") == len(task["validation"])
    assert page.count('class="curves"') == 3
    assert all(html.escape(decision["rule"]) in page for decision in task["plan"]["decisions"])
    assert str(place) not in page


def test_the_page_of_a_fold_says_how_well_images_are_restored(place):
    fold = place / "workspace" / "runs" / "Abdomen" / "fullres_3d_self_attention_unet" / "fold_0"
    page = (fold / "report.html").read_text(encoding="utf-8")
    for kind, found in json.loads((fold / "validation" / "restoration.json").read_text())["summary"].items():
        row = re.search(rf'<th scope="row">{kind.replace("_", " ")}</th>(.*?)</tr>', page)[1]
        cells = [re.sub("<.*?>", "", cell).replace("−", "-") for cell in re.findall(r"<td.*?</td>", row)]
        decimals = {"ssim": 3, "bar_ssim": 3, "ssim_gain": 3, "mse": 5, "bar_mse": 5, "skill": 2}
        assert cells[0] == str(found["ssim"]["n"])
        for cell, (name, digits) in zip(cells[1:], decimals.items(), strict=True):
            shown = [float(number) for number in re.findall(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", cell)]
            assert shown == pytest.approx([found[name]["mean"], *found[name]["interval"]], abs=0.51 * 10**-digits), name


def test_an_edited_plan_is_kept_and_a_second_planning_repeats_nothing(place, capsys):
    assert call(place, "plan_and_preprocess", "Abdomen", "--quiet") == 0
    text = capsys.readouterr().out
    assert "fullres_3d (kept as edited)" in text
    assert "prepared 0 cases, 10 were ready" in text


def test_another_preset_or_budget_is_another_plan(place, capsys):
    for option in (["--preset", "m"], ["--memory-gb", "4"], ["--parity"]):
        assert call(place, "plan_and_preprocess", "Abdomen", "--quiet", "--no-preprocess", *option) == 0
    plans = {path.stem for path in (place / "workspace" / "plans" / "Abdomen").glob("fullres*.json")}
    assert plans == {"fullres_3d", "fullres_3d_m", "fullres_3d_4gb", "fullres_3d_parity"}
    assert call(place, "plan_and_preprocess", "Abdomen", "--quiet", "--preset", "huge") == 2
    assert "no preset called 'huge'" in capsys.readouterr().err


def test_the_same_training_is_not_done_twice(place, capsys):
    history = place / "workspace" / "runs" / "Abdomen" / "fullres_3d_self_attention_unet" / "fold_0" / "history.jsonl"
    before = history.read_text()
    settings = ["--set", "learning_rate=0.03", "--set", "restoration_weight=0.1"]
    train = ["train", "Abdomen", "0", "--iterations", "60", "--device", "cpu", *settings]
    assert call(place, *train) == 0
    assert "resuming at step 60" in capsys.readouterr().err
    assert history.read_text() == before


def test_predictions_lie_on_the_scans_grid_and_are_scored(place, capsys):
    raw, out = place / "Dataset007_Abdomen", place / "predictions"
    assert call(place, "predict", "-i", str(raw / "imagesTs"), "-o", str(out), "--reference", str(raw / "labelsTs")) == 0
    assert "| liver |" in capsys.readouterr().out
    for path in sorted((raw / "imagesTs").iterdir()):
        scan, mask = read_file(path), read_label_volume(out / path.name.replace("_0000", ""))
        assert mask.geometry == scan.geometry
        assert set(np.unique(mask.data)) <= {0, 1, 2, 3, 4}
    assert json.loads((out / "run.json").read_text())["failures"] == {}


def test_a_methods_text_lies_beside_fold_model_and_predictions_with_the_numbers_of_their_records(place):
    workspace, out = place / "workspace", place / "predictions"
    model = workspace / "models" / "Abdomen_fullres_3d_self_attention_unet"
    fold = workspace / "runs" / "Abdomen" / "fullres_3d_self_attention_unet" / "fold_0"
    for folder, words in (
        (fold, ("## Training", "60 steps", "## Evaluation", "bootstrap")),
        (model, ("## Training", "60 steps", "learning rate 0.03", "restore degraded patches")),
        (out, ("## Training", "60 steps", "## Prediction", "3 cases were predicted", "## Evaluation", "bootstrap")),
    ):
        text = (folder / "methods.md").read_text()
        assert all(word in text for word in words), folder
        assert unknown_numbers(text, folder) == []
        cited = set(re.findall(r"@(\w+)", text))
        assert cited == set(re.findall(r"^@\w+\{(\w+),", (folder / "references.bib").read_text(), flags=re.MULTILINE))
    zipped = place / "exported.zip"
    assert call(place, "model", "export", str(model), str(zipped)) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<image ") == 9
    assert str(place) not in page


def test_what_is_done_is_skipped_and_the_files_stay(place, capsys):
    raw, out = place / "Dataset007_Abdomen", place / "again"
    arguments = ["predict", "-i", str(raw / "imagesTs"), "-o", str(out), "--no-mirror"]
    assert call(place, *arguments) == 0
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert call(place, *arguments) == 0
    assert "0 predicted, 3 were done already" in capsys.readouterr().out
    assert times == {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}


def test_surfaces_and_measurements_come_with_a_prediction_and_are_made_later_where_they_were_not(place, capsys):
    raw, out = place / "Dataset007_Abdomen", place / "surfaces"
    arguments = ["predict", "-i", str(raw / "imagesTs"), "-o", str(out), "--no-mirror"]
    assert call(place, *arguments) == 0
    assert not list(out.glob("*_surfaces"))
    assert call(place, *arguments, "--surfaces", "stl,ply,glb", "--decimate", "0.5", "--fold-agreement") == 0
    assert "3 predicted, 0 were done" in capsys.readouterr().out
    folder = out / "phantom_010_surfaces"
    about = json.loads((folder / "surfaces.json").read_text())
    assert (about["coordinates"], about["unit"]) == ("LPS", "mm")
    record = json.loads((out / "phantom_010.json").read_text())
    assert {f"phantom_010_surfaces/{name}" for name in ("liver.stl", "liver.ply", "scene.glb")} < set(record["outputs"])
    liver = next(one for one in record["measurements"] if one["structure"] == "liver")
    mask = read_label_volume(out / "phantom_010.nii.gz")
    assert liver["voxels"] == np.count_nonzero(mask.data == 1)
    assert liver["watertight"]
    assert liver["mesh_volume_mm3"] == pytest.approx(liver["volume_mm3"], rel=0.1)
    assert 0 < liver["entropy"] < liver["border_entropy"] < 1
    assert liver["fold_agreement"] is None
    assert liver["note"].endswith("no inter-fold Dice: only one fold predicted")
    shape = trimesh.load(folder / "liver.stl")
    lower, upper = np.array(liver["box_lower_lps_mm"]), np.array(liver["box_upper_lps_mm"])
    assert np.abs(shape.bounds - [lower, upper]).max() < 7.3  # a voxel of the network
    assert (out / "measurements.csv").read_text().count("liver") == 3
    (folder / "liver.stl").unlink()
    assert call(place, *arguments, "--surfaces", "stl,ply,glb", "--decimate", "0.5", "--fold-agreement") == 0
    assert "1 predicted, 2 were done" in capsys.readouterr().out


def test_written_surfaces_are_scored_against_the_reference(place, tmp_path, capsys):
    raw, out, references = place / "Dataset007_Abdomen", tmp_path / "out", tmp_path / "references"
    references.mkdir()
    for case in ("phantom_010", "phantom_011"):  # phantom_012 has none
        labels = read_label_volume(raw / "labelsTs" / f"{case}.nii.gz")
        data = np.where(labels.data == 1, labels.data, 0) if case == "phantom_011" else labels.data
        write_label_volume(LabelVolume(data, labels.geometry), references / f"{case}.nii.gz")
    arguments = ["predict", "-i", str(raw / "imagesTs"), "-o", str(out), "--no-mirror", "--surfaces", "stl,glb"]
    assert call(place, *arguments) == 0
    records = {name: (out / f"{name}.json").read_bytes() for name in ("phantom_010", "phantom_011", "phantom_012")}
    capsys.readouterr()
    assert call(place, *arguments, "--reference", str(references)) == 0
    assert "3 were done already" in capsys.readouterr().out
    rows = [row for row in json.loads((out / "metrics.json").read_text())["cases"] if row["structure"] == "liver"]
    assert [row["case"] for row in rows] == ["phantom_010", "phantom_011"]
    scores = {name: value for name, value in rows[0]["values"].items() if name.startswith("surface_")}
    assert scores["surface_assd_mm"] == pytest.approx(rows[0]["values"]["assd_mm"], abs=3)  # half a voxel of the scan, about
    assert 0 < scores["surface_assd_mm"] < scores["surface_hd95_mm"]
    assert 0 < scores["surface_nsd"] < 1
    assert "surface_masd_mm" in (out / "metrics.csv").read_text().splitlines()[0]
    assert "The written surfaces against those" in (out / "metrics.md").read_text()
    kept, others = (
        {one["structure"]: one for one in json.loads((out / f"{case}_surfaces" / "scores.json").read_text())["scores"]}
        for case in ("phantom_010", "phantom_011")
    )
    assert kept["liver"] == {"structure": "liver", **scores}
    assert {one["surface_nsd"] for name, one in others.items() if name != "liver"} == {None}
    assert not (out / "phantom_012_surfaces" / "scores.json").exists()
    assert {name: (out / f"{name}.json").read_bytes() for name in records} == records  # what is done is never rewritten
    assert call(place, *arguments) == 0
    assert "3 were done already" in capsys.readouterr().out


def test_a_flipped_scan_gets_the_same_mask_at_the_same_place(place):
    predictor = autoseg.Predictor(
        place / "workspace" / "models" / "Abdomen_fullres_3d_self_attention_unet",
        InferenceOptions(precision="fp32"),
        device="cpu",
    )
    scan = read_volume(place / "Dataset007_Abdomen" / "imagesTs" / "phantom_010_0000.nii.gz")
    turned = ((2, 0, 1), (0, 2))
    other = Volume(np.ascontiguousarray(orient(scan.data, *turned)), scan.geometry.oriented(*turned))
    expected, found = predictor.predict(scan).labels, predictor.predict(other).labels
    assert found.geometry == other.geometry
    assert (orient(expected.data, *turned) == found.data).mean() > 0.9999


def test_a_broken_scan_in_a_cohort_is_named_and_the_others_are_done(place, tmp_path, capsys):
    cohort = tmp_path / "cohort"
    shutil.copytree(place / "Dataset007_Abdomen" / "imagesTs", cohort)
    broken = cohort / "phantom_011_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:3000])
    assert call(place, "predict", "-i", str(cohort), "-o", str(tmp_path / "out")) == 1
    text = capsys.readouterr().out
    assert "2 predicted" in text
    assert "phantom_011" in text
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["phantom_010.nii.gz", "phantom_012.nii.gz"]


def test_a_model_travels_as_one_file(place, tmp_path, capsys):
    zipped = tmp_path / "abdomen.zip"
    assert call(place, "model", "export", "Abdomen_fullres_3d_self_attention_unet", str(zipped)) == 0
    elsewhere = ["--workspace", str(tmp_path / "other")]
    assert main(["model", "import", str(zipped), *elsewhere]) == 0
    capsys.readouterr()
    assert main(["model", "info", "abdomen", "--json", *elsewhere]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["structures"] == ["liver", "kidney_right", "kidney_left", "aorta"]
    scan = place / "Dataset007_Abdomen" / "imagesTs" / "phantom_010_0000.nii.gz"
    assert main(["predict", "-i", str(scan), "-o", str(tmp_path / "out"), *elsewhere]) == 0
    assert (tmp_path / "out" / "phantom_010.nii.gz").is_file()


def test_evaluate_scores_what_was_predicted(place, tmp_path, capsys):
    raw = place / "Dataset007_Abdomen"
    predicted = tmp_path / "predicted"
    predicted.mkdir()
    shutil.copy(raw / "labelsTr" / "phantom_003.nii.gz", predicted)
    arguments = ["evaluate", "--reference", str(raw / "labelsTr"), "--predicted", str(predicted), "-o", str(tmp_path / "e")]
    assert main([*arguments, "--quiet"]) == 1
    assert main([*arguments, "--quiet", "--partial"]) == 0
    assert "| liver | 1 | 1.000" in capsys.readouterr().out


def test_the_raw_folder_is_never_written_to(place):
    made = {path.name for path in (place / "Dataset007_Abdomen").iterdir()}
    assert made == {"dataset.json", "imagesTr", "labelsTr", "imagesTs", "labelsTs"}


def test_a_fold_starts_from_weights_that_saw_none_of_its_validation_cases(place, capsys):
    model, common = "Abdomen_fullres_3d_self_attention_unet", ["--iterations", "2", "--device", "cpu", "--name", "fine"]
    known = {
        fold: set(cases) for fold, cases in autoseg.load_bundle(place / "workspace" / "models" / model).learned_from.items()
    }
    assert [(fold, len(cases)) for fold, cases in known.items()] == [("0", 8)]
    assert call(place, "train", "Abdomen", "0,1", *common, "--from", model) == 2  # fold 1 validates on what fold 0 learned from
    assert "fold 1 cannot start from" in capsys.readouterr().err
    assert not (place / "workspace" / "runs" / "Abdomen" / "fine").exists()
    assert call(place, "train", "Abdomen", "0", *common, "--from", model) == 0
    text = capsys.readouterr()
    assert text.err.count("starting from fold 0") == 1
    assert "fold 0: 2 steps" in text.out
    transfer = read_fold(place / "workspace" / "runs" / "Abdomen" / "fine" / "fold_0").transfer
    assert (transfer["fold"], transfer["digest"]) == ("0", autoseg.load_bundle(place / "workspace" / "models" / model).digest)
    left = {name for name in transfer["left"] if not name.startswith("restoration.")}  # which this training does without
    assert left == {"scaling.mean", "scaling.std"}
    fine = autoseg.load_bundle(place / "workspace" / "models" / "Abdomen_fine")
    assert set(fine.learned_from["0"]) == known["0"]


def test_a_dry_run_shows_the_settled_training_and_writes_nothing(place, tmp_path, capsys):
    words = [
        "train",
        "Abdomen",
        "1",
        "--iterations",
        "30",
        "--device",
        "cpu",
        "--name",
        "dry",
        "--network",
        "unet",
        "--dry-run",
    ]
    before = {path: path.stat().st_mtime_ns for path in (place / "workspace").rglob("*")}
    assert call(place, *words, "--explain") == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "workspace").rglob("*")} == before
    told = capsys.readouterr().out
    for part in ("network unet", "30 steps", "batches of", "not mirrored", "because"):
        assert part in told
    assert call(place, *words) == 0
    assert "because" not in capsys.readouterr().out
    fresh = ["train", str(place / "Dataset007_Abdomen"), *words[2:], "--workspace", str(tmp_path / "none"), "--quiet"]
    assert main(fresh) == 0
    lengths = [line for line in (told + capsys.readouterr().out).splitlines() if line.startswith("length")]
    assert len(lengths) == 2
    assert lengths[0] == lengths[1]  # counted from prepared cases, and from the scans where there are none
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("length", ["--iterations 2", "--time 1s", "--iterations 2 --set mirror=true"])
def test_only_long_trainings_are_mirrored_and_their_models_predict_so(place, capsys, length):
    plan = json.loads((place / "workspace" / "plans" / "Abdomen" / "fullres_3d.json").read_text())
    assert plan["mirror_axes"] == [0, 1]
    words = ["train", "Abdomen", "0", *length.split(), "--device", "cpu", "--name", "mirrored", "--set", "checks=1", "--fresh"]
    assert call(place, *words) == 0
    mirrored = "mirror=true" in length
    assert ("not mirrored" in capsys.readouterr().err) is not mirrored
    model = autoseg.load_bundle(place / "workspace" / "models" / "Abdomen_mirrored")
    assert model.plan.mirror_axes == ((0, 1) if mirrored else ())
    predicted = place / "workspace" / "runs" / "Abdomen" / "mirrored" / "fold_0" / "validation" / "run.json"
    assert json.loads(predicted.read_text())["options"]["mirror_axes"] == list(model.plan.mirror_axes)


def test_scans_can_be_predicted_from_an_array_without_files(place):
    model = autoseg.load_bundle(place / "workspace" / "models" / "Abdomen_fullres_3d_self_attention_unet")
    scan = read_volume(place / "Dataset007_Abdomen" / "imagesTs" / "phantom_012_0000.nii.gz")
    prediction = autoseg.Predictor(model, InferenceOptions(mirror=False), device="cpu").predict(scan, probabilities=True)
    assert prediction.labels.data.shape == scan.geometry.shape
    assert np.allclose(prediction.probabilities.astype(np.float32).sum(axis=0), 1, atol=0.01)


@pytest.mark.slow
def test_the_demo_reaches_ninety_percent_on_scans_it_has_not_seen(tmp_path, capsys):
    assert main(["demo", "--folder", str(tmp_path / "demo"), "--device", "cpu"]) == 0
    metrics = json.loads((tmp_path / "demo" / "predictions" / "metrics.json").read_text())
    assert "Dataset900_Phantoms" in capsys.readouterr().out
    assert min(s["mean"] for s in metrics["structures"] if s["metric"] == "dice") >= 0.9


def test_a_short_demo_goes_all_the_way(tmp_path, capsys):
    assert main(["demo", "--folder", str(tmp_path / "demo"), "--time", "5s", "--device", "cpu", "--quiet"]) == 0
    assert "masks and metrics" in capsys.readouterr().out
    made = tmp_path / "demo" / "predictions"
    assert len(list(made.glob("*_surfaces/scene.glb"))) == 6
    assert (made / "measurements.csv").read_text().count("phantom_") == 24
    measured = csv.DictReader((made / "measurements.csv").read_text().splitlines())
    there = {(row["case"], row["structure"]) for row in measured if float(row["surface_area_mm2"] or 0)}
    assert {(path.parent.name.removesuffix("_surfaces"), path.stem) for path in made.glob("*_surfaces/*.stl")} == there
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.count('<article class="case"') == 6
    assert page.count("<summary>Measurements</summary>") == 6
    if find_viewer():
        panel = json.loads(re.search(r'<script type="application/json" id="page-data">(.*?)</script>', page)[1])["panel"]
        assert {(entry["case"], surface["name"]) for entry in panel for surface in entry["surfaces"]} == there


def test_volumes_survive_a_write_and_read(tmp_path, place):
    scan = read_volume(place / "Dataset007_Abdomen" / "imagesTs" / "phantom_010_0000.nii.gz")
    for ending in (".nii", ".nii.gz", ".nrrd", ".mha"):
        write_volume(scan, tmp_path / f"scan{ending}")
        assert read_volume(tmp_path / f"scan{ending}").geometry.matches(scan.geometry)
