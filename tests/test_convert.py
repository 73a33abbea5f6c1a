"""Every layout, in its exact naming, becomes a data set that `verify` has nothing against; the source is never touched."""

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoseg import pipeline
from autoseg.cli import main
from autoseg.data import labelmaps
from autoseg.data.check import check_dataset
from autoseg.data.conversion import writing
from autoseg.data.dataset import read_dataset
from autoseg.data.layouts.folders import find, read_names, read_table
from autoseg.data.splits import read_splits
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.files import read_label_volume, read_volume, segment_names, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.label_tables import write_label_tables
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.options import ConvertOptions, Runtime
from autoseg.options.parsing import quoted

DATA = Path(__file__).parents[2] / "shared" / "data"
SHAPE, SPACING_MM = (4, 6, 8), (3.0, 1.0, 1.5)


def convert(layout, source, target, *, options=None, mode="reference", skip_bad=False, workers=None):
    """``autoseg.pipeline.convert`` with options by name."""
    how = ConvertOptions(link=mode == "link", copy=mode == "copy", skip_bad=skip_bad, **(options or {}))
    return pipeline.convert(layout, source, target, how, Runtime(workers=workers))


def put_image(path, seed=0, channels=1):
    """An image of noise; several channels become a 4D file. Returns its data (C, Z, Y, X)."""
    data = np.random.default_rng([seed, *path.name.encode()]).normal(100, 20, (channels, *SHAPE)).astype(np.float32)
    write_volume(Volume(data, Geometry.from_spacing(SHAPE, SPACING_MM)), path)
    return data


def put_label(path, values=(1, 2)):
    """A label map with a block of each value; returns it."""
    data = np.zeros(SHAPE, np.uint8)
    for number, value in enumerate(values):
        data[1:3, 1:4, 1 + number] = value
    write_label_volume(LabelVolume(data, Geometry.from_spacing(SHAPE, SPACING_MM)), path)
    return data


