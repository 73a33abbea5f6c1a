"""Every kind of data set and of call goes the whole road: planned, trained for two steps, predicted, scored."""

import json

import numpy as np
import pytest
from PIL import Image

from autoseg.cli import main
from autoseg.imaging.files import read_geometry, read_label_volume, read_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume

SPACING_MM = (2.0, 1.5, 1.5)
PLAIN = {"background": 0, "outer": 1, "inner": 2}
# what a kind changes: of dataset.json, of the label values 1, 2 and 3 (the rim) that are drawn, and of the calls
KINDS = {
    "plain": {},
    "slices": {"plan": "slices_2d"},
    "regions": {"json": {"labels": {"background": 0, "whole": [1, 2], "inner": 2}, "regions_class_order": [1, 2]}},
    "ignore": {"json": {"labels": PLAIN | {"ignore": 9}}, "values": (1, 2, 9)},
    "two_channels": {"json": {"channel_names": {"0": "T1", "1": "CT"}}},
    "nrrd": {"json": {"file_ending": ".nrrd"}},
    "pictures": {
        "plan": "slices_2d",
        "json": {
            "channel_names": {"0": "red", "1": "green", "2": "blue"},
            "labels": {"background": 0, "outer": 128, "inner": 255},
            "file_ending": ".png",
        },
        "values": (128, 255, 0),
    },
    "gaps": {"json": {"labels": {"background": 0, "inner": 4, "outer": 1}}, "values": (1, 4, 0)},
    "listed": {"listed": True},
    "all_cases": {"fold": "all"},
    "overlap": {
        "json": {"labels": {"background": 0, "outer": [1, 3], "inner": [2, 3]}, "regions_class_order": [1, 2]},
        "values": (1, 2, 3),
    },
    "sparse": {"json": {"labels": PLAIN | {"ignore": 9}}, "values": (1, 2, 9), "edit": "sparse"},
    "absent": {"edit": "absent"},
    "left_out": {"json": {"test": ["p3", "p4", "p5"]}, "fold": "2"},  # three are left: one fold for each
    "shard": {"predict": ["--shard", "0/2"]},
    "one_fold": {"fold": "0,1", "predict": ["--folds", "0"]},
}


def draw(number, n_channels):
    """(images, labels 0 to 3) of one small scan: a ball in a ball in a rim; odd numbers are stored the other way round."""
    shape = (12 + 2 * (number % 3), 24, 24)
    centre = np.reshape(shape, (3, 1, 1, 1)) // 2 + np.reshape((0, number % 2, number % 3), (3, 1, 1, 1))
    radius = np.sqrt((((np.indices(shape) - centre) * np.reshape((1.4, 1, 1), (3, 1, 1, 1))) ** 2).sum(axis=0))
    labels = np.select([radius < 4, radius < 7, radius < 8], [2, 1, 3], 0).astype(np.uint8)
    noise = np.random.default_rng(number).normal(0, 5, (n_channels, *shape))
    return (100 + 60 * labels * (labels < 3) + noise).astype(np.float32), labels


def edit(how, number, labels):
    """Labels as few as they come: annotated on every fourth slice alone; a structure absent in one case, all in others."""
    if how == "sparse":
        labels[np.arange(len(labels)) % 4 != 1] = 3
    if (how == "absent" and number in (2, 7)) or (how == "sparse" and number == 1):
        labels[labels < 3] = 0
    if how == "absent" and number == 0:
        labels[labels == 2] = 1
    return labels


