"""Folders as they come from other people: what lies in them is found, or it is said that it was left."""

import bz2
import errno
import gzip
import json
import os
import struct
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pytest

from autoseg.data.arrivals import Inbox
from autoseg.data.dataset import read_dataset
from autoseg.data.findings import Finding, findings_table
from autoseg.data.labelmaps import find_label_maps, schema_of
from autoseg.data.layouts.found import files_below
from autoseg.data.sources import find_inputs
from autoseg.errors import AutosegError, DatasetError, FileError
from autoseg.imaging.files import read_file, read_label_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.pipeline import evaluate
from tests.helpers.dicom import random_values, write_series

ONE_SIGN, TWO_SIGNS = (unicodedata.normalize(form, "Mélanie") for form in ("NFC", "NFD"))
DATA = np.zeros((4, 5, 6), np.uint8)
DATA[1:3, 1:4, 2:5] = 1
GRID = Geometry.from_spacing(DATA.shape, (1, 1, 1))


def write(folder, *names, data=DATA):
    for name in names:
        write_label_volume(LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1))), folder / name)
    return folder


# Which files are meant.


def test_names_with_accents_are_those_of_one_case_whichever_way_a_system_writes_them(tmp_path):
    write(tmp_path / "labelsTr", f"{TWO_SIGNS}.nii.gz")
    write_volume(Volume(DATA[None].astype(np.float32), GRID), tmp_path / "imagesTr" / f"{ONE_SIGN}_0000.nii.gz")
    text = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(text))
    (case,) = read_dataset(tmp_path).training
    assert case.id == ONE_SIGN
    assert all(path.is_file() for path in (*case.images, case.label))
    assert list(find_label_maps(tmp_path / "labelsTr").maps) == [ONE_SIGN]
    assert [case.id for case in find_inputs(tmp_path / "labelsTr", channels=("CT",)).cases] == [ONE_SIGN]


@pytest.mark.parametrize("name", ["P1.img", "P1.MGZ", "P1.nii.bz2", "P1.gipl.gz"])
def test_images_of_a_kind_that_is_not_read_are_said_beside_others(tmp_path, name):
    (write(tmp_path, "P0.nii.gz") / name).write_bytes(b"anything")
    sentence = f"{name}: a kind of image that is not read; convert it to .nii.gz"
    assert find_label_maps(tmp_path).left_out == (sentence,)
    assert find_inputs(tmp_path, channels=("CT",)).left_out == (sentence,)


@pytest.mark.parametrize("name", ["P1.nii.gz.part", "P1.NII.GZ~", "P1.nii.gz (1)", "P1.mha.crdownload", "P1.nii.gz.json"])
def test_unfinished_downloads_and_copies_of_scans_are_said(tmp_path, name):
    (write(tmp_path, "P0.nii.gz") / name).write_bytes(b"anything")
    said = (f"{name}: more behind the ending of a scan; rename it if it is one, or finish its download",)
    said = () if name.endswith(".json") else said
    assert find_label_maps(tmp_path).left_out == said
    assert find_inputs(tmp_path, channels=("CT",)).left_out == said


@pytest.mark.parametrize("name", ["series.zip", "P1.dcm.gz", "scans.TAR.GZ", "more.7z"])
def test_archives_beside_scans_are_said(tmp_path, name):
    (write(tmp_path, "P0.nii.gz") / name).write_bytes(b"anything")
    sentence = f"{name}: an archive, which is not looked into; unpack it if it holds scans"
    assert find_label_maps(tmp_path).left_out == (sentence,)
    assert find_inputs(tmp_path, channels=("CT",)).left_out == (sentence,)
    (tmp_path / "P0.nii.gz").unlink()
    with pytest.raises(AutosegError, match="unpack it"):
        find_inputs(tmp_path, channels=("CT",))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "found a web page. Download the file again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "found a pointer of Git LFS to it. Fetch the file itself"),
        (b"PK\3\4 and more", "found a zip archive. Unpack it"),
    ],
)
@pytest.mark.parametrize("name", ["P1.nii.gz", "P1.nrrd", "P1.png"])
def test_what_a_download_left_in_place_of_a_scan_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=f"{name}: expected an image, {message}"):
        read_file(tmp_path / name)


def test_a_file_that_was_packed_twice_is_said_to_be_so(tmp_path):
    path = write(tmp_path, "P1.nii.gz") / "P1.nii.gz"
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(FileError, match="P1.nii.gz: expected a file packed once, found one packed twice by gzip"):
        read_file(path)


def test_a_prediction_called_nearly_as_the_reference_is_named(tmp_path):
    write(tmp_path / "truth", "P1_gt.nii.gz", "P2_gt.nii.gz")
    write(tmp_path / "predicted", "P1.nii.gz", "p2_pred.nii.gz")
    report = evaluate(tmp_path / "truth", tmp_path / "predicted", tmp_path / "out")
    for failure, other in zip(report.failures, ("P1", "p2_pred"), strict=True):
        assert f"The prediction {other} has no reference: if it is meant, give both the same name" in failure.reason


def test_a_description_of_the_older_form_beside_label_maps_is_refused_by_its_name(tmp_path):
    write(tmp_path / "labelsTr", "P1.nii.gz")
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "background", "1": "liver"}}')
    with pytest.raises(DatasetError, match=r"dataset\.json: .* older form .*autoseg convert msd.* --labels"):
        evaluate(tmp_path / "labelsTr", tmp_path / "labelsTr", tmp_path / "out")


