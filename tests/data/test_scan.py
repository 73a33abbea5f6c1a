"""Each kind of defect has its code; one bad file hides nothing about the others."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from autoseg.data.intensities import _moments
from autoseg.data.scan import CaseScan, scan_case, scan_dataset
from autoseg.imaging.files import read_label_volume, read_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume, orient
from planners.records import from_json, to_json


def scan_one(folder):
    dataset = folder.read()
    return scan_case(dataset.training[0], dataset)


def codes(scan, severity="error"):
    return sorted(finding.code for finding in scan.findings if finding.severity == severity)


def rewrite_image(folder, case, change, channel=0):
    """Replace an image by what ``change`` makes of its array (C, Z, Y, X)."""
    volume = read_volume(folder.image_path(case, channel))
    write_volume(Volume(change(volume.data.copy()), volume.geometry), folder.image_path(case, channel))


def rewrite_label(folder, case, data):
    geometry = read_volume(folder.image_path(case)).geometry
    kind = LabelVolume if data.dtype.kind in "iu" else lambda array, grid: Volume(array[None], grid)
    writer = write_label_volume if data.dtype.kind in "iu" else write_volume
    writer(kind(data, geometry), folder.label_path(case))


def test_a_sound_case_has_no_findings_and_all_its_numbers(make_folder):
    scan = scan_one(make_folder(1, n_channels=2))
    assert scan.findings == ()
    assert scan.usable
    assert (scan.full_shape, scan.spacing_mm, scan.orientation) == ((6, 8, 10), (2.0, 1.0, 1.0), "SAR")
    assert scan.label_counts == ((0, 480 - 48), (1, 24), (2, 24))
    assert [channel.voxels for channel in scan.channels] == [48, 48]


def test_a_scan_survives_json(make_folder):
    scan = scan_one(make_folder(1))
    assert from_json(CaseScan, json.loads(json.dumps(to_json(scan)))) == scan


def test_missing_files_are_named_one_by_one(make_folder):
    folder = make_folder(3, n_channels=2)
    folder.image_path("case_1", 1).unlink()
    folder.label_path("case_2").unlink()
    folder.image_path("case_3", 0).unlink()
    folder.image_path("case_3", 1).unlink()
    scans = scan_dataset(folder.read())
    assert [codes(scan) for scan in scans] == [["missing-channel"], ["missing-label"], ["missing-image"]]
    assert "case_1_0001.nii.gz" in scans[0].findings[0].message
    assert scans[2].label_counts, "the label is read all the same"


def test_the_remedy_for_a_missing_image_knows_the_usual_slips(make_folder):
    folder = make_folder(3)
    folder.image_path("case_1").rename(folder.path / "imagesTr" / "case_1.nii.gz")
    folder.label_path("case_2").rename(folder.path / "labelsTr" / "case_2_0000.nii.gz")
    remedies = {scan.case: scan.findings[0].remedy for scan in scan_dataset(folder.read()) if scan.findings}
    assert remedies["case_1"] == "Rename case_1.nii.gz to case_1_0000.nii.gz."
    assert "rename case_2_0000.nii.gz to case_2.nii.gz" in remedies["case_2_0000"]


def test_labels_of_cases_that_end_in_digits_are_not_to_be_renamed_to_one_name(make_folder):
    folder = make_folder(2)
    for number in (1, 2):
        folder.image_path(f"case_{number}").rename(folder.path / "imagesTr" / f"PANC_000{number}.nii.gz")
        folder.label_path(f"case_{number}").rename(folder.path / "labelsTr" / f"PANC_000{number}.nii.gz")
    assert [scan.findings[0].remedy for scan in scan_dataset(folder.read()) if scan.findings] == [
        f"Rename PANC_000{number}.nii.gz to PANC_000{number}_0000.nii.gz." for number in (1, 2)
    ]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_file_that_was_cut_short_is_unreadable_and_the_others_are_scanned(make_folder, ending):
    folder = make_folder(2, ending=ending)
    path = folder.image_path("case_1")
    path.write_bytes(path.read_bytes()[:-40])
    broken, sound = scan_dataset(folder.read())
    assert codes(broken) == ["unreadable-file"]
    assert broken.channels == ()
    assert codes(sound) == []


def test_a_flipped_bit_in_a_compressed_file_is_noticed(make_folder):
    folder = make_folder(1)
    path = folder.image_path("case_1")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(raw)
    assert codes(scan_one(folder)) == ["unreadable-file"]


def test_text_in_place_of_an_image_is_unreadable(make_folder):
    folder = make_folder(1)
    folder.image_path("case_1").write_text("see e-mail")
    folder.label_path("case_1").write_bytes(b"")
    assert codes(scan_one(folder)) == ["unreadable-file", "unreadable-file"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_intensities_that_are_not_finite_are_counted(make_folder, value):
    folder = make_folder(1)
    rewrite_image(folder, "case_1", lambda data: np.where(np.arange(data.size).reshape(data.shape) < 3, value, data))
    scan = scan_one(folder)
    assert codes(scan) == ["not-finite"]
    assert "3 of 480 voxels" in scan.findings[0].message


def test_a_constant_image_is_an_error_and_a_constant_channel_a_warning(make_folder):
    folder = make_folder(1, n_channels=2)
    rewrite_image(folder, "case_1", lambda data: np.full_like(data, 7), channel=1)
    scan = scan_one(folder)
    assert (codes(scan), codes(scan, "warning")) == ([], ["constant-image"])
    assert scan.channels[1].unit_std == 0
    rewrite_image(folder, "case_1", np.zeros_like, channel=0)
    assert codes(scan_one(folder)) == ["constant-image", "constant-image"]


def test_channels_are_counted_over_all_files(make_folder):
    folder = make_folder(1)
    folder.json["channel_names"] = {"0": "red", "1": "green"}
    scan = scan_one(folder)
    assert codes(scan) == ["channel-count"]
    assert "expected 2 channels (red, green), found 1 in 1 file" in scan.findings[0].message
    rewrite_image(folder, "case_1", lambda data: np.concatenate([data, data + np.arange(10)]))
    assert codes(scan_one(folder)) == [], "one 4D file carries both"


def test_a_label_of_another_shape_is_a_mismatch(make_folder):
    folder = make_folder(1)
    write_label_volume(
        LabelVolume(np.ones((6, 8, 9), np.uint8), Geometry.from_spacing((6, 8, 9), (2, 1, 1))),
        folder.label_path("case_1"),
    )
    scan = scan_one(folder)
    assert codes(scan) == ["grid-mismatch"]
    assert "6x8x10 voxels" in scan.findings[0].message
    assert "6x8x9 voxels" in scan.findings[0].message


@pytest.mark.parametrize(
    ("shift_mm", "spacing_mm", "severity", "code"),
    [
        (0.005, (2, 1, 1), None, None),
        (0.3, (2, 1, 1), "warning", "grid-shift"),
        (0.8, (2, 1, 1), "error", "grid-mismatch"),
        (30, (2, 1, 1), "error", "grid-mismatch"),
        (0, (2, 1, 1.2), "error", "grid-mismatch"),
        (0, (2.001, 1, 1), None, None),
    ],
)
def test_the_grid_of_a_label_may_differ_by_rounding_only(make_folder, shift_mm, spacing_mm, severity, code):
    folder = make_folder(1)
    geometry = Geometry.from_spacing((6, 8, 10), spacing_mm)
    affine = geometry.affine
    affine[0, 3] += shift_mm
    label = np.zeros(geometry.shape, np.uint8)
    label[2:4, 2:4, 2:4] = 1
    write_label_volume(LabelVolume(label, Geometry.from_affine(geometry.shape, affine)), folder.label_path("case_1"))
    found = [(finding.severity, finding.code) for finding in scan_one(folder).findings]
    assert found == ([] if code is None else [(severity, code)])


def test_files_of_a_case_whose_axes_run_otherwise_are_turned_to_the_image_and_this_is_said(make_folder):
    folder = make_folder(1, n_channels=2)
    (case,) = folder.read().training
    straight = scan_one(folder)
    image, label = read_volume(case.images[1]), read_label_volume(case.label)
    order, flips = (1, 2, 0), (0, 2)
    grid = image.geometry.oriented(order, flips)
    write_volume(Volume(orient(image.data, order, flips), grid), case.images[1])
    write_label_volume(LabelVolume(orient(label.data, order, flips), grid), case.label)
    turned = scan_one(folder)
    assert codes(turned, "note") == ["reader-note", "reader-note"]
    assert turned.findings[1].message == (
        "case_1.nii.gz: the axes run PRI, those of the scan SAR. The voxels are the same, and were reoriented to the scan."
    )
    assert (turned.label_counts, turned.contents) == (straight.label_counts, straight.contents), "voxel by voxel"
    assert (read_volume(case.images).data[1] == image.data[0]).all()


def test_a_label_whose_voxels_lie_elsewhere_once_turned_is_a_mismatch(make_folder):
    folder = make_folder(1)
    geometry = Geometry.from_spacing((6, 8, 10), (2, 1, 1))
    affine = geometry.affine
    affine[:, 2] *= -1  # x runs the other way from the same corner, as in headers that somebody made up
    label = LabelVolume(np.ones(geometry.shape, np.uint8), Geometry.from_affine(geometry.shape, affine))
    write_label_volume(label, folder.label_path("case_1"))
    assert codes(scan_one(folder)) == ["grid-mismatch"]


def test_channels_on_different_grids_are_an_error(make_folder):
    folder = make_folder(1, n_channels=2)
    data = read_volume(folder.image_path("case_1", 1)).data
    affine = Geometry.from_spacing((6, 8, 10), (2, 1, 1)).affine
    affine[:3, 3] += 0.1
    write_volume(Volume(data, Geometry.from_affine(data.shape[1:], affine)), folder.image_path("case_1", 1))
    scan = scan_one(folder)
    assert codes(scan) == ["grid-mismatch"], "read_volume would refuse them"
    assert "case_1_0001" in scan.findings[0].message


def test_undeclared_values_are_listed(make_folder):
    folder = make_folder(1)
    label = np.zeros((6, 8, 10), np.int16)
    label[3, 3, :4] = 1, 2, 5, -3
    rewrite_label(folder, "case_1", label)
    scan = scan_one(folder)
    assert codes(scan) == ["undeclared-label"]
    assert "expected values among [0, 1, 2], found -3, 5 in 2 voxels" in scan.findings[0].message
    assert scan.label_counts == ((-3, 1), (0, 476), (1, 1), (2, 1), (5, 1))


def test_the_value_to_ignore_is_declared_and_is_no_structure(make_folder):
    folder = make_folder(1)
    folder.json["labels"]["ignore"] = 9
    rewrite_label(folder, "case_1", np.full((6, 8, 10), 9, np.uint8))
    scan = scan_one(folder)
    assert (codes(scan), codes(scan, "warning")) == ([], ["empty-label"])
    assert scan.channels[0].voxels == 480, "statistics count every voxel that has a label other than 0"


def test_an_empty_label_is_a_warning_and_gives_no_foreground_statistics(make_folder):
    folder = make_folder(1)
    rewrite_label(folder, "case_1", np.zeros((6, 8, 10), np.uint8))
    scan = scan_one(folder)
    assert (codes(scan), codes(scan, "warning")) == ([], ["empty-label"])
    assert scan.channels[0].voxels == 0
    assert scan.channels[0].sketch == ()
    assert scan.channels[0].unit_std > 0


@pytest.mark.parametrize("odd", [0.5, np.nan, np.inf])
def test_a_label_with_fractions_is_an_error_and_whole_floats_are_not(make_folder, odd):
    folder = make_folder(1)
    label = np.zeros((6, 8, 10), np.float32)
    label[2] = 2
    rewrite_label(folder, "case_1", label)
    assert codes(scan_one(folder)) == []
    label[4, 4, 4] = odd
    rewrite_label(folder, "case_1", label)
    scan = scan_one(folder)
    assert codes(scan) == ["label-not-integer"]
    assert f"{odd:.6g}" in scan.findings[0].message


def test_a_label_of_several_channels_is_an_error(make_folder):
    folder = make_folder(1)
    geometry = Geometry.from_spacing((6, 8, 10), (2, 1, 1))
    write_volume(Volume(np.ones((2, 6, 8, 10), np.float32), geometry), folder.label_path("case_1"))
    assert codes(scan_one(folder)) == ["label-channels"]


def test_values_far_apart_are_counted_too(make_folder):
    folder = make_folder(1)
    label = np.zeros((6, 8, 10), np.int32)
    label[0, 0, :2] = 3_000_000, -7
    rewrite_label(folder, "case_1", label)
    assert scan_one(folder).label_counts == ((-7, 1), (0, 478), (3_000_000, 1))


def test_sizes_are_canonical_and_cropped_to_what_is_not_zero(make_folder):
    image = np.zeros((20, 10, 30), np.float32)
    image[2:10, 1:9, 5:8] = np.random.default_rng(0).normal(50, 5, (8, 8, 3))
    label = (image > 50).astype(np.uint8)
    stored = Geometry.from_spacing((20, 10, 30), (1, 2, 3)).transposed((2, 0, 1)).flipped([0])  # axes x, z, y
    move = lambda array: np.flip(array.transpose(2, 0, 1), 0)  # noqa: E731
    folder = make_folder().add("a", image=move(image), label=np.ascontiguousarray(move(label)), geometry=stored)
    scan = scan_one(folder)
    assert scan.findings == ()
    assert (scan.full_shape, scan.shape, scan.spacing_mm) == ((20, 10, 30), (8, 8, 3), (1.0, 2.0, 3.0))
    assert scan.relative_crop == pytest.approx(8 * 8 * 3 / 6000)
    assert scan.orientation == "LSA"


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_channel_statistics_equal_those_of_numpy(make_folder, kind):
    rng = np.random.default_rng(1)
    image = (rng.gamma(2, 20, (30, 40, 50)).clip(0, 255) * (rng.random((30, 40, 50)) > 0.3)).astype(kind)
    label = (rng.random(image.shape) > 0.9).astype(np.uint8)
    scan = scan_one(make_folder().add("a", image=image, label=label))
    channel, values = scan.channels[0], image[label > 0].astype(np.float64)
    low, high = np.percentile(image[image != 0].astype(np.float64), [0.5, 99.5])
    unit = (np.clip(image, low, high) - low) / (high - low)
    assert channel.voxels == values.size
    assert [channel.mean, channel.variance] == pytest.approx([values.mean(), values.var()], rel=1e-9)
    assert [channel.minimum, channel.maximum] == [values.min(), values.max()]
    assert [channel.low, channel.high] == pytest.approx([low, high])
    assert [channel.unit_mean, channel.unit_std] == pytest.approx([unit.mean(), unit.std()], rel=1e-6)
    middle = len(channel.sketch) // 2
    assert channel.sketch[middle] == pytest.approx(np.median(values), abs=0.01)


def test_moments_survive_a_mean_far_from_zero_and_many_blocks(monkeypatch):
    values = 1e7 + np.random.default_rng(0).normal(0, 1, (50, 7, 9))
    monkeypatch.setattr("autoseg.data.intensities.BLOCK", 200)
    assert _moments(values) == pytest.approx((values.mean(), values.var()), rel=1e-9)
    assert _moments(values.ravel(), 1e7, 1e7 + 1) == pytest.approx(
        (np.clip(values, 1e7, 1e7 + 1).mean(), np.clip(values, 1e7, 1e7 + 1).var()), rel=1e-9
    )


def test_an_earlier_scan_is_used_again_only_while_nothing_changed(make_folder):
    folder = make_folder(3)
    dataset = folder.read()
    marked = [dataclasses.replace(scan, orientation="old") for scan in scan_dataset(dataset)]
    assert scan_dataset(dataset, known=marked) == tuple(marked)
    rewrite_image(folder, "case_2", lambda data: data + 1)
    assert [scan.orientation for scan in scan_dataset(dataset, known=marked)] == ["old", "SAR", "old"]
    folder.json["labels"]["third"] = 3
    assert [scan.orientation for scan in scan_dataset(folder.read(), known=marked)] == ["SAR"] * 3


def test_threads_change_nothing(make_folder):
    dataset = make_folder(5).read()
    done = []
    assert scan_dataset(dataset, workers=3, on_done=done.append) == scan_dataset(dataset)
    assert sorted(outcome.name for outcome in done) == [case.id for case in dataset.training]


def test_a_fault_of_our_own_is_a_finding_about_the_case(make_folder, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of order")

    monkeypatch.setattr("autoseg.data.scan._measure", fail)
    (scan,) = scan_dataset(make_folder(1).read())
    assert codes(scan) == ["scan-failed"]
    assert "out of order" in scan.findings[0].message


def test_a_new_copy_of_a_case_that_was_scanned_by_an_early_version_is_recognised(make_folder):
    folder = make_folder(2)
    early = tuple(scan_case(case, folder.read(), as_before=True) for case in folder.read().training)
    for path_of in (folder.image_path, folder.label_path):
        shutil.copy(path_of("case_1"), path_of("case_3"))
    scans = scan_dataset(folder.read(), known=early)
    assert scans[:2] == early
    assert scans[2].contents == early[0].contents
    assert scans[2].contents != scan_case(folder.read().training[2], folder.read()).contents