def write_data(folder, kind):
    """Six training and three test scans, and dataset.json; returns the values that a result may have."""
    about = {"channel_names": {"0": "T1"}, "labels": PLAIN, "file_ending": ".nii.gz"} | kind.get("json", {})
    ending, n_channels = about["file_ending"], len(about["channel_names"])
    values = np.array((0, *kind.get("values", (1, 2, 0))), np.uint8)
    parts = {"Tr": "elsewhere/Tr", "Ts": "Ts"} if kind.get("listed") else {"Tr": "Tr", "Ts": "Ts"}
    listing = {}
    for number in range(9):
        images, labels = draw(number, n_channels)
        labels = edit(kind.get("edit"), number, labels)
        geometry = Geometry.from_spacing(labels.shape, SPACING_MM)
        geometry = geometry.flipped([1, 2]) if number % 2 else geometry
        part, case = ("Tr" if number < 6 else "Ts"), f"p{number}"
        images_in, labels_in = (parts[part].replace("T", f"{what}T") for what in ("images", "labels"))
        if ending == ".png":
            write_picture(folder / images_in / f"{case}_0000.png", images[:, 6, : 20 + number % 3])
            labels, geometry = labels[6:7, : 20 + number % 3], read_geometry(folder / images_in / f"{case}_0000.png")
        for channel, image in enumerate(images if ending != ".png" else ()):
            write_volume(Volume(image[None], geometry), folder / images_in / f"{case}_{channel:04d}{ending}")
        write_label_volume(LabelVolume(values[labels], geometry), folder / labels_in / f"{case}{ending}")
        if part == "Tr":
            image = f"{images_in}/{case}_0000{ending}"
            listing[case] = {"images": [image], "label": f"{labels_in}/{case}{ending}", "patient": f"of {number // 2}"}
    (folder / "dataset.json").write_text(json.dumps(about | ({"dataset": listing} if kind.get("listed") else {})))
    return set(values.tolist()) - {about["labels"].get("ignore")}


def write_picture(path, channels):
    """A colour picture of (3, Y, X) intensities."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.moveaxis(channels, 0, -1).clip(0, 255).astype(np.uint8)).save(path)


def state_of(folder):
    """What a listing and the bytes of every file say; folders too, since a file made and removed changes them."""
    return {p: (p.stat().st_mtime_ns, p.stat().st_size, p.is_file() and p.read_bytes()) for p in [folder, *folder.rglob("*")]}


def shrink(plan):
    edited = json.loads(plan.read_text())
    edited["network"]["features"] = [4] * len(edited["network"]["features"])
    edited["network"]["attention"] = [entry | {"heads": 1} for entry in edited["network"]["attention"]]
    plan.write_text(json.dumps(edited))


SLOW = (
    "shard",
    "left_out",
    "sparse",
    "nrrd",
    "gaps",
    "listed",
    "all_cases",
    "one_fold",
    "absent",
)  # their parts have tests of their own


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in KINDS])
def test_the_whole_road(name, tmp_path, capsys):
    kind = KINDS[name]
    raw, out, workspace = tmp_path / "Dataset003_Balls", tmp_path / "out", tmp_path / "workspace"
    common = ["--workspace", str(workspace), "--quiet"]
    values = write_data(raw, kind)
    before = state_of(raw)
    plan, fold = kind.get("plan", "fullres_3d"), kind.get("fold", "0")
    folds = fold.split(",")
    planner = ["--planner", plan] if name == "slices" else []
    assert main(["plan_and_preprocess", str(raw), *planner, "--no-preprocess", *common]) == 0
    shrink(workspace / "plans" / "Balls" / f"{plan}.json")
    length = ["--iterations", "2", "--device", "cpu", "--set", "validations=1"]
    assert main(["train", "Balls", fold, *(["--plan", plan] if planner else []), *length, *common]) == 0
    validated = (
        workspace / "runs" / "Balls" / f"{plan}_self_attention_unet" / f"fold_{folds[0]}" / "validation" / "metrics.json"
    )
    assert validated.is_file() == (fold != "all")

    ending = kind.get("json", {}).get("file_ending", ".nii.gz")
    predict = ["predict", "-i", str(raw / "imagesTs"), "-o", str(out), "--device", "cpu", *kind.get("predict", [])]
    assert main([*predict, "--reference", str(raw / "labelsTs"), *common]) == 0
    expected = ["p6", "p8"] if name == "shard" else ["p6", "p7", "p8"]
    assert sorted(path.name for path in out.glob(f"*{ending}")) == [f"{case}{ending}" for case in expected]
    record = json.loads((out / ("run_0_of_2.json" if name == "shard" else "run.json")).read_text())
    assert record["options"]["folds"] == folds[:1]
    for case in expected:
        result = read_label_volume(out / f"{case}{ending}")
        assert result.geometry == read_geometry(raw / "imagesTs" / f"{case}_0000{ending}")
        assert set(np.unique(result.data)) <= values
    metrics = json.loads((out / ("metrics_0_of_2" if name == "shard" else "") / "metrics.json").read_text())
    assert sorted(metrics["files"]) == expected
    assert metrics["failures"] == []
    evaluate = ["evaluate", "--reference", str(raw / "labelsTs"), "--predicted", str(out), "--partial"]
    assert main(["verify", str(raw), *common]) == 0
    assert main([*evaluate, "-o", str(tmp_path / "scores"), *common]) == 0
    assert state_of(raw) == before  # no verb writes into the source
    if name == "listed":
        held_back = {case["case"] for case in json.loads(validated.read_text())["cases"]}
        assert held_back in ({"p0", "p1"}, {"p2", "p3"}, {"p4", "p5"})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with the plain data and a model of them, made once for the calls below."""
    folder = tmp_path_factory.mktemp("model")
    raw, common = folder / "Dataset003_Balls", ["--workspace", str(folder / "workspace"), "--quiet"]
    write_data(raw, KINDS["plain"])
    assert main(["plan_and_preprocess", str(raw), "--no-preprocess", *common]) == 0
    shrink(folder / "workspace" / "plans" / "Balls" / "fullres_3d.json")
    assert main(["train", "Balls", "all", "--iterations", "1", "--device", "cpu", "--set", "validations=1", *common]) == 0
    return folder


