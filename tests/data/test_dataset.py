import json

import pytest

from autoseg.data.check import check_dataset
from autoseg.data.dataset import guess_patient, guess_patients, read_dataset
from autoseg.data.splits import read_splits
from autoseg.errors import DatasetError
from tests.helpers.datasets import Folder

PLAIN = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}


def make(folder, files, description=PLAIN):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_cases_are_sorted_and_know_their_files(tmp_path):
    folder = make(tmp_path / "Dataset007_Liver", ["imagesTr/b_0000.nii.gz", "imagesTr/a_0000.nii.gz", "labelsTr/b.nii.gz"])
    dataset = read_dataset(folder)
    assert dataset.name == "Liver"
    assert [case.id for case in dataset.training] == ["a", "b"]
    assert dataset.training[1].images == (folder / "imagesTr/b_0000.nii.gz",)
    assert dataset.training[0].label == folder / "labelsTr/a.nii.gz", "the file may be missing: the check tells"
    assert dataset.test == ()
    assert dataset.num_training is None


def test_a_relative_folder_gives_absolute_paths(tmp_path, monkeypatch):
    make(tmp_path / "X", ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"])
    monkeypatch.chdir(tmp_path)
    dataset = read_dataset("X")
    assert dataset.training[0].images[0].is_absolute()
    assert (dataset.folder, dataset.name) == (tmp_path / "X", "X")


def test_a_case_of_several_channels_lists_all_of_them_present_or_not(tmp_path):
    two = PLAIN | {"channel_names": {"0": "T1", "1": "T2"}}
    files = ["imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz", "labelsTr/a.nii.gz"]
    dataset = read_dataset(make(tmp_path, files, two))
    assert [len(case.images) for case in dataset.training] == [2, 2]


def test_where_only_0000_exists_one_file_carries_all_channels(tmp_path):
    colour = PLAIN | {"channel_names": {"0": "red", "1": "green", "2": "blue"}}
    dataset = read_dataset(make(tmp_path, ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], colour))
    assert len(dataset.training[0].images) == 1


def test_eleven_channels_keep_their_numbers(tmp_path):
    many = PLAIN | {"channel_names": {str(i): f"c{i}" for i in reversed(range(11))}}
    dataset = read_dataset(make(tmp_path, ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], many))
    assert dataset.channels == tuple(f"c{i}" for i in range(11))


def test_test_cases_have_a_label_only_where_there_is_one(tmp_path):
    files = ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz", "imagesTs/c_0000.nii.gz"]
    dataset = read_dataset(make(tmp_path, [*files, "labelsTs/c.nii.gz"]))
    assert [(case.id, case.label is not None) for case in dataset.test] == [("b", False), ("c", True)]


