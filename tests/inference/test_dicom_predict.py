"""DICOM goes into ``autoseg predict`` as it is, and results for viewers come out."""

import json
import re
from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest

from autoseg.cli import main
from autoseg.data.labels import LabelSchema
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.files import read_file, read_label_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.label_tables import write_label_tables
from autoseg.imaging.volume import LabelVolume, Volume

TURN = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])  # sagittal slices
TEXTS = {".json", ".csv", ".html", ".md", ".txt"}
SCALED = {"RescaleSlope": 0.001, "spacing_mm": (1.0, 1.0, 1.0), "rotation": TURN}


@pytest.fixture
def place(tmp_path, tools, threshold_plan):
    """A folder with a model that finds what is brighter than 0.5."""
    tools["write_model"](tmp_path / "model", threshold_plan)
    return tmp_path


def predict(place, source, *more, out="out"):
    options = ["-m", str(place / "model"), "--device", "cpu", "--no-mirror", *more]
    return main(["predict", "-i", str(source), "-o", str(place / out), *options])


def ball(tools, shape=(12, 14, 16), radius=4.0):
    volume, mask = tools["ball_volume"](shape, radius=radius)
    return np.rint(volume.data[0] * 1000).astype(np.int16), mask


def test_images_of_monochrome1_are_turned_round_where_that_is_asked_for(place, tools, draw, capsys):
    values, mask = ball(tools)
    meaning = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    draw.write_series(place / "in", (4095 - values).astype(np.int16), **meaning, **SCALED)
    assert predict(place, place / "in", "--invert-monochrome1") == 0
    assert (read_label_volume(place / "out" / "in_s7.nii.gz").data == 7).sum() == mask.sum()
    assert predict(place, place / "in", out="plain") == 0
    assert "MONOCHROME1" in (place / "plain" / "in_s7.json").read_text()
    assert (read_label_volume(place / "plain" / "in_s7.nii.gz").data == 7).all()
    capsys.readouterr()
    assert predict(place, place / "in", "--invert-monochrome1") == 0
    assert "1 were done already" in capsys.readouterr().out


@pytest.mark.thorough
def test_each_series_of_a_tree_is_a_case(place, tools, draw, capsys):
    masks = {}
    for i, (folder, number) in enumerate((("study/t1", 3), ("study/t2", 4), ("other", None))):
        values, masks[folder] = ball(tools, radius=3.0 + i)
        draw.write_series(place / "in" / folder, values, SeriesInstanceUID=f"1.{i}", SeriesNumber=number, **SCALED)
    values, _ = ball(tools)
    draw.write_series(place / "in" / "gap", values, SeriesInstanceUID="1.9", **SCALED)
    (place / "in" / "gap" / "005.dcm").unlink()
    draw.write_series(place / "in" / "scout", values, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID="1.8")
    assert predict(place, place / "in") == 1
    text = capsys.readouterr()
    assert "left out: series 7 (UID ...1.8)" in text.err
    assert "3 predicted, 0 were done already, 1 failed" in text.out
    assert "failed: gap_s7: series 7 (UID ...1.9)" in text.out
    assert "found a gap of 2 mm between 004.dcm and 006.dcm" in text.out
    assert draw.patient not in text.out + text.err
    for folder, name in (("study/t1", "study_t1_s3"), ("study/t2", "study_t2_s4"), ("other", "other")):
        found, scan = read_label_volume(place / "out" / f"{name}.nii.gz"), read_file(place / "in" / folder)
        assert found.geometry.matches(scan.geometry, 1e-3)
        np.testing.assert_array_equal(found.data == 7, masks[folder])
        marker = json.loads((place / "out" / f"{name}.json").read_text())
        assert marker["identity"]["inputs"] == [{"file": name, "digest": scan.digest}]
        assert draw.patient not in json.dumps(marker)
    assert predict(place, place / "in") == 1
    assert "0 predicted, 3 were done already, 1 failed" in capsys.readouterr().out


def test_a_changed_slice_is_predicted_again(place, tools, draw, capsys):
    values, _ = ball(tools)
    folder = draw.write_series(place / "in", values, **SCALED)
    assert predict(place, folder) == 0
    values[3] = 0
    draw.write_series(folder, values, **SCALED)
    assert predict(place, folder) == 0
    assert "1 predicted, 0 were done already" in capsys.readouterr().out.splitlines()[-2]