def freeze(folder):
    """Take away every right to write; returns {path: (size, time)} of what is there."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(stat.S_IREAD | (stat.S_IEXEC if path.is_dir() else 0))
    return state(folder)


def state(folder):
    return {path: (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def thaw(folder):
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def source(tmp_path):
    """The folder of a source; its rights are given back at the end."""
    folder = tmp_path / "source"
    folder.mkdir()
    yield folder
    thaw(folder)


def check(folder):
    """The DatasetSpec of a converted folder; its only findings are notes and warnings about labels that tests left out."""
    dataset = read_dataset(folder)
    findings = check_dataset(dataset)
    of_tests = {"label-never-present", "test-patient-in-training", "structure-of-one-patient"}
    of_tests |= {"sides-unnamed"}  # what is drawn here lies side by side
    assert {f.code for f in findings if f.severity != "note"} <= of_tests, findings
    assert dataset.num_training == len(dataset.training)
    return dataset


def description(folder):
    return json.loads((folder / "dataset.json").read_text())


def fill_acdc(folder, *, cine=False):
    for number, part in ((1, "training"), (2, "training"), (101, "testing")):
        patient = f"patient{number:03d}"
        place = folder / part / patient
        for frame in (1, 12):
            put_image(place / f"{patient}_frame{frame:02d}.nii.gz")
            put_label(place / f"{patient}_frame{frame:02d}_gt.nii.gz", (1, 2, 3))
        put_image(place / f"{patient}_4d.nii.gz", channels=3)
        frames = 3 if cine else 30
        text = f"ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: {frames}\nWeight: 95.0\n"
        (place / "Info.cfg").write_text(text)
    (folder / "MANDATORY_CITATION.md").write_text("cite")


def fill_brats(folder, kind="2020"):
    ends = {"2020": ("_t1", "_t1ce", "_t2", "_flair", "_seg"), "2023": ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")}[kind]
    name = {"2020": "BraTS20_Training_{:03d}", "2023": "BraTS-GLI-{:05d}-000"}[kind]
    for number in (1, 2):
        case = name.format(number)
        for end in ends[:4]:
            put_image(folder / case / f"{case}{end}.nii.gz")
        put_label(folder / case / f"{case}{ends[4]}.nii.gz", (1, 2, 4 if kind == "2020" else 3))


def test_acdc_keeps_patients_frames_official_test_cases_and_what_info_says(source, tmp_path):
    fill_acdc(source)
    before = freeze(source)
    convert("acdc", source, tmp_path / "out")
    dataset = check(tmp_path / "out")
    assert [(case.id, case.patient) for case in dataset.training][1:3] == [
        ("patient001_frame12", "patient001"),
        ("patient002_frame01", "patient002"),
    ]
    assert [(case.id, case.label is not None) for case in dataset.test] == [
        ("patient101_frame01", True),
        ("patient101_frame12", True),
    ]
    assert dataset.labels.structures == ("right ventricle", "myocardium", "left ventricle")
    info = description(tmp_path / "out")["patient_info"]["patient001"]
    assert (info["group"], info["height_cm"], info["weight_kg"]) == ("DCM", 184.0, 95.0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["conversion.jsonl", "dataset.json"], "by reference"
    assert state(source) == before


def test_acdc_cine_series_become_one_test_case_per_frame(source, tmp_path):
    fill_acdc(source, cine=True)
    convert("acdc", source, tmp_path / "out", options={"cine": True})
    dataset = check(tmp_path / "out")
    names = [case.id for case in dataset.test if case.patient == "patient001"]
    assert names == ["patient001_4d_frame01", "patient001_4d_frame02", "patient001_4d_frame03"]
    whole = read_volume(source / "training/patient001/patient001_4d.nii.gz")
    frame = next(case for case in dataset.test if case.id == "patient001_4d_frame02")
    np.testing.assert_array_equal(read_volume(frame.images).data[0], whole.data[1])
    assert read_volume(frame.images).geometry == whole.geometry


@pytest.mark.parametrize(("kind", "enhancing"), [("2020", 4), ("2023", 3)])
def test_brats_of_either_naming_has_four_channels_and_three_regions(source, tmp_path, kind, enhancing):
    fill_brats(source / "HGG", kind)
    freeze(source)
    convert("brats", source, tmp_path / "out")
    dataset = check(tmp_path / "out")
    assert dataset.channels == ("T1", "T1ce", "T2", "FLAIR")
    assert dataset.labels.structures == ("whole tumour", "tumour core", "enhancing tumour")
    assert dataset.labels.values == ((1, 2, enhancing), (1, enhancing), (enhancing,))
    assert dataset.labels.paint_values == (2, 1, enhancing)
    first = ("t1", "t1ce", "t2", "flair") if kind == "2020" else ("t1n", "t1c", "t2w", "t2f")
    assert [path.name[:-7].replace("_", "-").split("-")[-1] for path in dataset.training[0].images] == list(first)
    assert next(iter(description(tmp_path / "out")["patient_info"].values())) == {"grade": "HGG"}


def test_brats_of_two_releases_takes_both_values_as_enhancing_and_says_so(source, tmp_path):
    fill_brats(source, "2020")
    fill_brats(source, "2023")
    done = convert("brats", source, tmp_path / "out")
    assert check(tmp_path / "out").labels.values[2] == (3, 4)
    assert any("4 in 2 cases and 3 in 2" in finding.message for finding in done.findings)


def test_brats_with_3_and_4_in_one_case_is_refused(source, tmp_path):
    fill_brats(source)
    put_label(source / "BraTS20_Training_001" / "BraTS20_Training_001_seg.nii.gz", (1, 3, 4))
    with pytest.raises(DatasetError, match="found both in BraTS20_Training_001"):
        convert("brats", source, tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_the_misnamed_label_of_brats_2020_and_validation_cases_without_labels(source, tmp_path):
    fill_brats(source / "MICCAI_BraTS2020_TrainingData")
    odd = source / "MICCAI_BraTS2020_TrainingData" / "BraTS20_Training_002"
    (odd / "BraTS20_Training_002_seg.nii.gz").rename(odd / "W39_1998.09.19_Segm.nii.gz")
    for end in ("t1", "t1ce", "t2", "flair"):
        put_image(source / "BraTS20_Validation_009" / f"BraTS20_Validation_009_{end}.nii")
    convert("brats", source, tmp_path / "out")
    dataset = check(tmp_path / "out")
    assert dataset.training[1].label.name == "W39_1998.09.19_Segm.nii.gz"
    assert [case.id for case in dataset.test] == ["BraTS20_Validation_009"]


def test_lits_is_found_in_both_batches_and_the_tumour_is_part_of_the_liver(source, tmp_path):
    for number, batch in (
        (0, "Training Batch 1"),
        (27, "Training Batch 1"),
        (28, "Training Batch 2"),
        (130, "Training Batch 2"),
    ):
        put_image(source / batch / f"volume-{number}.nii")
        put_label(source / batch / f"segmentation-{number}.nii", (1, 2) if number else (1,))
    put_image(source / "Testing" / "test-volume-0.nii")
    freeze(source)
    convert("lits", source, tmp_path / "out")
    dataset = check(tmp_path / "out")
    assert [case.id for case in dataset.training] == ["lits_000", "lits_027", "lits_028", "lits_130"]
    assert [case.id for case in dataset.test] == ["lits_test_000"]
    assert (dataset.channels, dataset.file_ending) == (("CT",), ".nii")
    assert dataset.labels.groups == {"liver": (1, 2), "tumour": (2,)}


@pytest.mark.parametrize("mode", ["reference", "link"])
def test_msd_channels_are_split_and_the_files_of_macos_do_not_count(source, tmp_path, mode):
    task = {
        "name": "PROSTATE",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "tensorImageSize": "4D",
        "numTraining": 2,
        "training": [
            {"image": f"./imagesTr/prostate_{n}.nii.gz", "label": f"./labelsTr/prostate_{n}.nii.gz"} for n in ("00", "02")
        ],
        "test": ["./imagesTs/prostate_03.nii.gz"],
    }
    task["training"].append({"image": "./imagesTr/._prostate_00.nii.gz", "label": "./labelsTr/._prostate_00.nii.gz"})
    (source / "dataset.json").write_text(json.dumps(task))
    images = {name: put_image(source / "imagesTr" / f"prostate_{name}.nii.gz", channels=2) for name in ("00", "02")}
    images["03"] = put_image(source / "imagesTs" / "prostate_03.nii.gz", channels=2)
    for name in ("00", "02"):
        put_label(source / "labelsTr" / f"prostate_{name}.nii.gz")
    (source / "imagesTr" / "._prostate_00.nii.gz").write_bytes(b"\0")
    freeze(source)
    convert("msd", source, tmp_path / "out", mode=mode)
    dataset = check(tmp_path / "out")
    assert (dataset.channels, dataset.labels.structures) == (("T2", "ADC"), ("PZ", "TZ"))
    for case in (*dataset.training, *dataset.test):
        for channel, path in enumerate(case.images):
            np.testing.assert_array_equal(read_volume(path).data[0], images[case.id[-2:]][channel])
    linked = dataset.training[0].label.stat().st_ino == (source / "labelsTr" / "prostate_00.nii.gz").stat().st_ino
    assert linked, "the label is the source's own file in both modes"


def test_scans_that_a_decathlon_task_does_not_list_are_said(source, tmp_path):
    listed = [{"image": f"./imagesTr/a_{n}.nii.gz", "label": f"./labelsTr/a_{n}.nii.gz"} for n in range(2)]
    task = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "a"}, "training": listed, "test": []}
    (source / "dataset.json").write_text(json.dumps(task))
    for n in range(4):
        put_image(source / f"imagesTr/a_{n}.nii.gz")
        put_label(source / f"labelsTr/a_{n}.nii.gz", (1,))
    report = convert("msd", source, tmp_path / "out")
    (finding,) = report.findings
    assert (finding.severity, finding.code) == ("warning", "unlisted-scan")
    assert "imagesTr: a_2.nii.gz and 1 more: not listed in dataset.json" in finding.message


def test_what_other_systems_leave_behind_belongs_to_no_case(source, tmp_path):
    for n in range(2):
        put_image(source / "scans" / f"p{n}.nii.gz")
        put_label(source / "masks" / f"p{n}" / "liver.nii.gz", (1,))
    for name in ("scans/Thumbs.db", "scans/desktop.ini", "masks/__MACOSX/p0/._liver.nii.gz", "masks/p1/__MACOSX/liver.nii.gz"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"no image")
    freeze(source)
    report = convert(
        "folders", source / "scans", tmp_path / "out", options={"labels": str(source / "masks"), "channels": ("CT",)}
    )
    assert report.findings == ()
    assert [case.id for case in check(tmp_path / "out").training] == ["p0", "p1"]


def test_two_folders_are_matched_by_name_and_values_get_the_names_of_a_table(source, tmp_path):
    for number in range(3):
        for channel in range(2):
            put_image(source / "scans" / f"p{number}_{channel:04d}.nii.gz")
        put_label(source / "truth" / f"p{number}_seg.nii.gz", (3, 7, 255))
    put_image(source / "scans" / "p9_0000.nii.gz")
    put_image(source / "scans" / "p9_0001.nii.gz")
    (source / "names.csv").write_text("value;name\n3;vein\n7;vein\n")
    options = {"labels": source / "truth", "channels": ("T1", "CT"), "names": source / "names.csv", "ignore": 255}
    convert("folders", source / "scans", tmp_path / "out", options=options)
    dataset = check(tmp_path / "out")
    assert dataset.labels.groups == {"vein 3": (3,), "vein 7": (7,)}
    assert (dataset.labels.ignore, dataset.channels) == (255, ("T1", "CT"))
    assert [case.id for case in dataset.test] == ["p9"]


def test_a_table_names_channels_patients_and_the_official_split(source, tmp_path):
    rows = [["case", "image_T1", "image_FLAIR", "label", "patient", "split"]]
    for number, part in enumerate(("train", "train", "val", "test")):
        names = [f"{kind}{number}.nii.gz" for kind in ("t1_", "flair_", "truth_")]
        for name in names[:2]:
            put_image(source / "files" / name)
        put_label(source / "files" / names[2])
        rows.append(
            [f"c{number}", *(f"files/{name}" for name in names), f"person{number // 2}" if number < 2 else f"p{number}", part]
        )
    with open(source / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    freeze(source)
    convert("folders", source / "list.csv", tmp_path / "out")
    dataset = check(tmp_path / "out")
    assert dataset.channels == ("T1", "FLAIR")
    assert [case.patient for case in dataset.training] == ["person0", "person0", "p2"]
    assert [case.id for case in dataset.test] == ["c3"]
    (split,) = read_splits(tmp_path / "out" / "splits.json", dataset.training)
    assert (split.training, split.validation) == (("c0", "c1"), ("c2",))


def put_mask(path, box, value=1):
    data = np.zeros(SHAPE, np.uint8)
    data[box] = value
    write_label_volume(LabelVolume(data, Geometry.from_spacing(SHAPE, SPACING_MM)), path)
    return data > 0


def test_overlapping_files_of_structures_become_regions_that_give_back_each_mask(source, tmp_path):
    masks = {}
    for number in range(2):
        put_image(source / "images" / f"c{number}.nii.gz")
        folder = source / "labels" / f"c{number}"
        masks[f"c{number}", "liver"] = put_mask(folder / "liver.nii.gz", np.s_[1:3, 1:5, 1:6], 255)
        masks[f"c{number}", "vessel"] = put_mask(folder / "vessel.nii.gz", np.s_[0:4, 2:4, 3:5])
    masks["c0", "tumour"] = put_mask(source / "labels" / "c0" / "tumour.nii.gz", np.s_[2:3, 1:3, 2:7])
    freeze(source)
    done = convert("folders", source / "images", tmp_path / "out", options={"labels": source / "labels"})
    assert [finding.code for finding in done.findings] == ["channel-name", "absent-structure"]
    dataset = check(tmp_path / "out")
    assert dataset.labels.has_regions
    for case in dataset.training:
        data = read_label_volume(case.label).data
        for number, structure in enumerate(dataset.labels.structures):
            truth = masks.get((case.id, structure), np.zeros(SHAPE, bool))
            np.testing.assert_array_equal(dataset.labels.mask(data, number), truth, err_msg=f"{case.id} {structure}")


def test_files_of_structures_that_do_not_overlap_become_plain_labels(source, tmp_path):
    put_image(source / "images" / "c0.nii.gz")
    put_mask(source / "labels" / "c0" / "a.nii.gz", np.s_[0:1])
    put_mask(source / "labels" / "c0" / "b.nii.gz", np.s_[2:3])
    convert("folders", source / "images", tmp_path / "out", options={"labels": source / "labels"})
    labels = check(tmp_path / "out").labels
    assert (labels.structures, labels.values, labels.has_regions) == (("a", "b"), ((1,), (2,)), False)


def test_bids_finds_sessions_and_the_labels_among_the_derivatives(source, tmp_path):
    for subject, session in (("01", "ses-1_"), ("01", "ses-2_"), ("02", ""), ("03", "")):
        place = Path(f"sub-{subject}", session.rstrip("_"), "anat")
        for kind in ("T1w", "FLAIR"):
            put_image(source / place / f"sub-{subject}_{session}{kind}.nii.gz")
        if subject != "03":
            put_label(source / "derivatives" / "manual" / place / f"sub-{subject}_{session}space-T1w_dseg.nii.gz")
    (source / "derivatives" / "manual" / "dseg.tsv").write_text("index\tname\n1\tlesion\n2\toedema\n")
    (source / "participants.tsv").write_text("participant_id\tage\nsub-01\t44\n")
    freeze(source)
    convert("bids", source, tmp_path / "out")
    dataset = check(tmp_path / "out")
    assert [(case.id, case.patient) for case in dataset.training] == [
        ("sub-01_ses-1", "sub-01"),
        ("sub-01_ses-2", "sub-01"),
        ("sub-02", "sub-02"),
    ]
    assert (dataset.channels, dataset.labels.structures) == (("T1w", "FLAIR"), ("lesion", "oedema"))
    assert [case.id for case in dataset.test] == ["sub-03"]
    assert description(tmp_path / "out")["patient_info"] == {"sub-01": {"age": "44"}}


def break_brats(source):
    """Defects of four kinds, one in each of four cases."""
    fill_brats(source)
    for number in (3, 4):
        case = f"BraTS20_Training_{number:03d}"
        for end in ("t1", "t1ce", "t2", "flair"):
            put_image(source / case / f"{case}_{end}.nii.gz")
    short = source / "BraTS20_Training_001" / "BraTS20_Training_001_t2.nii.gz"
    short.write_bytes(short.read_bytes()[:-40])
    put_label(source / "BraTS20_Training_003" / "BraTS20_Training_003_seg.nii.gz", (1, 9))
    (source / "BraTS20_Training_004" / "BraTS20_Training_004_flair.nii.gz").unlink()


def test_all_defects_of_all_cases_are_told_before_anything_is_written(source, tmp_path, capsys):
    break_brats(source)
    assert main(["convert", "brats", str(source), str(tmp_path / "out"), "--quiet"]) == 2
    text = capsys.readouterr().err
    for part in ("BraTS20_Training_001_t2.nii.gz", "found 9", "FLAIR", "of segmentation", "--skip-bad"):
        assert part in text
    assert text.count("->") >= 3, "each kind has its remedy"
    assert not (tmp_path / "out").exists()


def test_with_skip_bad_the_good_cases_are_converted_and_the_status_tells(source, tmp_path, capsys):
    break_brats(source)
    assert main(["convert", "brats", str(source), str(tmp_path / "out"), "--quiet", "--skip-bad"]) == 1
    assert "left out: BraTS20_Training_001, BraTS20_Training_003, BraTS20_Training_004" in capsys.readouterr().out
    assert [case.id for case in check(tmp_path / "out").training] == ["BraTS20_Training_002"]


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_an_interrupted_conversion_goes_on_where_it_was(source, tmp_path, monkeypatch, mode):
    fill_acdc(source, cine=True)
    freeze(source)
    make, made = writing.make_part, []

    def stop_in_the_middle(part, *more):
        if len(made) == 8:
            raise KeyboardInterrupt
        made.append(part.target)
        return make(part, *more)

    monkeypatch.setattr(writing, "make_part", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        convert("acdc", source, tmp_path / "out", mode=mode, options={"cine": True}, workers=1)
    assert not (tmp_path / "out" / "dataset.json").exists()
    record = tmp_path / "out" / "conversion.jsonl"
    record.write_text(record.read_text() + '{"file": "imagesTr/pati')  # cut short by the kill
    monkeypatch.setattr(writing, "make_part", make)
    done = convert("acdc", source, tmp_path / "out", mode=mode, options={"cine": True})
    assert done.made.kept == 7, "all files of the five cases that were whole"
    assert len(check(tmp_path / "out").test) == 11
    files = state(tmp_path / "out" / "imagesTr")
    again = convert("acdc", source, tmp_path / "out", mode=mode, options={"cine": True})
    assert (again.made.written, again.made.kept) == (0, done.made.written + done.made.kept)
    assert state(tmp_path / "out" / "imagesTr") == files


def test_a_file_that_was_damaged_since_is_made_again_and_an_edited_dataset_json_is_kept(source, tmp_path, caplog):
    fill_brats(source)
    convert("brats", source, tmp_path / "out", mode="copy")
    image = tmp_path / "out" / "imagesTr" / "BraTS20_Training_001_0002.nii.gz"
    image.write_bytes(image.read_bytes()[:-9])
    edited = description(tmp_path / "out") | {"name": "mine"}
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(edited))
    assert convert("brats", source, tmp_path / "out", mode="copy").made.written == 1
    check(tmp_path / "out")
    assert description(tmp_path / "out") == edited
    assert "was edited" in caplog.text


def test_an_edited_label_map_stays_even_if_its_case_has_gone(source, tmp_path, caplog):
    fill_brats(source)
    convert("brats", source, tmp_path / "out", mode="copy")
    labels = sorted((tmp_path / "out" / "labelsTr").iterdir())
    edited = read_label_volume(labels[0])
    write_label_volume(LabelVolume(np.zeros_like(edited.data), edited.geometry), labels[0])
    before = labels[0].read_bytes()
    assert convert("brats", source, tmp_path / "out", mode="copy").made.written == 0
    assert f"{labels[0]} was edited and stays as it is" in caplog.text
    case = labels[0].name.removesuffix(".nii.gz")
    shutil.rmtree(next(source.rglob(case)))
    convert("brats", source, tmp_path / "out", mode="copy")
    assert labels[0].read_bytes() == before
    assert not list((tmp_path / "out" / "imagesTr").glob(f"{case}*"))


def test_where_nothing_can_be_linked_files_are_copied_and_that_is_said(source, tmp_path, monkeypatch, caplog):
    fill_brats(source)
    caplog.set_level("INFO", logger="autoseg")

    def refuse(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    convert("brats", source, tmp_path / "out", mode="link")
    check(tmp_path / "out")
    assert "10 files copied, because they cannot be linked from where they are" in caplog.text


def test_a_target_in_the_source_or_of_something_else_is_refused(source, tmp_path):
    fill_brats(source)
    with pytest.raises(DatasetError, match="never written to"):
        convert("brats", source, source / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(DatasetError, match="expected an empty folder"):
        convert("brats", source, tmp_path / "other")
    convert("brats", source, tmp_path / "out")
    with pytest.raises(DatasetError, match="same command"):
        convert("brats", source, tmp_path / "out", mode="copy")


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("acdc", {}, "patient001_frame01.nii.gz"),
        ("brats", {}, "CASE_t1ce.nii.gz"),
        ("lits", {}, "volume-0.nii"),
        ("lits", {"cine": True}, "'lits' has no option 'cine'; it has: none"),
        ("msd", {}, "dataset.json of a Decathlon task"),
        ("bids", {}, "sub-01_T1w.nii.gz"),
        ("folders", {}, "--labels DIR"),
        ("kits", {}, "no layout called 'kits'"),
    ],
)
def test_a_source_of_another_layout_is_refused_with_what_was_expected(source, tmp_path, layout, options, message):
    with pytest.raises(AutosegError, match=message):
        convert(layout, source, tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data are not beside the repository")
def test_the_original_arrangement_of_acdc_gives_the_given_data_set_voxel_for_voxel(source, tmp_path):
    given = read_dataset(DATA / "Dataset027_ACDC")
    with open(given.folder / "info.csv", newline="") as file:
        info = {row["patient"]: row for row in csv.DictReader(file)}
    chosen = given.training[::8] + given.training[1::8]
    for case in chosen:
        place = source / info[case.patient]["split"] / case.patient
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{case.id}.nii.gz").symlink_to(case.images[0])
        (place / f"{case.id}_gt.nii.gz").symlink_to(case.label)
        keys = ("ED", "ES", "Group", "Height", "NbFrame", "Weight")
        (place / "Info.cfg").write_text("".join(f"{key}: {info[case.patient][key]}\n" for key in keys))
    done = convert("acdc", source, tmp_path / "out")
    assert (done.made.training, done.findings) == (len(chosen), done.findings)
    converted = {case.id: case for case in check(tmp_path / "out").training}
    assert set(converted) == {case.id for case in chosen}
    for case in chosen[::6]:
        same, truth = read_volume(converted[case.id].images), read_label_volume(converted[case.id].label)
        np.testing.assert_array_equal(same.data, read_volume(case.images).data)
        np.testing.assert_array_equal(truth.data, read_label_volume(case.label).data)
        assert same.geometry == read_volume(case.images).geometry
        assert converted[case.id].patient == case.patient


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data are not beside the repository")
def test_published_brats_scans_under_their_own_names_give_the_given_data_set(source, tmp_path):
    given = read_dataset(DATA / "Dataset137_BraTS")
    for case in given.training:
        for path, end in zip((*case.images, case.label), ("t1", "t1ce", "t2", "flair", "seg"), strict=True):
            (source / case.id).mkdir(exist_ok=True)
            (source / case.id / f"{case.id}_{end}.nii.gz").symlink_to(path)
    convert("brats", source, tmp_path / "out")
    dataset = read_dataset(tmp_path / "out")
    assert [case.id for case in dataset.training] == [case.id for case in given.training]
    for case, same in zip(given.training, dataset.training, strict=True):
        assert [path.resolve() for path in same.images] == [path.resolve() for path in case.images]
        assert same.label.resolve() == case.label.resolve()
    assert dataset.labels.values == ((1, 2, 4), (1, 4), (4,))


def test_what_is_wrong_with_tables_tasks_and_folders_is_named(source, tmp_path):
    put_image(source / "a.nii.gz")
    put_label(source / "b_label.nii.gz")
    for text, message in (
        ("image;label;split\na.nii.gz;a.nii.gz;fold 1\n", "train, val or test under split, found fold 1"),
        ("image,label\na.nii.gz,\n", "a label, found none"),
        ("image,label\na.nii.gz,gone.nii.gz\n", "found no .*gone.nii.gz"),
        ("image,label\na.nii.gz,b_label.nii.gz\na.nii.gz,b_label.nii.gz\n", "each case once"),
        ("scan,label\n", "found scan, label"),
    ):
        (source / "list.csv").write_text(text)
        with pytest.raises(DatasetError, match=message):
            convert("folders", source / "list.csv", tmp_path / "out")
    with pytest.raises(DatasetError, match="expected an image b_label or b_label_0000 in .*, found none"):
        convert("folders", source, tmp_path / "out", options={"labels": source})
    (source / "dataset.json").write_text('{"modality": {"0": "CT"}, "labels": {"0": "background"}, "training": ["a.nii.gz"]}')
    with pytest.raises(DatasetError, match="expected the form of the Decathlon"):
        convert("msd", source, tmp_path / "out")


def test_images_and_labels_in_one_folder_are_told_apart_by_their_names(source, tmp_path):
    for name in ("a", "b"):
        put_image(source / f"{name}.nii.gz")
        put_label(source / f"{name}-label.nii.gz")
    convert("folders", source, tmp_path / "out", options={"labels": source, "channels": ("CT",)})
    dataset = check(tmp_path / "out")
    assert [(case.id, case.label.name) for case in dataset.training] == [("a", "a-label.nii.gz"), ("b", "b-label.nii.gz")]


def test_a_circle_of_links_in_the_source_has_an_end(source, tmp_path):
    fill_brats(source)
    (source / "again").symlink_to(source)
    convert("brats", source, tmp_path / "out")
    assert len(check(tmp_path / "out").training) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda place: (place / "Info.cfg").unlink(), "expected ED and ES in Info.cfg, found no such file"),
        (lambda place: (place / "patient001_frame12_gt.nii.gz").unlink(), "expected patient001_frame12_gt.nii.gz"),
        (lambda place: put_label(place / "patient001_frame01_gt.nii.gz", (1, 2, 5)), "found 5"),
    ],
)
def test_an_incomplete_patient_of_acdc_is_named(source, tmp_path, spoil, message):
    fill_acdc(source)
    spoil(source / "training" / "patient001")
    with pytest.raises(DatasetError, match=message):
        convert("acdc", source, tmp_path / "out")


def test_a_cine_series_with_fewer_frames_than_info_says_is_an_error(source, tmp_path):
    fill_acdc(source)
    with pytest.raises(DatasetError, match="expected at least 4 volumes, found 3"):
        convert("acdc", source, tmp_path / "out", options={"cine": True})


def test_relative_paths_of_options_are_found_from_the_data_set(source, tmp_path, monkeypatch):
    for number in range(3):
        put_image(source / "SCANS" / f"P{number}.nii.gz")
        put_label(source / "LABELS" / f"P{number}.nii.gz")
    (source / "names.csv").write_text("value,name\n1,liver\n2,vein\n")
    monkeypatch.chdir(source)
    assert main(["convert", "folders", "SCANS", "D", "--labels", "LABELS", "--channels", "CT", "--names", "names.csv"]) == 0
    assert description(source / "D")["dataset"]["P0"]["label"] == "../LABELS/P0.nii.gz"
    monkeypatch.chdir(tmp_path)
    assert check(source / "D").labels.structures == ("liver", "vein")
    convert(
        "folders",
        source / "SCANS",
        source / "D",
        options={"labels": source / "LABELS", "channels": ["CT"], "names": source / "names.csv"},
    )


def test_numbers_of_cases_are_no_channels(source, tmp_path):
    for number in range(1, 8):
        put_image(source / "scans" / f"PANC_{number:04d}.nii.gz")
        if number not in (3, 6):
            put_label(source / "truth" / f"PANC_{number:04d}{'_seg' * (number > 4)}.nii.gz")
    convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth"})
    dataset = check(tmp_path / "out")
    assert [case.id for case in dataset.training] == [f"PANC_{number:04d}" for number in (1, 2, 4, 5, 7)]
    assert [case.id for case in dataset.test] == ["PANC_0003", "PANC_0006"]


def test_unlabelled_cases_keep_their_channels(source, tmp_path):
    for case in ("a", "b", "c"):
        for channel in range(2):
            put_image(source / "scans" / f"{case}_{channel:04d}.nii.gz")
    put_label(source / "truth" / "a.nii.gz")
    convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth"})
    dataset = read_dataset(tmp_path / "out")
    assert [(case.id, len(case.images)) for case in dataset.test] == [("b", 2), ("c", 2)]


@pytest.mark.parametrize("capital", [False, True])
def test_endings_in_capital_letters_are_endings(source, tmp_path, capital):
    for number in range(2):
        for path in (source / "scans" / f"P{number}.nii.gz", source / "truth" / f"P{number}.nii.gz"):
            (put_image if path.parent.name == "scans" else put_label)(path)
            path.rename(path.with_name(path.name.upper() if capital else path.name))
    for mode in ("reference", "copy"):
        convert("folders", source / "scans", tmp_path / mode, options={"labels": source / "truth"}, mode=mode)
        assert [case.id for case in check(tmp_path / mode).training] == ["P0", "P1"]


@pytest.mark.parametrize(
    "lines",
    [
        "index\tcolor\tname\n1\t#ff0000\tlesion\n2\t#00ff00\toedema\n",
        "index\tabbreviation\tname\n1.0\tL\tlesion\n2\tO\toedema\n",
        "name\tindex\nlesion\t1\noedema\t2\n",
    ],
)
def test_names_of_values_are_read_by_the_titles_of_columns(source, tmp_path, lines):
    put_image(source / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    put_label(source / "derivatives" / "manual" / "sub-01" / "anat" / "sub-01_dseg.nii.gz")
    (source / "derivatives" / "manual" / "dseg.tsv").write_text(lines)
    convert("bids", source, tmp_path / "out")
    assert check(tmp_path / "out").labels.groups == {"lesion": (1,), "oedema": (2,)}


def test_the_background_cannot_be_what_nobody_drew(source, tmp_path):
    put_image(source / "scans" / "P0.nii.gz")
    put_label(source / "truth" / "P0.nii.gz")
    with pytest.raises(DatasetError, match="ignore: expected a label value of its own, found 0"):
        convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth", "ignore": 0})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"# of the atlas\n\nvalue,name\n1,liver\n2,vein\n"),
        ("a.csv", b"sep=;\nname;value\nliver;1\nvein;2\n"),
        ("a.txt", "value\tname\n1\tliver\n2\tvein\n".encode("utf-16")),
        ("a.json", b'{"1": "liver", "2": "vein"}'),
        ("a.JSON", b'{"liver": "1", "vein": 2}'),
    ],
)
def test_names_are_read_as_spreadsheets_and_atlases_write_them(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_names(tmp_path / name) == {1: "liver", 2: "vein"}


@pytest.mark.parametrize(("name", "content"), [("a.csv", "1,liver\n1,vein\n"), ("a.json", '{"liver": 1, "vein": 1}')])
def test_a_value_with_two_names_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match="expected one name for 1, found liver and vein"):
        read_names(tmp_path / name)


def test_titles_of_columns_count_in_any_case(tmp_path):
    (tmp_path / "cases.csv").write_text("Case,Image_T1,LABEL_left Lung\na,x.nii,y.nii\n")
    assert read_table(tmp_path / "cases.csv")[0] == ["case", "image_T1", "label_left Lung"]


COLOUR_TABLES = {
    "ITK-SNAP": """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "left lesion, old"
    2     0  255    0      0.5  1  0    "oedema"
   17     0    0  255        1  1  1    "of no case"
