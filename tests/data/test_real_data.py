"""What the checks say about public data, which is mostly sound, and about damaged copies of it."""

import gzip
import json
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from autoseg.data.check import check_dataset
from autoseg.data.dataset import read_dataset
from autoseg.data.findings import findings_table
from autoseg.data.measure import measure_fingerprint
from autoseg.data.scan import scan_dataset
from autoseg.data.splits import make_splits

DATA = Path(__file__).parents[3] / "shared" / "data"
HIPPOCAMPUS, BROKEN = DATA / "Dataset004_Hippocampus", DATA / "broken_hippocampus"

pytestmark = pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="the public data are not beside the repository")


def counts(findings):
    return Counter((finding.severity, finding.code) for finding in findings)


@pytest.mark.thorough
def test_hippocampus_is_sound_and_three_intensity_scales_make_one_row():
    dataset = read_dataset(HIPPOCAMPUS)
    scans = scan_dataset(dataset)
    findings = check_dataset(dataset, scans)
    assert set(counts(findings)) == {("warning", "intensity-scale")}
    assert findings_table(findings).count("intensity-scale") == 1
    fingerprint = measure_fingerprint(dataset, scans)
    assert fingerprint.n_labels == 3
    assert np.median(fingerprint.shapes, axis=0) == pytest.approx((36, 50, 35), abs=1)
    assert [len(split.validation) for split in make_splits(dataset.training)] == [40] * 5


@pytest.mark.thorough
def test_acdc_says_where_its_voxel_size_comes_from_and_groups_its_patients():
    dataset = read_dataset(DATA / "Dataset027_ACDC")
    scans = scan_dataset(dataset)
    findings = check_dataset(dataset, scans)
    assert counts(findings)["note", "reader-note"] == 80
    assert counts(findings)["note", "patients-guessed"] == 1
    assert not any(finding.severity == "error" or finding.code == "spacing-outlier" for finding in findings)
    assert len(findings_table(findings).splitlines()) < 12
    assert len({case.patient for case in dataset.training}) == 40
    for split in make_splits(dataset.training):
        assert not {case[:10] for case in split.training} & {case[:10] for case in split.validation}
    assert {spacing[0] for spacing in measure_fingerprint(dataset, scans).spacings_mm} <= {5.0, 6.5, 10.0}


@pytest.mark.thorough
def test_head_and_neck_ct_has_nothing_to_report():
    dataset = read_dataset(DATA / "Dataset055_HeadNeckCT")
    assert check_dataset(replace(dataset, training=dataset.training[:20], num_training=None)) == ()


@pytest.mark.thorough
def test_brats_has_four_channels_and_a_label_that_is_never_used():
    dataset = read_dataset(DATA / "Dataset137_BraTS")
    scans = scan_dataset(dataset)
    (finding,) = check_dataset(dataset, scans)
    assert (finding.severity, finding.code) == ("warning", "label-never-present")
    assert "label 3 (unused)" in finding.message
    fingerprint = measure_fingerprint(dataset, scans)
    assert [channel.name for channel in fingerprint.channels] == ["T1", "T1ce", "T2", "FLAIR"]
    assert fingerprint.relative_crop < 0.5


def test_sequences_on_their_own_grids_are_an_error(tmp_path):
    source = DATA / "channels_on_different_grids" / "cases" / "patient01"
    description = {
        "channel_names": {"0": "FLAIR", "1": "T1"},
        "labels": {"background": 0, "lesion": 1},
        "file_ending": ".nii.gz",
        "dataset": {
            "patient01": {
                "images": [str(source / "study1_FLAIR.nii.gz"), str(source / "study1_T1W.nii.gz")],
                "label": str(source / "study1_FLAIR.nii.gz"),
            }
        },
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    findings = check_dataset(read_dataset(tmp_path))
    assert ("error", "grid-mismatch") in counts(findings)


@pytest.fixture
def hippocampus(tmp_path):
    """A writable copy of the first twelve cases, with the broken files of the same source added."""
    folder = tmp_path / "Dataset004_Hippocampus"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    shutil.copy(HIPPOCAMPUS / "dataset.json", folder)
    for label in sorted((HIPPOCAMPUS / "labelsTr").iterdir())[:12]:
        case = label.name.removesuffix(".nii.gz")
        shutil.copyfile(label, folder / "labelsTr" / label.name)
        shutil.copyfile(HIPPOCAMPUS / "imagesTr" / f"{case}_0000.nii.gz", folder / "imagesTr" / f"{case}_0000.nii.gz")
    for file in BROKEN.iterdir():
        kind, case = file.name.removesuffix(".nii.gz").split("_hippocampus_")
        target = f"imagesTr/hippocampus_{case}_0000" if kind.startswith("image") else f"labelsTr/hippocampus_{case}"
        shutil.copyfile(file, folder / f"{target}.nii.gz")
    return folder


def edit(path, change):
    """Rewrite a NIfTI with what ``change`` makes of its array and affine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = nibabel.load(path)
        data, affine = change(np.asarray(image.dataobj).copy(), image.affine.copy())
        nibabel.save(nibabel.Nifti1Image(data, affine), path)


def with_nan(data, affine):
    data = data.astype(np.float32)
    data[3, 4, 5] = np.nan
    return data, affine


def shifted(data, affine):
    affine[:3, 3] += 25
    return data, affine


DEFECTS = {
    "missing-image": None,  # of broken_hippocampus, as the next
    "missing-label": None,
    "not-finite": ("imagesTr", with_nan),
    "constant-image": ("imagesTr", lambda data, affine: (np.full(data.shape, 3, np.int16), affine)),
    "undeclared-label": ("labelsTr", lambda data, affine: (np.where(data == 2, 7, data).astype(np.uint8), affine)),
    "empty-label": ("labelsTr", lambda data, affine: (np.zeros(data.shape, np.uint8), affine)),
    "label-not-integer": ("labelsTr", lambda data, affine: (data.astype(np.float32) * 0.7, affine)),
    "grid-mismatch": ("labelsTr", shifted),
}


def test_every_planted_defect_is_found_with_its_code_in_one_run(hippocampus):
    cases = [case for case in read_dataset(hippocampus).training if case.images[0].is_file() and case.label.is_file()]
    expected = {("missing-image", "hippocampus_010"), ("missing-image", "hippocampus_281")}
    expected |= {("missing-label", "hippocampus_118"), ("case-count", "")}
    for (code, plan), case in zip(((code, plan) for code, plan in DEFECTS.items() if plan), cases, strict=False):
        edit(case.images[0] if plan[0] == "imagesTr" else case.label, plan[1])
        expected.add((code, case.id))
    short, flipped, twin = cases[7], cases[8], cases[9]
    short.images[0].write_bytes(short.images[0].read_bytes()[:-500])
    raw = bytearray(gzip.decompress(flipped.label.read_bytes()))
    flipped.label.write_bytes(gzip.compress(bytes(raw[:-1])))
    shutil.copy(cases[10].images[0], twin.images[0])
    shutil.copy(cases[10].label, twin.label)
    expected |= {("unreadable-file", short.id), ("unreadable-file", flipped.id), ("duplicate-case", cases[10].id)}
    (hippocampus / "imagesTr" / "readme.txt").touch()
    expected.add(("stray-file", ""))
    found = {(finding.code, finding.case) for finding in check_dataset(read_dataset(hippocampus))}
    assert found - {entry for entry in found if entry[0].startswith("intensity")} == expected