@pytest.mark.thorough
def test_dicom_results_lie_beside_the_labels_and_belong_to_them(place, tools, draw, capsys):
    values, mask = ball(tools)
    folder = draw.write_series(place / "in", values, **SCALED)
    assert predict(place, folder, "--write", "seg,rtstruct") == 0
    record = json.loads((place / "out" / "in_s7.json").read_text())
    assert set(record["outputs"]) == {"in_s7.nii.gz", "in_s7_seg.dcm", "in_s7_rtstruct.dcm"}
    seg = highdicom.seg.segread(place / "out" / "in_s7_seg.dcm")
    assert seg.get_volume().array.sum() == mask.sum()
    assert [item.ROIName for item in pydicom.dcmread(place / "out" / "in_s7_rtstruct.dcm").StructureSetROISequence] == ["ball"]
    (place / "out" / "in_s7_seg.dcm").unlink()
    assert predict(place, folder, "--write", "seg,rtstruct") == 0
    assert (place / "out" / "in_s7_seg.dcm").is_file()
    assert predict(place, folder, "--write", "seg") == 0
    assert not (place / "out" / "in_s7_rtstruct.dcm").exists()
    assert len(list(folder.iterdir())) == len(values)  # nothing is written beside the scans


@pytest.mark.thorough
def test_each_structure_can_have_an_object_of_its_own(place, tools, draw):
    values, mask = ball(tools)
    folder = draw.write_series(place / "in", values, **SCALED)
    assert predict(place, folder, "--write", "seg_each") == 0
    record = json.loads((place / "out" / "in_s7.json").read_text())
    assert set(record["outputs"]) == {"in_s7.nii.gz", "in_s7_seg/ball.dcm"}
    assert highdicom.seg.segread(place / "out" / "in_s7_seg" / "ball.dcm").get_volume().array.sum() == mask.sum()
    assert predict(place, folder) == 0
    assert not (place / "out" / "in_s7_seg" / "ball.dcm").exists()


def test_dicom_results_need_dicom_and_a_known_name(place, tools, draw, capsys):
    (place / "nifti").mkdir()
    tools["write_scans"](place / "nifti", 1)
    assert predict(place, place / "nifti", "--write", "seg_each") == 2
    assert "a did not come as DICOM" in capsys.readouterr().err
    assert predict(place, place / "nifti", "--write", "seg") == 2
    assert "a did not come as DICOM. Give the folder of its series" in capsys.readouterr().err
    folder = draw.write_series(place / "in", ball(tools)[0], **SCALED)
    assert predict(place, folder, "--write", "sge") == 2
    known = "Did you mean 'seg'? Known: probabilities, rtstruct, seg, seg_each, seg_nrrd\n"
    assert f"--write: no output called 'sge'. {known}" in capsys.readouterr().err
    assert predict(place, folder, "--write", "seg,surfaces") == 2
    assert "--write: expected results without an option of their own, found surfaces" in capsys.readouterr().err
    assert not (place / "out").exists()