""",
    "FreeSurfer": """#$Id: FreeSurferColorLUT.txt $

#No. Label Name:                            R   G   B   A
0   Unknown                                 0   0   0   0
1   Left-Cerebral-Exterior                  70  130 180 0
2   Left-Cerebral-White-Matter              245 245 245 0
17  Left-Hippocampus                        220 216 20  0
""",
    "3D Slicer": "# Color table file names.ctbl\n0 Background 0 0 0 0\n1 lesion 255 0 0 255\n2 oedema 0 255 0 255\n",
}
IN_THEM = {
    "ITK-SNAP": ("left lesion, old", "oedema"),
    "FreeSurfer": ("Left-Cerebral-Exterior", "Left-Cerebral-White-Matter"),
    "3D Slicer": ("lesion", "oedema"),
}


@pytest.mark.parametrize("program", COLOUR_TABLES)
def test_colour_tables_of_other_programs_name_the_values(source, tmp_path, program):
    put_image(source / "scans" / "a.nii.gz")
    put_label(source / "scans" / "a_seg.nii.gz")
    (source / "names.txt").write_text(COLOUR_TABLES[program])
    options = {"labels": source / "scans", "names": source / "names.txt"}
    convert("folders", source / "scans", tmp_path / "out", options=options)
    assert check(tmp_path / "out").labels.groups == dict(zip(IN_THEM[program], ((1,), (2,)), strict=True))


def test_the_tables_that_predictions_come_with_name_the_values_again(tmp_path):
    names = {1: "left kidney", 300: "Tumor"}
    write_label_tables(tmp_path, names)
    assert read_names(tmp_path / "labels.txt") == names
    assert read_names(tmp_path / "labels.ctbl") == {1: "left_kidney", 300: "Tumor"}


def test_a_table_whose_columns_nobody_names_is_refused(source, tmp_path):
    put_image(source / "scans" / "a.nii.gz")
    put_label(source / "scans" / "a_seg.nii.gz")
    (source / "names.csv").write_text("nr,colour,text\n1,#ff0000,lesion\n")
    options = {"labels": source / "scans", "names": source / "names.csv"}
    with pytest.raises(DatasetError, match="columns called index and name"):
        convert("folders", source / "scans", tmp_path / "out", options=options)


def test_a_bids_table_names_the_maps_that_have_all_parts_of_its_name(source, tmp_path):
    maps = source / "derivatives" / "reader"
    put_image(source / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    put_label(maps / "sub-01" / "anat" / "sub-01_desc-aseg_dseg.nii.gz")
    (maps / "desc-aparcaseg_dseg.tsv").write_text("index\tname\n1\twrong\n2\ttoo\n")
    (maps / "desc-aseg_dseg.tsv").write_text("index\tname\n1\tlesion\n2\toedema\n")
    convert("bids", source, tmp_path / "out")
    assert check(tmp_path / "out").labels.structures == ("lesion", "oedema")


def test_bids_tables_that_contradict_each_other_are_refused(source, tmp_path):
    for subject, names in (("01", "lesion"), ("02", "vein")):
        put_image(source / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz")
        place = source / "derivatives" / "reader" / f"sub-{subject}" / "anat"
        put_label(place / f"sub-{subject}_dseg.nii.gz")
        (place / f"sub-{subject}_dseg.tsv").write_text(f"index\tname\n1\t{names}\n2\toedema\n")
    with pytest.raises(DatasetError, match="expected 1 to be lesion as for other maps, found vein"):
        convert("bids", source, tmp_path / "out")


SLICER = (
    "NRRD0005",
    "type: unsigned char",
    "dimension: 4",
    "sizes: 2 6 4 3",
    "space: left-posterior-superior",
    "space directions: none (1.5,0,0) (0,1,0) (0,0,3)",
    "kinds: list domain domain domain",
    "space origin: (-1.5,-1,0)",
    "encoding: raw",
    "Segment0_ID:=a",
    "Segment0_Name:=liver",
    "Segment0_LabelValue:=1",
    "Segment0_Layer:=0",
    "Segment1_ID:=b",
    "Segment1_Name:=tumour",
    "Segment1_LabelValue:=1",
    "Segment1_Layer:=1",
)


@pytest.mark.parametrize("mode", ["reference", "copy"])
def test_overlapping_layers_of_slicer_beside_the_scan_become_regions(source, tmp_path, mode):
    layers = np.zeros((3, 4, 6, 2), np.uint8)  # cropped: begins at voxel (0, 1, 1) of the scan
    layers[1:, 1:3, 1:4, 0], layers[2, 1:3, 2:4, 1] = 1, 1
    put_image(source / "P1.nrrd")
    grid = read_volume(source / "P1.nrrd").geometry  # x to the right: as in LPS its direction is turned
    steps, first = grid.affine[:3, :3] * [[-1], [-1], [1]], grid.to_world([[0, 1, 1]])[0] * [-1, -1, 1]
    along = ["({},{},{})".format(*steps[:, axis]) for axis in (2, 1, 0)]
    lines = [f"space directions: none {' '.join(along)}" if line.startswith("space dir") else line for line in SLICER]
    lines = ["space origin: ({},{},{})".format(*first) if line.startswith("space origin") else line for line in lines]
    (source / "P1.seg.nrrd").write_bytes("\n".join([*lines, "", ""]).encode() + layers.tobytes())
    convert("folders", source, tmp_path / "out", options={"labels": source, "channels": ["CT"]}, mode=mode)
    dataset = check(tmp_path / "out")
    assert (dataset.labels.structures, dataset.labels.has_regions) == (("liver", "tumour"), True)
    labels = read_label_volume(dataset.training[0].label).data
    expected = np.zeros((*SHAPE, 2), bool)
    expected[:3, 1:5, 1:7] = layers != 0
    for number in range(2):
        np.testing.assert_array_equal(dataset.labels.mask(labels, number), expected[..., number])


def test_a_file_of_a_patient_that_lies_there_twice_is_refused(source, tmp_path):
    fill_acdc(source)
    put_image(source / "testing" / "patient001" / "patient001_frame01.nii.gz")
    with pytest.raises(DatasetError, match="patient001: expected one patient001_frame01.nii.gz, found"):
        convert("acdc", source, tmp_path / "out")


def test_masks_of_bids_whose_names_have_no_label_are_told(source, tmp_path):
    for subject, name in (("01", "dseg"), ("02", "desc-lesion_mask")):
        put_image(source / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz")
        put_label(source / "derivatives" / "reader" / f"sub-{subject}" / "anat" / f"sub-{subject}_{name}.nii.gz", (1,))
    done = convert("bids", source, tmp_path / "out")
    (finding,) = (finding for finding in done.findings if finding.severity == "warning")
    assert finding.case == "sub-02"
    assert finding.message == "expected a _dseg or a _label-NAME_mask as label, found sub-02_desc-lesion_mask.nii.gz"
    assert [case.id for case in check(tmp_path / "out").test] == ["sub-02"]


def test_masks_of_bids_beside_a_map_are_left_out_and_told(source, tmp_path):
    for subject in ("01", "02"):
        put_image(source / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz")
        for name in ("dseg", "label-lesion_mask"):
            put_label(source / "derivatives" / "reader" / f"sub-{subject}" / "anat" / f"sub-{subject}_{name}.nii.gz", (1,))
    done = convert("bids", source, tmp_path / "out")
    told = [finding.message for finding in done.findings if finding.severity == "warning" and finding.case == "sub-02"]
    assert told == ["its label is sub-02_dseg.nii.gz; left out beside it: sub-02_label-lesion_mask.nii.gz"]


def test_contrast_of_gadolinium_is_a_channel_of_brats(source, tmp_path):
    fill_brats(source)
    for path in source.rglob("*_t1ce.nii.gz"):
        path.rename(path.with_name(path.name.replace("_t1ce", "_T1GD")))
    convert("brats", source, tmp_path / "out")
    assert check(tmp_path / "out").channels == ("T1", "T1ce", "T2", "FLAIR")


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_photographs_are_copied_as_png_since_jpeg_holds_no_labels(source, tmp_path, mode):
    colours = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    (source / "photos").mkdir()
    Image.fromarray(colours).save(source / "photos" / "a.jpg")
    put_mask_of = np.zeros((1, 8, 9), np.uint8)
    put_mask_of[0, 2:4, 3:5] = 1
    write_label_volume(LabelVolume(put_mask_of, Geometry.from_spacing((1, 8, 9), (1, 1, 1))), source / "masks" / "a.png")
    convert("folders", source / "photos", tmp_path / "out", options={"labels": source / "masks"}, mode=mode)
    (case,) = check(tmp_path / "out").training
    np.testing.assert_array_equal(read_volume(case.images).data, read_volume(source / "photos" / "a.jpg").data)
    np.testing.assert_array_equal(read_label_volume(case.label).data, put_mask_of)


def test_the_same_number_of_other_channels_is_refused(source, tmp_path):
    for case, numbers in {"P1": (0, 1), "P2": (0, 1), "P3": (0, 2)}.items():
        for number in numbers:
            put_image(source / "scans" / f"{case}_{number:04d}.nii.gz")
        put_label(source / "labels" / f"{case}.nii.gz")
    options = {"labels": source / "labels", "channels": ["T1", "T2"]}
    with pytest.raises(DatasetError, match="P3: expected the channels 0000, 0001 as in most cases, found 0000, 0002"):
        convert("folders", source / "scans", tmp_path / "out", options=options)


def test_a_dataset_json_names_the_values_of_other_maps(source):
    path = source / "dataset.json"
    path.write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "ignore": 2}}))
    assert read_names(path) == {0: "background", 1: "liver", 2: "ignore"}


def put_segments(path, numbers):
    """A segmentation of 3D Slicer in one layer: {name: value} in the order of ``put_label``."""
    put_label(path.with_name("plain.nrrd"), tuple(numbers.values()))
    lines = [
        f"Segment{i}_{key}:={text}"
        for i, (name, value) in enumerate(numbers.items())
        for key, text in {"ID": f"s{i}", "Name": name, "LabelValue": value}.items()
    ]
    content = path.with_name("plain.nrrd").read_bytes()
    path.with_name("plain.nrrd").unlink()
    path.write_bytes(content.replace(b"\n\n", ("\n" + "\n".join([*lines, "", ""])).encode(), 1))


def test_one_segment_with_two_numbers_is_one_structure_and_so_it_is_beside_layers(source, tmp_path):
    for case, numbers in {"P1": {"liver": 1}, "P2": {"liver": 2}}.items():
        put_image(source / f"{case}.nrrd")
        put_segments(source / f"{case}.seg.nrrd", numbers)
    options = {"labels": source, "channels": ["CT"]}
    convert("folders", source, tmp_path / "one", options=options)
    assert check(tmp_path / "one").labels.groups == {"liver": (1,)}
    layers = np.zeros((4, 6, 8, 2), np.uint8)
    layers[1:3, 1:4, 1, 0], layers[1:2, 1:4, 1, 1] = 1, 1
    put_image(source / "P3.nrrd")
    lines = [line.replace("6 4 3", "8 6 4").replace("(-1.5,-1,0)", "(0,0,0)") for line in SLICER]
    lines = [line.replace("(1.5,0,0) (0,1,0)", "(-1.5,0,0) (0,-1,0)") for line in lines]
    (source / "P3.seg.nrrd").write_bytes("\n".join([*lines, "", ""]).encode() + layers.tobytes())
    convert("folders", source, tmp_path / "three", options=options)
    dataset = check(tmp_path / "three")
    assert dataset.labels.structures == ("liver", "tumour")
    for case in dataset.training:
        data = read_label_volume(case.label).data
        assert np.count_nonzero(dataset.labels.mask(data, 0)) == 6
        assert np.count_nonzero(dataset.labels.mask(data, 1)) == 3 * (case.id == "P3")


def test_a_structure_that_is_spelled_otherwise_in_some_cases_is_refused_there(source, tmp_path):
    of = {"P1": ["Liver", "CD4+"], "P2": ["Liver", "CD4-"], "P3": ["liver_"], "P4": ["Liver", "vein", "Vein"]}
    for case, names in of.items():
        put_image(source / "scans" / f"{case}.nii.gz")
        for name in names:
            put_label(source / "labels" / case / f"{name}.nii.gz", (1,))
    options = {"labels": source / "labels", "channels": ["CT"]}
    with pytest.raises(DatasetError, match="P3: expected the structure 'Liver', as in 3 of 4 cases, found 'liver_'") as error:
        convert("folders", source / "scans", tmp_path / "out", options=options)
    assert "has 1 error" in str(error.value)
    convert("folders", source / "scans", tmp_path / "out", options=options, skip_bad=True)
    assert check(tmp_path / "out").labels.structures == ("CD4+", "CD4-", "Liver", "Vein", "vein")


@pytest.mark.parametrize("mode", ["reference", "copy"])
def test_a_cropped_segmentation_of_slicer_gives_its_names_and_lies_on_the_scan(source, tmp_path, mode):
    put_image(source / "scans" / "P1.nrrd")
    data, grid = put_label(source / "whole.nrrd"), read_volume(source / "scans" / "P1.nrrd").geometry
    part = LabelVolume(data[1:, 1:, 1:], grid.cropped((1, 1, 1), [n - 1 for n in SHAPE]))
    write_label_volume(part, source / "part.nrrd")
    names = ["Segment0_ID:=a", "Segment0_Name:=liver", "Segment0_LabelValue:=1"]
    names += ["Segment1_ID:=b", "Segment1_Name:=vein", "Segment1_LabelValue:=2", "", ""]
    content = (source / "part.nrrd").read_bytes().replace(b"\n\n", ("\n" + "\n".join(names)).encode(), 1)
    (source / "truth").mkdir()
    (source / "truth" / "P1.seg.nrrd").write_bytes(content)
    options = {"labels": source / "truth", "channels": ["CT"]}
    convert("folders", source / "scans", tmp_path / "out", options=options, mode=mode)
    dataset = check(tmp_path / "out")
    assert dataset.labels.groups == {"liver": (1,), "vein": (2,)}
    np.testing.assert_array_equal(read_label_volume(dataset.training[0].label, onto=grid).data, data)


def test_a_conversion_that_was_killed_in_its_first_write_goes_on(source, tmp_path):
    fill_brats(source)
    code = (
        "import os, signal, sys; from pathlib import Path; from autoseg.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    record = tmp_path / "out" / "conversion.jsonl"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, record], env={**os.environ, "PYTHONPATH": str(root)}, check=False)
    assert [path.name[:9] for path in record.parent.iterdir()] == [".writing-"]
    convert("brats", source, tmp_path / "out", mode="copy")
    check(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".writing-*"))


def test_the_record_is_the_same_after_an_interruption_and_its_own_dataset_json_is_no_edited_one(source, tmp_path, caplog):
    fill_brats(source)
    convert("brats", source, tmp_path / "out", mode="copy", workers=1)
    record = tmp_path / "out" / "conversion.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    assert lines[1:] == sorted(lines[1:])
    record.write_text("".join([lines[0], *(line for line in reversed(lines[3:]) if "dataset.json" not in line)]))
    convert("brats", source, tmp_path / "out", mode="copy")
    assert record.read_text() == "".join(lines)
    assert "was edited" not in caplog.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["scans/P1.nii", "scans/P1.nii.gz", "truth/P1.nii.gz"], "expected one file called P1, found P1.nii and P1.nii.gz"),
        (
            ["scans/P1.nii.gz", "truth/P1.nii.gz", "truth/P1_seg.nii.gz"],
            "P1: expected one case of this name, found 2",
        ),
        (
            ["scans/P1.nii.gz", "truth/P1/a.nii", "truth/P1/a.nii.gz"],
            "expected one file called a, found a.nii and a.nii.gz",
        ),
    ],
)
def test_two_files_for_one_thing_are_refused_and_none_is_chosen(source, tmp_path, files, message):
    masks = any("P1/" in name for name in files)
    for name in [*files, "scans/P2.nii.gz", f"truth/P2{'/a' * masks}.nii.gz"]:
        put_image(source / name) if name.startswith("scans") else put_label(source / name, (1,))
    with pytest.raises(DatasetError, match=message):
        convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth"})
    assert not (tmp_path / "out").exists()
    made = convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth"}, skip_bad=True)
    assert (made.left_out, sorted(description(tmp_path / "out")["dataset"])) == (("P1",), ["P2"])


def test_pictures_of_volumes_are_neither_scans_nor_labels_and_are_told(source, tmp_path):
    for case in ("a", "b"):
        scan, label = put_image(source / "scans" / f"{case}.nii.gz"), put_label(source / "truth" / f"{case}.nii.gz")
        for folder, data in (("scans", scan[0, :1] > 100), ("truth", label[:1])):
            flat = LabelVolume(data.astype(np.uint8), Geometry.from_spacing((1, *SHAPE[1:]), (1, 1, 1)))
            write_label_volume(flat, source / folder / f"{case}.png")
    made = convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth"})
    assert [case.images[0].name for case in check(tmp_path / "out").training] == ["a.nii.gz", "b.nii.gz"]
    told = "a.png and 1 more: left out, as a picture of the volume of the same name"
    assert {f"scans/{told}", f"truth/{told}"} <= {finding.message for finding in made.findings}


@pytest.mark.parametrize(
    ("names", "message"),
    [("value,name\n1,\n2,vein\n", "expected a name for the value 1, found none"), ("1,Ignore\n2,vein\n", "in lower case")],
)
def test_names_that_no_data_set_could_be_read_with_are_refused_before_it_is_written(source, tmp_path, names, message):
    put_image(source / "scans" / "a.nii.gz")
    put_label(source / "truth" / "a.nii.gz")
    (source / "names.csv").write_text(names)
    with pytest.raises(DatasetError, match=message):
        convert(
            "folders", source / "scans", tmp_path / "out", options={"labels": source / "truth", "names": source / "names.csv"}
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "deep/a.nii.gz",
            "found none directly in it, and 1 file below, such as deep/a.nii.gz. Give",
        ),
        ("a/0.dcm", "and 1 file below, such as a/0.dcm; they are DICOM. Make one .nii.gz of each series"),
        ("0001", "found DICOM. Make one .nii.gz of each series"),
        ("notes", "found none. Give the folder of the images"),
    ],
)
def test_scans_in_other_places_or_of_dicom_are_named_where_none_is_found(source, tmp_path, name, message):
    path = source / "scans" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a note" if name == "notes" else bytes(128) + b"DICM" + bytes(100))
    put_label(source / "truth" / "a.nii.gz")
    with pytest.raises(DatasetError, match=message):
        convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth"})


def test_scans_and_labels_of_kinds_that_are_not_read_are_told(source, tmp_path):
    put_image(source / "scans" / "a.nii.gz")
    put_label(source / "truth" / "a.nii.gz")
    for name in ("scans/b.img", "scans/c.nii.gz.part", "truth/b.mgz"):
        (source / name).write_bytes(b"anything")
    made = convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth"})
    assert [finding.message for finding in made.findings if finding.code == "left-out"] == [
        "scans/b.img: a kind of image that is not read",
        "scans/c.nii.gz.part: more behind the ending of a scan",
        "truth/b.mgz: a kind of image that is not read",
    ]


def test_labels_without_their_images_are_not_told_as_labels_without_structures(source, tmp_path):
    put_image(source / "scans" / "a_ct.nii.gz")
    put_label(source / "truth" / "a_liver.nii.gz")
    with pytest.raises(DatasetError, match="has 1 error; nothing was written\n *error *no-image *a_liver: expected an image"):
        convert("folders", source / "scans", tmp_path / "out", options={"labels": source / "truth"})


def put_cases(source, cases):
    """A scan, and a folder with a file for each structure, of {case: names}; returns the call's options."""
    for case, names in cases.items():
        put_image(source / "scans" / f"{case}.nii.gz")
        for number, name in enumerate(names):
            put_mask(source / "labels" / case / f"{name}.nii.gz", np.s_[1:3, 1:3, number : number + 1])
    return {"labels": source / "labels", "channels": ["CT"]}