def call(model, verb, *arguments):
    return main([verb, *map(str, arguments), "--workspace", str(model / "workspace")])


def predict(model, source, out, *arguments):
    return call(model, "predict", "-i", source, "-o", out, "--device", "cpu", "--no-mirror", *arguments)


def copy_scans(model, folder, names):
    folder.mkdir()
    for number, name in enumerate(names):
        path = model / "Dataset003_Balls" / "imagesTs" / f"p{6 + number}_0000.nii.gz"
        (folder / name).write_bytes(path.read_bytes())
    return folder


def test_a_4d_file_holds_all_channels_and_too_few_are_told_with_the_way_out(tmp_path, capsys):
    raw, common = tmp_path / "Dataset003_Balls", ["--workspace", str(tmp_path / "workspace"), "--quiet"]
    write_data(raw, KINDS["two_channels"])
    assert main(["plan_and_preprocess", str(raw), "--no-preprocess", *common]) == 0
    shrink(tmp_path / "workspace" / "plans" / "Balls" / "fullres_3d.json")
    assert main(["train", "Balls", "all", "--iterations", "1", "--device", "cpu", "--set", "validations=1", *common]) == 0
    parts = [raw / "imagesTs" / f"p6_000{channel}.nii.gz" for channel in range(2)]
    write_volume(read_volume(parts), tmp_path / "scan4d.nii.gz")
    options = ["--device", "cpu", "--no-mirror", *common]
    assert main(["predict", "-i", str(tmp_path / "scan4d.nii.gz"), "-o", str(tmp_path / "a"), *options]) == 0
    assert main(["predict", "-i", str(raw / "imagesTs"), "-o", str(tmp_path / "b"), *options]) == 0
    found, expected = (read_label_volume(path) for path in (tmp_path / "a/scan4d.nii.gz", tmp_path / "b/p6.nii.gz"))
    assert np.array_equal(found.data, expected.data)
    assert found.geometry == expected.geometry
    capsys.readouterr()
    assert main(["predict", "-i", str(parts[0]), "-o", str(tmp_path / "c"), *options]) == 1
    assert "expects 2 channels (T1, CT), found 1. Give one file with all of them" in capsys.readouterr().out