def test_predictions_are_the_label_maps_of_their_folder_whatever_their_endings(tmp_path):
    reference = write(tmp_path / "reference", *(f"P{number}.nii.gz" for number in range(5)))
    predicted = write(tmp_path / "predicted", "P0.nii.gz", "P1.nii.gz", "P2.nrrd", "P4.nii.gz", "elsewhere.nii.gz")
    (predicted / "P4.nii.gz").rename(predicted / "P4.NII.GZ")
    (predicted / "P2.nrrd").rename(predicted / "P2.seg.nrrd")
    report = evaluate(reference, predicted, tmp_path / "scores")
    assert sorted(report.cases) == ["P0", "P1", "P2", "P4"]
    assert [failure.case for failure in report.failures] == ["P3"]
    assert report.not_scored == ("elsewhere",)
    assert "Without a reference: 1 prediction (elsewhere)" in (tmp_path / "scores" / "metrics.md").read_text()


def test_what_is_passed_over_beside_predictions_and_references_is_a_warning(tmp_path, caplog):
    reference = write(tmp_path / "reference", "P0.nii.gz", "P0.png", data=DATA[1:2])
    predicted = write(tmp_path / "predicted", "P0.nii.gz", data=DATA[1:2])
    (predicted / "P1.mgz").write_bytes(b"anything")
    evaluate(reference, predicted, tmp_path / "scores")
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == [
        "left out: P0.png: pictures beside volumes are taken to be views of them",
        "left out: P1.mgz: a kind of image that is not read; convert it to .nii.gz",
    ]


# What is in them.


def test_maps_of_background_alone_are_not_called_unreadable(tmp_path):
    maps = find_label_maps(write(tmp_path, "P0.nii.gz", data=DATA * 0)).maps
    with pytest.raises(DatasetError, match=r"found nothing but background \(0\)"):
        schema_of(tmp_path, maps)


def test_label_values_that_float32_does_not_tell_apart_are_refused(tmp_path):
    values = np.where(DATA, 614454277, 0).astype(np.float32)  # of the Allen atlas; float32 makes it 614454272
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "P0.nii")
    with pytest.raises(FileError, match="float32 holds exactly, up to 16777216; found 614454272"):
        read_label_volume(tmp_path / "P0.nii")
    nibabel.save(nibabel.Nifti1Image(np.where(DATA, 2**24, 0).astype(np.float32), np.eye(4)), tmp_path / "P0.nii")
    assert read_label_volume(tmp_path / "P0.nii").data.max() == 2**24


def without_forms(path, *pixdim, shape=DATA.shape):
    """A NIfTI of which only these voxel sizes along x, y and z are known."""
    image = nibabel.Nifti1Image(np.zeros(shape[::-1], np.uint8), None)
    content = bytearray(image.to_bytes())
    content[80:92] = struct.pack("<3f", *pixdim)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


@pytest.mark.parametrize("length", [0.0, float("nan"), float("inf")])
def test_voxels_of_no_size_are_refused_where_nothing_else_tells_it(tmp_path, length):
    with pytest.raises(FileError, match="expected voxel sizes above 0 mm in pixdim"):
        read_file(without_forms(tmp_path / "P0.nii.gz", 1.0, 1.0, length))


@pytest.mark.parametrize("length", [0.0, float("nan")])
def test_a_single_slice_without_thickness_is_read_with_a_note(tmp_path, length):
    found = read_file(without_forms(tmp_path / "P0.nii.gz", 0.5, 0.5, length, shape=(1, 5, 6)))
    assert found.geometry.spacing_mm == pytest.approx((1, 0.5, 0.5))
    assert "The voxel size along z, where there is one voxel, is not given; 1 mm is assumed." in found.notes


def test_a_packing_that_cannot_be_read_is_named(tmp_path):
    head = "NRRD0005\ntype: uchar\ndimension: 3\nsizes: 6 5 4\nencoding: bzip2\n\n"
    (tmp_path / "P0.nrrd").write_bytes(head.encode() + bz2.compress(DATA.tobytes()))
    with pytest.raises(FileError, match="found bzip2. Save it again with gzip"):
        read_file(tmp_path / "P0.nrrd")


def test_a_case_with_several_findings_of_one_kind_is_named_once():
    findings = [Finding("error", "P0", "constant", f"channel {n}: found 0 everywhere", "Export it.") for n in range(3)]
    findings += [Finding("error", "P1", "constant", "channel 0: found 0 everywhere", "Export it.")]
    table = findings_table(findings)
    assert "the same in P1\n" in table
    assert "with other numbers in P0 (2 times)\n" in table


def close(folder, file, monkeypatch):
    """Take the right to look into a folder and to open a file, also from root."""
    scandir, access = os.scandir, os.access

    def refusing(path="."):
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    monkeypatch.setattr(os, "access", lambda path, mode: path != file and access(path, mode))


def test_what_cannot_be_opened_in_a_tree_of_patients_is_said(tmp_path, monkeypatch, caplog):
    for number in (1, 2):
        write_series(tmp_path / f"p{number}", random_values(seed=number), SeriesInstanceUID=f"1.9.{number}")
    (tmp_path / "p1" / "IM0009").write_bytes(b"nobody knows")
    (tmp_path / "p1" / ".hidden").symlink_to(tmp_path / "nothing")
    close(tmp_path / "p2", tmp_path / "p1" / "IM0009", monkeypatch)
    found = find_inputs(tmp_path, channels=["CT"])
    assert [case.id for case in found.cases] == ["p1_s7"]
    assert found.left_out == (
        "1 file closed, damaged, or not DICOM despite the name, such as IM0009",
        "1 folder that cannot be read (Permission denied)",
    )
    inbox = Inbox(tmp_path)
    assert [list(inbox.arrived(now)) for now in (0.0, 1.0)] == [[], []]
    closed = "left out: p2: a folder that cannot be read (Permission denied). Change its permissions"
    assert caplog.messages == [closed, "left out: IM0009: not a readable DICOM image"]
    files_below(tmp_path)
    assert caplog.messages[2:] == [closed]