def choose(source, target, names, options, **more):
    return convert("folders", source / "scans", target, options={**options, "structures": names}, **more)


def test_chosen_structures_alone_become_labels_in_the_order_of_the_user(source, tmp_path):
    options = put_cases(source, {"P1": ["BODY", "heart", "Lung_L", "Lung_R"], "P2": ["BODY", "heart", "Lung_L"]})
    put_mask(source / "labels" / "P2" / "BODY.nii.gz", np.s_[0:4, 0:6, 0:8])
    (source / "labels" / "P1" / "Lung_R.nii.gz").write_bytes(b"damaged")  # never opened
    made = choose(source, tmp_path / "out", ["Lung_L", "heart"], options)
    assert check(tmp_path / "out").labels.groups == {"Lung_L": (1,), "heart": (2,)}
    assert [f.message for f in made.findings if f.code == "left-out"] == ["2 structures not chosen: 'BODY', 'Lung_R'"]
    for case in check(tmp_path / "out").training:
        data = read_label_volume(case.label).data
        assert (data[1:3, 1:3, 1] == 2).all()
        assert (data[1:3, 1:3, 2] == 1).all()
        assert np.count_nonzero(data) == 8


def test_regions_of_chosen_structures_are_in_the_order_of_the_user(source, tmp_path):
    options = put_cases(source, {"P1": ["a", "b", "c"]})
    put_mask(source / "labels" / "P1" / "c.nii.gz", np.s_[1:3, 1:3, 0:2])
    choose(source, tmp_path / "out", ["c", "a"], options)
    labels = check(tmp_path / "out").labels
    assert labels.structures == ("c", "a")
    assert description(tmp_path / "out")["regions_class_order"] == [1, 2]
    assert description(tmp_path / "out")["labels"] == {"background": 0, "c": [1, 3], "a": [2, 3]}


