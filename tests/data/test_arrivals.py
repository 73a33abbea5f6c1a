"""What has arrived whole in a folder, by a clock that the test turns."""

import numpy as np
import pytest

from autoseg.data.arrivals import Inbox
from autoseg.imaging.files import write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from tests.helpers.dicom import random_values, write_series


@pytest.fixture
def inbox(tmp_path):
    return Inbox(tmp_path, channels=2, rest_seconds=10)


def keys(inbox, now):
    return [arrival.key for arrival in inbox.arrived(now)]


def put(folder, name, data=b"x"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_scan_is_whole_once_its_files_rest(inbox, tmp_path):
    put(tmp_path, "a_0000.nii.gz")
    put(tmp_path, "a_0001.nii.gz")
    assert keys(inbox, 0) == []
    assert keys(inbox, 9) == []
    put(tmp_path, "a_0001.nii.gz", b"longer")
    assert keys(inbox, 12) == []
    assert keys(inbox, 21.9) == []
    (arrival,) = inbox.arrived(22)
    assert [path.name for path in arrival.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_a_scan_that_was_handled_comes_again_only_when_it_changes(inbox, tmp_path):
    path = put(tmp_path, "a.nii.gz")
    keys(inbox, 0)
    (arrival,) = inbox.arrived(10)
    inbox.handled[arrival.key] = arrival.stamp
    assert keys(inbox, 100) == []
    path.write_bytes(b"mended")
    assert keys(inbox, 200) == []
    assert keys(inbox, 210) == ["a"]


def test_a_channel_that_is_missing_is_waited_for_but_not_for_ever(inbox, tmp_path, caplog):
    put(tmp_path, "a_0000.nii.gz")
    assert [keys(inbox, now) for now in (0, 20, 99)] == [[], [], []]
    assert caplog.messages == ["a: 1 of 2 files are there; waiting for the others"]
    assert keys(inbox, 100) == ["a"]


def test_what_is_no_scan_is_told_once(inbox, tmp_path, caplog):
    for name in ("view.png", "study/b_0000.nii.gz", ".a_0000.nii.gz.part", "notes.txt", "slice.dcm"):
        put(tmp_path, name)
    assert [keys(inbox, now) for now in (0, 20, 200)] == [[], [], []]
    assert sorted(caplog.messages) == [
        "left out: b_0000.nii.gz: in a subfolder, where only DICOM series are looked for",
        "left out: slice.dcm: not a readable DICOM image",
        "left out: view.png: a picture, which the model does not take",
    ]


def test_label_maps_of_scans_are_told_once_and_never_taken_for_scans(tmp_path, caplog):
    inbox = Inbox(tmp_path, rest_seconds=10)
    for name in ("P1_seg.nii.gz", "P1.nii.gz", "P2.seg.nrrd"):
        put(tmp_path, name)
    assert [keys(inbox, now) for now in (0, 10)] == [[], ["P1"]]
    inbox.handled["P1"] = next(inbox.arrived(10)).stamp
    (tmp_path / "P1.nii.gz").unlink()  # a scan that was done and moved away
    assert [keys(inbox, now) for now in (20, 300)] == [[], []]
    assert caplog.messages == [
        "left out: P2.seg.nrrd: a segmentation of 3D Slicer, no scan",
        "left out: P1_seg: a label map, as its name says",
    ]


def test_what_may_be_a_label_map_waits_for_a_scan_but_not_for_ever(tmp_path, caplog):
    def draw(name, values):
        write_volume(Volume(values[None], Geometry.from_spacing(values.shape, (3.0, 1.0, 1.0))), tmp_path / name)

    gtv, inbox = np.zeros((6, 20, 20), np.uint8), Inbox(tmp_path, rest_seconds=10)
    gtv[2:4, 5:12, 5:12] = 1
    draw("A.nii.gz", gtv)
    put(tmp_path, "alone_mask.nii.gz")
    assert [keys(inbox, now) for now in (0, 10, 99, 100)] == [[], [], [], ["A", "alone_mask"]]
    assert caplog.messages == [f"{name}: may be a label map; waiting for its scan" for name in ("A", "alone_mask")]
    caplog.clear()
    draw("CT.nii.gz", np.random.default_rng(0).integers(0, 1200, gtv.shape).astype(np.int16))
    draw("GTV.nii.gz", gtv)
    assert [[key for key in keys(inbox, now) if key not in ("A", "alone_mask")] for now in (101, 111, 121, 300)] == [
        [],
        ["CT"],
        ["CT"],
        ["CT"],
    ]
    assert "left out: GTV: a label map, as its content says" in caplog.messages


def test_a_series_is_whole_when_all_its_images_are_there(tmp_path, caplog):
    inbox, stated = Inbox(tmp_path / "in", rest_seconds=10), {"ImagesInAcquisition": 5}
    write_series(tmp_path / "in" / "study", random_values((5, 6, 7)), **stated)
    last = max((tmp_path / "in" / "study").iterdir())
    last.rename(tmp_path / "last")
    assert [keys(inbox, now) for now in (0, 50)] == [[], []]
    assert caplog.messages[-1].endswith("4 of 5 files are there; waiting for the others")
    (tmp_path / "last").rename(last)
    assert keys(inbox, 60) == []
    (arrival,) = inbox.arrived(70)
    (case,) = arrival.cases
    assert len(case.images[0].paths) == 5
    assert case.id.startswith("study_")


def test_a_series_keeps_its_name_whoever_comes_beside_it(tmp_path):
    inbox, names = Inbox(tmp_path, rest_seconds=1), []
    for number, uid in enumerate(("1.2.3", "1.2.4")):
        order = [10 * number + z for z in range(5)]
        write_series(tmp_path, random_values(), order=order, SeriesInstanceUID=uid)
        keys(inbox, 10 * number)
        names.append({case.id for arrival in inbox.arrived(10 * number + 1) for case in arrival.cases})
    assert [len(found) for found in names] == [1, 2]
    assert names[0] < names[1]