def test_nothing_to_predict_is_said_with_what_was_left_out(place, tools, draw, capsys):
    draw.write_series(place / "in", ball(tools)[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert predict(place, place / "in") == 2
    assert "no scans in it; expected CASE_0000.nii.gz" in (text := capsys.readouterr().err)
    assert "12 images left out: localisers" in text
    assert not (place / "out").exists()


def test_a_model_of_several_channels_asks_for_converted_files(tmp_path, tools, threshold_plan, draw, capsys):
    plan = two_channels(threshold_plan)
    tools["write_model"](tmp_path / "model", plan, channels=("T1", "T2"))
    folder = draw.write_series(tmp_path / "in", ball(tools)[0], **SCALED)
    assert predict(tmp_path, folder) == 2
    assert "needs 2 channels (T1, T2)" in (text := capsys.readouterr().err)
    assert "Convert them to CASE_0000.nii.gz" in text


def two_channels(plan):
    network = replace(plan.network, in_channels=2, input_mean=(0.5,) * 2, input_std=(0.25,) * 2)
    return replace(plan, network=network, normalization=plan.normalization * 2)


def test_channels_on_other_grids_are_refused_or_resampled_and_said(tmp_path, tools, threshold_plan, capsys):
    tools["write_model"](tmp_path / "model", two_channels(threshold_plan), channels=("T1", "T2"))
    volume, mask = tools["ball_volume"]()
    (tmp_path / "in").mkdir()
    write_volume(volume, tmp_path / "in" / "p_0000.nii.gz")
    fine = Geometry.from_spacing((40, 40, 40), (0.5, 0.7, 0.6))
    write_volume(Volume(np.zeros((1, 40, 40, 40), np.float32), fine), tmp_path / "in" / "p_0001.nii.gz")
    assert predict(tmp_path, tmp_path / "in") == 1
    text = capsys.readouterr().out
    assert str(volume.geometry) in text
    assert str(fine) in text
    assert predict(tmp_path, tmp_path / "in", "--resample-channels") == 0
    np.testing.assert_array_equal(read_label_volume(tmp_path / "out" / "p.nii.gz").data == 7, mask)
    (note,) = json.loads((tmp_path / "out" / "p.json").read_text())["notes"]
    assert note.startswith("p_0001.nii.gz: 40x40x40 voxels")
    assert "resampled onto the grid of p_0000.nii.gz" in note


def test_labels_carry_names_and_colours(tmp_path, tools, threshold_plan, draw):
    labels = LabelSchema(("big one", "core"), ((2, 5), (5,)), True, (2, 5))
    tools["write_model"](tmp_path / "model", threshold_plan, labels=labels)
    folder = draw.write_series(tmp_path / "in", ball(tools)[0], **SCALED)
    assert predict(tmp_path, folder) == 0
    assert json.loads((tmp_path / "out" / "in_s7.json").read_text())["labels"] == {"big one": [2, 5], "core": 5}
    (r, g, b), _ = structure_colours("ab")
    snap = [line.split(maxsplit=7) for line in (tmp_path / "out" / "labels.txt").read_text().splitlines() if line[0] != "#"]
    assert [(line[0], line[7]) for line in snap] == [("0", '"Clear Label"'), ("2", '"big one"'), ("5", '"core"')]
    assert snap[1][1:4] == [str(r), str(g), str(b)]
    slicer = [line.split() for line in (tmp_path / "out" / "labels.ctbl").read_text().splitlines() if line[0] != "#"]
    assert slicer[1] == ["2", "big_one", str(r), str(g), str(b), "255"]
    assert [len(line) for line in slicer] == [6, 6, 6]


def test_a_table_of_somebody_else_stays(tmp_path):
    (tmp_path / "labels.txt").write_text("mine")
    write_label_tables(tmp_path, {1: "liver"})
    write_label_tables(tmp_path, {1: "spleen"})
    assert (tmp_path / "labels.txt").read_text() == "mine"
    assert "spleen" in (tmp_path / "labels.ctbl").read_text()


@pytest.mark.thorough
def test_results_and_page_do_not_name_the_patient(place, tools, draw, capsys):
    values, mask = ball(tools)
    who = {"PatientName": "Xylander^Quirin", "PatientID": "QX-990017", **SCALED}
    folder = draw.write_series(place / "in" / "QX 990017" / "xylander_1961", values, **who)
    draw.write_series(place / "in" / "QX 990017" / "Quirin gap", values, SeriesInstanceUID="1.9", SeriesNumber=8, **who)
    (place / "in" / "QX 990017" / "Quirin gap" / "005.dcm").unlink()
    assert predict(place, place / "in") == 1
    (case,) = (path.name.removesuffix(".nii.gz") for path in (place / "out").glob("*.nii.gz"))
    assert f"{folder}: identifies the patient; its case is called {case}" in capsys.readouterr().err
    (place / "truth").mkdir()
    write_label_volume(LabelVolume(mask * np.uint8(7), read_file(folder).geometry), place / "truth" / f"{case}.nii.gz")
    assert predict(place, place / "in", "--reference", str(place / "truth")) == 1
    assert "0 predicted, 1 were done already, 1 failed" in capsys.readouterr().out
    texts = {path.name: path.read_text().lower() for path in (place / "out").iterdir() if path.suffix in TEXTS}
    assert {"run.json", "metrics.json", "metrics.csv", "report.html", f"{case}.json"} <= set(texts)
    assert "named after its study" in texts["report.html"]
    for name, text in texts.items():
        assert not re.search("xylander|quirin|990017", text), name
    for name in ("run.json", f"{case}.json"):
        assert str(place / "in").lower() not in texts[name], name