def test_a_chosen_name_is_found_under_another_spelling_and_that_is_said_once(source, tmp_path):
    options = put_cases(source, {"P1": ["Lung_L"], "P2": ["x", "lung l"], "P3": ["x", "y", "LUNG-L"]})
    made = choose(source, tmp_path / "out", ["Lung_L"], options, mode="copy")
    assert [f.message for f in made.findings if f.code == "structure-name"] == [
        "'Lung_L' is written 'lung l' in 1 case, 'LUNG-L' in 1 case"
    ]
    for number, case in enumerate(check(tmp_path / "out").training):
        assert (read_label_volume(case.label).data[1:3, 1:3, number] == 1).all()


def test_a_name_that_may_mean_two_structures_is_taken_exactly_or_refused(source, tmp_path):
    options = put_cases(source, {"P1": ["Lung_L", "lung l"], "P2": ["lung l"], "P3": ["Lung_L", "x"]})
    with pytest.raises(DatasetError, match="P2: expected the structure 'Lung_L', found 'lung l'; such names mean several"):
        choose(source, tmp_path / "out", ["Lung_L"], options)
    choose(source, tmp_path / "out", ["Lung_L"], options, skip_bad=True)
    assert [case.id for case in check(tmp_path / "out").training] == ["P1", "P3"]
    with pytest.raises(DatasetError, match="P1: expected the structure 'LUNG-L', found 'Lung_L', 'lung l'; such names"):
        choose(source, tmp_path / "two", ["LUNG-L"], options)
    choose(source, tmp_path / "both", ["lung l", "Lung_L"], options)
    assert check(tmp_path / "both").labels.structures == ("lung l", "Lung_L")