def test_references_that_are_not_there_are_an_error_before_anything_is_predicted(model, tmp_path, capsys):
    scans = model / "Dataset003_Balls" / "imagesTs"
    assert predict(model, scans, tmp_path / "out", "--reference", tmp_path / "gone") == 2
    assert "gone: there is no such folder" in capsys.readouterr().err
    assert predict(model, scans, tmp_path / "out", "--reference", scans.parent / "labelsTr") == 2
    assert "no label file in it has the name of a case, such as p6.nii.gz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_references_of_another_file_type_are_found_and_a_bad_one_gives_status_1(model, tmp_path, capsys):
    labels = model / "Dataset003_Balls" / "labelsTs"
    for case in ("p6", "p7"):
        write_label_volume(read_label_volume(labels / f"{case}.nii.gz"), tmp_path / "reference" / f"{case}.mha")
    scans, out = labels.parent / "imagesTs", tmp_path / "out"
    assert predict(model, scans, out, "--reference", tmp_path / "reference") == 0
    assert sorted(json.loads((out / "metrics.json").read_text())["files"]) == ["p6", "p7"]
    evaluate = ["--reference", tmp_path / "reference", "--predicted", out, "-o", tmp_path / "scores"]
    assert call(model, "evaluate", *evaluate) == 0
    (tmp_path / "reference" / "p7.mha").write_bytes(b"damaged")
    capsys.readouterr()
    assert predict(model, scans, out, "--reference", tmp_path / "reference") == 1
    assert "failed: p7: not scored" in capsys.readouterr().out


def test_another_programs_summary_is_kept(model, tmp_path, capsys):
    (tmp_path / "summary.json").write_text("{}")
    raw = model / "Dataset003_Balls"
    assert predict(model, raw / "imagesTs", tmp_path, "--reference", raw / "labelsTs") == 2
    assert "was not made by this program" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_plain_names_with_four_digits_are_cases_and_unused_files_are_named(model, tmp_path, capsys):
    plain = copy_scans(model, tmp_path / "plain", ["scan_1001.nii.gz", "scan_1002.nii.gz"])
    assert predict(model, plain, tmp_path / "a") == 0
    assert sorted(path.name for path in (tmp_path / "a").glob("*.nii.gz")) == ["scan_1001.nii.gz", "scan_1002.nii.gz"]
    assert "left out" not in capsys.readouterr().err
    mixed = copy_scans(model, tmp_path / "mixed", ["a_0000.nii.gz", "b.nii.gz"])
    assert predict(model, mixed, tmp_path / "b") == 0
    assert "left out: b.nii.gz: no channel of a case" in capsys.readouterr().err


def test_a_model_is_found_by_its_run_while_that_is_only_one(model, tmp_path, capsys):
    assert call(model, "model", "info", "fullres_3d_self_attention_unet") == 0
    zipped = tmp_path / "one.zip"
    assert call(model, "model", "export", "fullres_3d_self_attention_unet", zipped) == 0
    assert call(model, "model", "export", zipped, tmp_path / "two.zip") == 2
    assert "one.zip is one file already" in capsys.readouterr().err
    other = ["--workspace", str(tmp_path / "other")]
    for name in ("a", "b"):
        assert main(["model", "import", str(zipped), "--name", name, *other]) == 0
    assert main(["model", "info", "fullres_3d_self_attention_unet", *other]) == 2
    assert "is a run of 2 models; say which: a, b" in capsys.readouterr().err


def test_a_data_set_folder_stands_for_its_test_cases_and_all_its_labels(model, tmp_path, capsys):
    raw, out = model / "Dataset003_Balls", tmp_path / "out"
    assert predict(model, raw, out, "--reference", raw) == 0
    assert sorted(json.loads((out / "metrics.json").read_text())["files"]) == ["p6", "p7", "p8"]
    assert call(model, "evaluate", "--reference", raw, "--predicted", out, "-o", tmp_path / "scores", "--partial") == 0
    assert sorted(json.loads((tmp_path / "scores" / "metrics.json").read_text())["files"]) == ["p6", "p7", "p8"]
