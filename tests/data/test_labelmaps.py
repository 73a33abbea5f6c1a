"""Which label maps lie in a folder, and what their values mean: one answer for every verb."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.labelmaps import completed, find_label_maps, label_maps, named_labels, schema_of
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, DatasetError, FileError
from autoseg.imaging.files import FORMATS, PICTURES, read_label_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume


def write(path, values=(0, 1), description=""):
    """A map of one row of these values."""
    data = np.array(values, np.int32).reshape(1, 1, -1)
    write_label_volume(LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1))), path, description=description)
    return path


@pytest.mark.parametrize("ending", [ending for ending in FORMATS if ending not in (".jpg", ".jpeg")])
@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_a_map_is_known_by_any_ending_in_small_and_capital_letters(tmp_path, ending, change):
    write(tmp_path / f"a{ending}")
    (tmp_path / f"a{ending}").rename(tmp_path / f"P1{change(ending)}")
    write(tmp_path / f".hidden{ending}")
    assert label_maps(tmp_path) == {"P1": tmp_path / f"P1{change(ending)}"}


def test_users_own_files_that_end_in_iso_are_cases(tmp_path):
    for name in ("pat1", "pat1_iso", "pat2", "pat2_iso_cubic"):
        write(tmp_path / f"{name}.nii.gz")
    assert sorted(label_maps(tmp_path)) == ["pat1", "pat1_iso", "pat2", "pat2_iso_cubic"]


@pytest.mark.parametrize("suffix", ["_iso", "_iso_cubic"])
def test_what_is_derived_of_a_case_is_known_by_its_record(tmp_path, suffix):
    write(tmp_path / "pat1.nii.gz")
    write(tmp_path / f"pat1{suffix}.nii.gz")
    record = {"made_by": "autoseg predict", "outputs": {"pat1.nii.gz": "0", f"pat1{suffix}.nii.gz": "1"}}
    (tmp_path / "pat1.json").write_text(json.dumps(record))
    found = find_label_maps(tmp_path)
    assert sorted(found.maps) == ["pat1"]
    assert found.left_out == (f"pat1{suffix}.nii.gz: derived from another file, as its record or its header says",)
    (tmp_path / "pat1.json").write_text(json.dumps(record | {"made_by": "somebody"}))
    assert len(label_maps(tmp_path)) == 2


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_what_is_derived_of_a_case_is_known_by_its_header(tmp_path, ending):
    write(tmp_path / f"pat1{ending}")
    write(tmp_path / f"pat1_iso{ending}", description="derived: labels on cubic voxels by their shapes")
    assert sorted(label_maps(tmp_path)) == ["pat1"]
    (tmp_path / f"pat1{ending}").unlink()
    assert sorted(label_maps(tmp_path)) == ["pat1_iso"]  # a folder of nothing else is what somebody means


def test_pictures_count_only_without_volumes_and_are_said(tmp_path):
    write(tmp_path / "a.png")
    assert sorted(label_maps(tmp_path)) == ["a"]
    write(tmp_path / "b.nii.gz")
    found = find_label_maps(tmp_path)
    assert sorted(found.maps) == ["b"]
    assert found.left_out[0].startswith("a.png: pictures")


def test_of_two_files_of_a_case_the_ending_of_most_counts_and_the_other_is_said(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz", "a.nrrd"):
        write(tmp_path / name)
    found = find_label_maps(tmp_path)
    assert found.maps == {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.nii.gz"}
    assert found.left_out == ("a.nrrd: another file of the same case, of an ending that more files have, counts",)


def test_beside_segmentations_of_slicer_plain_nrrd_are_scans(tmp_path):
    write(tmp_path / "P1.nrrd")
    write(tmp_path / "P1.seg.nrrd")
    write(tmp_path / "P2.nrrd")
    write(tmp_path / "P3.nii.gz")
    found = find_label_maps(tmp_path)
    assert found.maps == {"P1": tmp_path / "P1.seg.nrrd", "P3": tmp_path / "P3.nii.gz"}
    assert found.left_out == ("P1.nrrd and 1 more: beside segmentations (.seg.nrrd) taken to be scans",)


def test_a_segmentation_that_was_made_of_the_map_beside_it_is_no_map_until_it_is_edited(tmp_path):
    derived = write(tmp_path / "P1.seg.nrrd", description="derived: segments of the label map beside it")
    plain = write(tmp_path / "P1.nrrd")
    assert label_maps(tmp_path) == {"P1": derived}  # may be the scan, of which nothing is said
    record = {"made_by": "autoseg predict", "outputs": {"P1.nrrd": "0", "P1.seg.nrrd": "1"}}
    (tmp_path / "P1.json").write_text(json.dumps(record))
    found = find_label_maps(tmp_path)
    assert (found.maps, found.left_out) == ({"P1": plain}, ("P1.seg.nrrd: made from the label maps beside them",))
    write(derived)
    assert label_maps(tmp_path) == {"P1": derived}


def test_a_folder_of_dicom_counts_where_there_is_nothing_else(tmp_path):
    (tmp_path / "a.DCM").write_bytes(b"")
    assert label_maps(tmp_path) == {"a": tmp_path / "a.DCM"}
    write(tmp_path / "b.nii.gz")
    found = find_label_maps(tmp_path)
    assert (sorted(found.maps), found.left_out) == (["b"], ("a.DCM: DICOM beside label maps of other kinds",))


def test_of_a_data_set_folder_the_labels_of_its_cases(tmp_path):
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
    grid = Geometry.from_spacing((1, 1, 2), (1, 1, 1))
    write_volume(Volume(np.zeros((1, 1, 1, 2), np.float32), grid), tmp_path / "imagesTr/a_0000.nii.gz")
    label = write(tmp_path / "labelsTr/a.nii.gz")
    about = {"channel_names": {"0": "CT"}, "labels": {"liver": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    assert label_maps(tmp_path) == {"a": label}


def test_a_missing_folder_is_refused_and_an_empty_one_is_empty(tmp_path):
    assert label_maps(tmp_path) == {}
    with pytest.raises(AutosegError, match="there is no such folder"):
        label_maps(tmp_path / "nowhere")
    (tmp_path / "P1.nii.gz").touch()
    with pytest.raises(AutosegError, match=r"P1\.nii\.gz: expected a folder of label maps, found a file"):
        label_maps(tmp_path / "P1.nii.gz")


def test_without_names_each_value_of_all_maps_is_a_structure(tmp_path):
    maps = {"a": write(tmp_path / "a.nii.gz", (0, 1, 7))}
    other = write(tmp_path / "other.nii.gz", (0, 7, 9, 614454277))
    assert schema_of(tmp_path, maps).groups == {"label 1": (1,), "label 7": (7,)}
    assert schema_of(tmp_path, maps, also=[other]).values == ((1,), (7,), (9,), (614454277,))
    assert named_labels(tmp_path, maps) is None


def test_maps_without_a_structure_are_refused(tmp_path):
    maps = {"a": write(tmp_path / "a.nii.gz", (0, 0))}
    (tmp_path / "b.nii.gz").write_text("no image")
    with pytest.raises(DatasetError, match="with structures, found nothing but background"):
        schema_of(tmp_path, maps, also=[tmp_path / "b.nii.gz"])


def test_a_dataset_json_names_the_values_the_nearest_one(tmp_path):
    maps = {"a": write(tmp_path / "labelsTr/a.nii.gz", (0, 1, 7))}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "ignore": 7}}))
    for folders in (tmp_path / "labelsTr", [tmp_path / "labelsTr", tmp_path]):
        schema = schema_of(folders, maps)
        assert (schema.groups, schema.ignore) == ({"liver": (1,)}, 7)
    (tmp_path / "labelsTr/dataset.json").write_text(json.dumps({"labels": {"spleen": 1}}))
    assert schema_of(tmp_path / "labelsTr", maps).structures == ("spleen",)
    assert schema_of(tmp_path / "labelsTr", maps, labels=tmp_path / "dataset.json").structures == ("liver",)


@pytest.mark.parametrize("text", ["{}", "[]", '{"labels": [1]}', "{"])
def test_a_file_that_names_no_labels_is_refused_by_name(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(AutosegError, match=str(tmp_path / "dataset.json")):
        schema_of(tmp_path, {"a": write(tmp_path / "a.nii.gz")})
    with pytest.raises(AutosegError, match="no such file"):
        schema_of(tmp_path, {}, labels=tmp_path / "nowhere.json")


def test_predictions_are_named_by_their_records(tmp_path):
    maps = {"a": write(tmp_path / "a.nii.gz"), "b": write(tmp_path / "b.nii.gz")}
    for case in maps:
        record = {"made_by": "autoseg predict", "labels": {"tumour": 2, "organ": [1, 2]}}
        (tmp_path / f"{case}.json").write_text(json.dumps(record))
    assert schema_of(tmp_path, maps).groups == {"tumour": (2,), "organ": (1, 2)}
    schema = LabelSchema(("tumour", "organ"), ((2,), (1, 2)), True, (2, 1))
    (tmp_path / "run.json").write_text(json.dumps({"made_by": "autoseg predict", "labels": asdict(schema)}))
    assert schema_of(tmp_path, maps) == schema
    other = {"made_by": "autoseg predict", "labels": asdict(LabelSchema(("organ",), ((1,),), False, (1,)))}
    (tmp_path / "run.json").write_text(json.dumps(other))  # of a later run with another model
    assert named_labels(tmp_path, maps) is None
    (tmp_path / "run.json").unlink()
    (tmp_path / "b.json").write_text("{")  # damaged: then nothing is sure
    assert schema_of(tmp_path, maps).structures == ("label 1",)


def test_a_schema_is_completed_by_values_that_it_does_not_know():
    schema = LabelSchema(("liver",), ((1,),), False, (1,), ignore=9)
    assert completed(schema, [0, 1, 5, 9, 3]).groups == {"liver": (1,), "label 3": (3,), "label 5": (5,)}
    assert completed(schema, [0, 1, 9]) == schema


@pytest.mark.parametrize("ending", PICTURES)
def test_the_name_of_a_picture_is_that_of_its_case(tmp_path, ending):
    (tmp_path / f"a.b{ending}").write_bytes(b"")
    assert label_maps(tmp_path) == {"a.b": Path(tmp_path / f"a.b{ending}")}


def test_a_link_to_nowhere_or_to_itself_is_a_map_that_fails_and_is_not_left_out(tmp_path):
    write(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "b.nii.gz")
    (tmp_path / "c.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    assert sorted(label_maps(tmp_path)) == ["a", "b", "c"]
    for name in "bc":
        with pytest.raises(FileError, match=f"{name}.nii.gz: expected a readable file"):
            read_label_volume(tmp_path / f"{name}.nii.gz")
    assert schema_of(tmp_path, label_maps(tmp_path)).values == ((1,),)


def test_values_that_only_the_predictions_have_are_a_class_of_their_own(tmp_path):
    maps = {"a": write(tmp_path / "references/a.nii.gz", (0, 1, 0))}
    guess = write(tmp_path / "predictions/a.nii.gz", (0, 1, 2))
    schema = schema_of(tmp_path / "references", maps, also=[guess])
    assert schema.groups == {"label 1": (1,), "label 2": (2,)}