def test_a_chosen_name_of_no_case_is_refused_with_the_names_there_are(source, tmp_path):
    options = put_cases(source, {"P1": ["aorta", "heart", "liver"], "P2": ["heart", "liver"]})
    with pytest.raises(
        DatasetError, match=r"no case with 'hart', 'Lung'\. There are: 'heart' \(2 cases\), .*'aorta' \(1 case\)"
    ):
        choose(source, tmp_path / "out", ["hart", "Lung", "liver"], options)
    assert not (tmp_path / "out").exists()
    for case in ("P1", "P2"):
        (source / "scans" / f"{case}.nii.gz").rename(source / "scans" / f"other {case}.nii.gz")
    with pytest.raises(DatasetError, match="no-image  P1: expected an image P1"):
        choose(source, tmp_path / "out", ["heart"], options)


def test_a_chosen_structure_that_some_cases_lack_is_taken_as_absent_there_and_cases_of_none_are_refused(source, tmp_path):
    options = put_cases(source, {"P1": ["heart", "liver"], "P2": ["heart"], "P3": ["x"]})
    with pytest.raises(DatasetError, match="P3: expected one of the chosen structures, found only 'x'"):
        choose(source, tmp_path / "out", ["liver", "heart"], options)
    made = choose(source, tmp_path / "out", ["liver", "heart"], options, skip_bad=True)
    assert ("P2", "absent-structure") in {(f.case, f.code) for f in made.findings}
    assert [case.id for case in check(tmp_path / "out").training] == ["P1", "P2"]


