"""Which images of a DICOM series, or of several under one identifier, are one volume."""

import pytest

from autoseg.data.sources import find_inputs
from autoseg.imaging.files import read_volume
from tests.helpers.dicom import multiframe_dataset, random_values, save, slice_datasets, write_series


def cases_of(folder):
    """{name of a series: its voxels (Z, Y, X)} as found in a folder, and the notes that are told."""
    inputs = find_inputs(folder, channels=("CT",))
    return {case.id: read_volume(case.images).data[0] for case in inputs.cases}, inputs.notes


def test_patients_whose_series_have_one_identifier_are_never_one_volume(tmp_path):
    values = [random_values(seed=0), random_values(seed=1)]
    for above in (0.0, 2.5 * len(values[0])):  # at the same places; one above the other
        folder = tmp_path / f"{above}"
        for number, one in enumerate(values):
            place = (-10.0, -20.0, 30.0 + above * number)
            write_series(folder / f"A{number}", one, PatientID=f"number {number}", position=place)
        found, notes = cases_of(folder)
        assert {name: data.tolist() for name, data in found.items()} == {
            "A0_s7": values[0].tolist(),
            "A1_s7": values[1].tolist(),
        }
        assert "A0_s7: Files of several patients or studies have its identifier" in notes[0]


def test_folders_whose_images_have_all_identifiers_in_common_are_told_apart(tmp_path):
    values = [random_values(seed=0), random_values(seed=1)]
    for number, one in enumerate(values):
        for z, ds in enumerate(slice_datasets(one, SOPInstanceUID="1.2.3.4.5")):  # as after a careless de-identification
            save(ds, tmp_path / f"A{number}" / f"{z}.dcm")
    found, notes = cases_of(tmp_path)
    assert [found["A0_s7"].tolist(), found["A1_s7"].tolist()] == [one.tolist() for one in values]
    assert "told apart by folder" in notes[0]


def test_images_of_one_identifier_are_copies_only_if_their_pixels_are_the_same(tmp_path):
    values = random_values()
    write_series(tmp_path / "scan", values, SOPInstanceUID="1.2.3.4.5", EchoTime=10.0)
    for z, ds in enumerate(slice_datasets(values, SOPInstanceUID="1.2.3.4.5", EchoTime=10.0)):
        save(ds, tmp_path / "scan" / f"copy_{z}.dcm")
    for z, ds in enumerate(slice_datasets(values + 1, SOPInstanceUID="1.2.3.4.5", EchoTime=80.0)):
        save(ds, tmp_path / "scan" / f"echo_{z}.dcm")
    found, notes = cases_of(tmp_path)
    assert {name: data.tolist() for name, data in found.items()} == {
        "scan_s7_a": values.tolist(),
        "scan_s7_b": (values + 1).tolist(),
    }
    assert notes[0] == "scan_s7_a: 5 copies of images were left out."


def test_echoes_between_each_other_are_no_volume_of_thin_slices_but_interleaved_slices_are(tmp_path):
    values = random_values((6, 6, 7))
    for element, (first, second) in {"EchoTime": (10.0, 80.0), "AcquisitionNumber": (1, 2)}.items():
        folder = tmp_path / element
        for start, value in ((0, first), (1, second)):
            place = (-10.0, -20.0, 30.0 + 2.0 * start)
            series = slice_datasets(values[start::2], position=place, spacing_mm=(4.0, 0.8, 0.7), **{element: value})
            for z, ds in enumerate(series):
                save(ds, folder / f"{start}_{z}.dcm")
    found, _ = cases_of(tmp_path / "EchoTime")
    assert [data.tolist() for data in found.values()] == [values[0::2].tolist(), values[1::2].tolist()]
    found, _ = cases_of(tmp_path / "AcquisitionNumber")
    assert [data.tolist() for data in found.values()] == [values.tolist()]


@pytest.mark.parametrize("gap_mm", [4.25, 7.5, 0.0])
def test_stacks_of_a_multi_frame_object_with_a_gap_between_them_are_volumes_of_their_own(tmp_path, gap_mm):
    values = random_values((8, 6, 7))
    ds = multiframe_dataset(values)
    for z, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].StackID = str(1 + z // 4)
        frame.PlanePositionSequence[0].ImagePositionPatient = [-10.0, -20.0, 30.0 + 2.5 * z + gap_mm * (z // 4)]
    save(ds, tmp_path / "knees" / "a.dcm")
    found, _ = cases_of(tmp_path)
    parts = [values[:4], values[4:]] if gap_mm else [values]
    assert [data.tolist() for data in found.values()] == [part.tolist() for part in parts]


def test_series_that_have_folder_and_all_identifiers_in_common_have_names_of_their_own(tmp_path):
    for number in range(2):
        for z, ds in enumerate(slice_datasets(random_values(seed=number), PatientID=f"n{number}", SOPInstanceUID="1.2.3.4.5")):
            save(ds, tmp_path / "scans" / f"{number}_{z}.dcm")
    found, _ = cases_of(tmp_path)
    assert len(found) == 2
    assert all(name.startswith("scans_s7_") for name in found)