def test_patients_come_from_dataset_json_first(tmp_path):
    files = ["imagesTr/p1_frame1_0000.nii.gz", "imagesTr/p1_frame2_0000.nii.gz", "labelsTr/p1_frame1.nii.gz"]
    dataset = read_dataset(make(tmp_path, files, PLAIN | {"patients": {"p1_frame2": "somebody else"}}))
    assert [case.patient for case in dataset.training] == ["p1", "somebody else"]


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("patient001_frame12", "patient001"),
        ("sub-07_ses-2", "sub-07"),
        ("p3-ED", "p3"),
        ("BraTS-GLI-00005-001", "BraTS-GLI-00005"),
        ("p4_pre", "p4"),
        ("P5-followup2", "P5"),
        ("p6_20240131", "p6"),
        ("sub-07_ses-2_run-1", "sub-07"),
        ("knee8_left", "knee8"),
        ("knee8-R", "knee8"),
        ("9_t2_SPACE", "9"),
        ("p10_CT", "p10"),
        ("p10_2024-01-31_T1w", "p10"),
        ("cells_20240131", "cells_20240131"),
        ("FLARE22_Tr_0001", "FLARE22_Tr_0001"),
        ("s0011", "s0011"),
        ("hippocampus_003", "hippocampus_003"),
        ("brain_scan_12", "brain_scan_12"),
        ("scan_12", "scan_12"),
        ("pt_1", "pt_1"),
        ("BraTS2021_00006", "BraTS2021_00006"),
        ("0512_red", "0512_red"),
    ],
)
def test_the_patient_is_read_from_the_name_only_where_a_number_is_left(case, patient):
    assert guess_patient(case) == patient


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {}}, "channel_names"),
        ({"channel_names": ["CT"]}, "channel_names"),
        ({"channel_names": {"1": "CT"}}, "number the channels from 0"),
        ({"channel_names": {"CT": "0"}}, "number the channels from 0"),
        ({"file_ending": "nii.gz"}, "file_ending"),
        ({"file_ending": None}, "file_ending"),
        ({"labels": [1, 2]}, "labels"),
        ({"labels": {"0": "background", "1": "a"}}, "dataset.json: labels: .*older form"),
        ({"patients": ["a"]}, "patients"),
        ({"dataset": [1]}, '"dataset" must be an object'),
        ({"dataset": {"a": {"images": ["x"]}}}, "case 'a'"),
        ({"dataset": {"a": {"images": [], "label": "x"}}}, "case 'a'"),
        ({"dataset": {"a": {"images": [3], "label": "x"}}}, "case 'a'"),
    ],
)
def test_a_key_of_the_wrong_kind_is_named(tmp_path, change, message):
    folder = make(tmp_path, ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], PLAIN | change)
    with pytest.raises(DatasetError, match=message):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["imagesTr/a_0000.nii.gz", "labels/a.nii.gz"], "expected a folder labelsTr, found imagesTr, labels"),
        (["images/a_0000.nii.gz", "labelsTr/a.nii.gz"], "expected a folder imagesTr, found images, labelsTr"),
        (["imagesTr/a_0000.nrrd", "labelsTr/a.nrrd"], "others such as a_0000.nrrd. Correct file_ending"),
        (["imagesTr/a_0000.nii.gz", "labelsTr/a.nii"], "labelsTr: .*others such as a.nii. "),
        (["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"], "found a.nii.gz. Rename it to a_0000.nii.gz"),
        (["imagesTr/a_T1.nii.gz", "labelsTr/a.nii.gz"], "expected images named CASE_0000.nii.gz"),
        (["imagesTr/.DS_Store", "labelsTr/a.nii.gz"], "imagesTr: .*found none"),
    ],
)
def test_a_folder_named_by_other_rules_is_refused_with_the_rule(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message):
        read_dataset(make(tmp_path, files))


def test_what_is_not_json_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no such data-set folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no dataset.json"):
        read_dataset(tmp_path)
    for text in ("{", "[1]", "\x00"):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DatasetError, match="dataset.json"):
            read_dataset(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    make(tmp_path, ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"])
    path = tmp_path / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_dataset(tmp_path).training) == 1


def test_endings_in_capital_letters_are_endings(tmp_path):
    files = ["imagesTr/a_0000.NII.GZ", "labelsTr/a.Nii.gz"]
    (case,) = read_dataset(make(tmp_path, files)).training
    assert case.images[0].is_file()
    assert case.label.is_file()


DAMAGED = {
    "nested deeply": "[" * 100_000,
    "digits without end": '{"labels": {"a": ' + "1" * 5000 + "}}",
    "half a surrogate": '{"channel_names": {"0": "\\ud800"}, "labels": {"a": 1}, "file_ending": ".nii.gz"}',
    "no UTF-8": b"\xff\xfe{}",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["dataset.json", "splits.json"])
def test_a_damaged_document_is_refused_by_its_name(tmp_path, text, name):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=f"{name}: not readable as JSON") as caught:
        read_dataset(tmp_path) if name == "dataset.json" else read_splits(tmp_path / name, ())
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"a": 10**3000}},
        {"labels": {"a": [10**3000, 1]}},
        {"labels": {"a": 1e999}},
        {"labels": {"a": {"b": 1}}},
        {"labels": {"a": [1, 2]}, "regions_class_order": [10**3000]},
        {"channel_names": {"0": "CT", "1": 10**3000, "3": "x"}},
        {"file_ending": 10**3000},
        {"dataset": {"a": {"images": ["\0"], "label": "x"}}},
        {"test": 10**3000},
    ],
)
def test_values_without_sense_are_refused_in_a_short_sentence(tmp_path, change):
    folder = make(tmp_path, ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], PLAIN | change)
    with pytest.raises(DatasetError, match="dataset.json") as caught:
        read_dataset(folder)
    assert len(str(caught.value)) < 600