def test_structures_of_label_maps_are_chosen_by_the_names_of_values_or_refused(source, tmp_path):
    for case, values in {"P1": (1, 2, 3), "P2": (3, 9)}.items():
        put_image(source / "scans" / f"{case}.nii.gz")
        put_label(source / "labels" / f"{case}.nii.gz", values)
    options = {"labels": source / "labels", "channels": ["CT"]}
    with pytest.raises(DatasetError, match="found label maps without names. Name their values with --names FILE"):
        choose(source, tmp_path / "out", ["heart"], options)
    (source / "names.csv").write_text("1,liver\n2,vein\n3,heart\n4,lung\n")
    options |= {"names": source / "names.csv"}
    with pytest.raises(DatasetError, match="found none of lung in any label map"):
        choose(source, tmp_path / "out", ["heart", "lung"], options)
    choose(source, tmp_path / "out", ["Heart", "liver"], {**options, "ignore": 9})
    dataset = check(tmp_path / "out")
    assert description(tmp_path / "out")["labels"] == {"background": 0, "Heart": 1, "liver": 2, "ignore": 3}
    for case, blocks in zip(dataset.training, [[2, 0, 1], [1, 3, 0]], strict=True):
        data = read_label_volume(case.label).data
        assert data[1, 1, 1:4].tolist() == blocks
    (source / "names.csv").write_text("1,liver\n")  # its value stays, and the others go
    choose(source, tmp_path / "one", ["liver"], options)
    cases = read_dataset(tmp_path / "one").training
    assert [np.unique(read_label_volume(case.label).data).tolist() for case in cases] == [[0, 1], [0]]


def test_segments_of_slicer_are_chosen(source, tmp_path):
    for case in ("P1", "P2"):
        put_image(source / f"{case}.nrrd")
        put_segments(source / f"{case}.seg.nrrd", {"liver": 1, "vein, portal": 2})
    call = ["convert", "folders", str(source), str(tmp_path / "out"), "--labels", str(source), "--channels", "CT"]
    assert main([*call, "--structures", '"Vein, portal"']) == 0
    assert check(tmp_path / "out").labels.structures == ("Vein, portal",)
    assert np.count_nonzero(read_label_volume(check(tmp_path / "out").training[0].label).data) == 6


def test_names_of_segments_are_read_once_to_find_the_cases(source, monkeypatch):
    for case in ("P1", "P2"):
        put_image(source / f"{case}.nrrd")
        put_segments(source / f"{case}.seg.nrrd", {"liver": 1, "vein": 2})
    asked = []
    monkeypatch.setattr(labelmaps, "segment_names", lambda path: asked.append(path.name) or segment_names(path))
    found = find(source, labels=source, channels=["CT"], structures=["liver"])
    assert [[name for name, _ in case.masks] for case in found.cases] == [["liver"], ["liver"]]
    assert sorted(asked) == ["P1.seg.nrrd", "P2.seg.nrrd"]


def test_bids_masks_of_both_sides_are_two_structures_whatever_describes_them(source, tmp_path):
    put_image(source / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
    for place, name in enumerate(("hemi-L_label-hip", "hemi-R_space-T1w_label-hip_desc-manual", "label-stem_desc-manual"), 1):
        put_mask(source / "derivatives" / "a" / "sub-1" / "anat" / f"sub-1_{name}_mask.nii.gz", np.s_[place])
    convert("bids", source, tmp_path / "out")
    assert set(check(tmp_path / "out").labels.groups) == {"hip_L", "hip_R", "stem"}
    put_label(source / "derivatives" / "a" / "sub-1" / "anat" / "sub-1_hemi-L_label-hip_desc-model_mask.nii.gz", (1,))
    with pytest.raises(DatasetError, match="or leave one in a copy"):
        convert("bids", source, tmp_path / "again")


def test_bids_masks_are_chosen(source, tmp_path):
    put_image(source / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
    for name in ("wm", "gm"):
        put_label(source / "derivatives" / "a" / "sub-1" / "anat" / f"sub-1_label-{name}_mask.nii.gz", (1,))
    convert("bids", source, tmp_path / "out", options={"structures": ["gm"]})
    assert check(tmp_path / "out").labels.groups == {"gm": (1,)}


def test_an_outline_that_makes_regions_of_all_is_said_with_the_remedy(source, tmp_path):
    options = put_cases(source, {"P1": ["a", "b", "c", "BODY"]})
    put_mask(source / "labels" / "P1" / "BODY.nii.gz", np.s_[0:4, 0:6, 0:8])
    made = convert("folders", source / "scans", tmp_path / "all", options=options)
    (said,) = [f for f in made.findings if f.code == "outline"]
    assert said.message == "BODY: overlaps all other structures, so that all 4 become regions"
    assert "--structures" in said.remedy
    made = choose(source, tmp_path / "some", ["c", "b", "a"], options)
    assert not [f for f in made.findings if f.code == "outline"]
    assert not check(tmp_path / "some").labels.has_regions


@pytest.mark.parametrize(
    ("text", "names"), [('b, a,"c, left",b', ("b", "a", "c, left")), ('"a', None), (" ,", None), ("", None)]
)
def test_names_of_structures_with_commas_stand_in_quotes(text, names):
    if names:
        assert quoted(text) == names
    else:
        with pytest.raises(ValueError, match="expected names"):
            quoted(text)