def test_a_count_of_cases_without_sense_is_a_short_finding(tmp_path):
    folder = make(tmp_path, ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], PLAIN | {"numTraining": 10**3000})
    dataset = read_dataset(folder)
    (finding,) = [finding for finding in check_dataset(dataset, []) if finding.code == "case-count"]
    assert len(finding.message) < 300


@pytest.mark.parametrize("name", ["study2_scan_{:03d}", "cohort1_day_{}"])
def test_a_study_is_no_patient(tmp_path, name):
    cases = [name.format(number) for number in range(1, 7)]
    files = [f"imagesTr/{case}_0000.nii.gz" for case in cases] + [f"labelsTr/{case}.nii.gz" for case in cases]
    dataset = read_dataset(make(tmp_path, files))
    assert [case.patient for case in dataset.training] == sorted(cases)
    assert guess_patients(f"p{i}_frame{j}" for i in range(5) for j in "12")["p3_frame2"] == "p3"


def test_named_patients_are_kept_whatever_the_names_look_like(tmp_path):
    cases = [f"study2_scan_{number}" for number in range(6)]
    files = [f"imagesTr/{case}_0000.nii.gz" for case in cases] + ["labelsTr/study2_scan_0.nii.gz"]
    dataset = read_dataset(make(tmp_path, files, PLAIN | {"patients": {cases[0]: "x", cases[1]: "x"}}))
    assert [case.patient for case in dataset.training][:2] == ["x", "x"]


def test_the_data_set_is_named_where_a_folder_in_it_is_given(tmp_path):
    make(tmp_path, ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"])
    with pytest.raises(DatasetError, match=f"imagesTr: no dataset.json in it, but in the folder above. Give that: {tmp_path}"):
        read_dataset(tmp_path / "imagesTr")


def test_structures_may_be_marked_as_lesions(tmp_path):
    folder = Folder(tmp_path / "Dataset001_A").add("a")
    assert folder.read().lesions == ()
    folder.json["lesions"] = ["second"]
    assert folder.read().lesions == ("second",)
    for wrong in (["third"], "second", [["second"]], [2]):
        folder.json["lesions"] = wrong
        with pytest.raises(DatasetError, match='"lesions" must be a list of structures, of first, second'):
            folder.read()


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        ({"A": ["a", "b"]}, r"case 'A' needs the name of its patient.* found \['a', 'b'\]"),
        ({"a": None, "b": None}, "case 'a' needs the name of its patient.* found None"),
        ({"a": "", "b": "P"}, "case 'a' needs the name of its patient"),
        ({"a.nii.gz": "P", "b": "P"}, "names a.nii.gz; there is no such case, and a has no patient"),
        ({"P": "a", "Q": "b"}, "names P, Q; there is no such case, and a, b have no patient"),
    ],
)
def test_patients_of_another_form_or_of_no_case_are_refused_and_not_guessed(tmp_path, patients, message):
    make(tmp_path, ["imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz"], PLAIN | {"patients": patients})
    for case in "ab":
        (tmp_path / "labelsTr").mkdir(exist_ok=True)
        (tmp_path / "labelsTr" / f"{case}.nii.gz").touch()
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path)
    listed = {case: {"images": [f"{case}.nii.gz"], "label": f"{case}_l.nii.gz"} for case in "ab"}
    make(tmp_path, [], PLAIN | {"dataset": listed, "patients": patients})
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path)


def test_patients_of_cases_that_were_removed_since_do_no_harm(tmp_path):
    files = ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"]
    dataset = read_dataset(make(tmp_path, files, PLAIN | {"patients": {"a": 7, "gone": "P"}}))
    assert [case.patient for case in dataset.training] == ["7"]
