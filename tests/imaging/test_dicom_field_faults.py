"""What series from the field hold, each row with the right value from SimpleITK, pydicom, highdicom or by hand."""

import contextlib
import copy
import os
import pathlib
import re
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from matplotlib.path import Path
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from autoseg.errors import AutosegError, FileError, GeometryError
from autoseg.imaging import dicom_file
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.dicom_rtstruct import outlines, write_rtstruct
from autoseg.imaging.dicom_seg import write_seg
from autoseg.imaging.files import digest_on_disk, read_file, read_geometry, read_label_volume, segment_names
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.measure import measure_structures
from tests.helpers.examples import examples

ROOT = pathlib.Path(__file__).parents[2]
WAYS = {"model": "kidneys 0123", "version": "1.2"}


def by_simpleitk(folder):
    """(Z, Y, X) values and Geometry as SimpleITK reads the only series in a folder."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = SimpleITK.ReadImage(names)
    steps = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine = np.column_stack([steps[:, ::-1], image.GetOrigin()]) * [[-1], [-1], [1]]
    return SimpleITK.GetArrayFromImage(image), Geometry.from_affine(image.GetSize()[::-1], affine)


def saved(draw, folder, slices):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are odd on purpose
        for z, ds in enumerate(slices):
            draw.save(ds, folder / f"{z:03d}.dcm")
    return folder


# -- lengths are relative to the voxel ------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("scale", [1.0, 0.02, 0.009, 0.0005], ids=str)
def test_slices_of_any_thickness_are_told_apart_and_lost_ones_are_missed(tmp_path, draw, scale):
    values = draw.random_values((30, 6, 7))
    slices = list(draw.slice_datasets(values, spacing_mm=(scale, 0.8 * scale, 0.7 * scale), position=(1.0, 2.0, 3.0)))
    content = read_file(saved(draw, tmp_path / "whole", slices))
    assert content.geometry.spacing_mm == pytest.approx((scale, 0.8 * scale, 0.7 * scale), rel=1e-4)
    assert content.notes == ()
    if scale >= 0.009:  # SimpleITK takes thinner slices as 1 mm
        data, grid = by_simpleitk(tmp_path / "whole")
        np.testing.assert_array_equal(content.data[0], data)
        assert content.geometry.matches(grid, 1e-3 * scale)
    kept = [ds for z, ds in enumerate(slices) if z not in (7, 8, 20)]
    with pytest.raises(GeometryError, match="27 slices, 3 missing"):
        read_file(saved(draw, tmp_path / "lost", kept))


def test_thin_slices_of_wide_pixels_are_not_copies(tmp_path, draw):
    folder = draw.write_series(tmp_path, draw.random_values((30, 6, 7)), spacing_mm=(0.009, 0.5, 0.5))
    assert read_geometry(folder).spacing_mm == pytest.approx((0.009, 0.5, 0.5))


def test_a_small_sideways_shift_of_small_voxels_is_said(tmp_path, draw):
    content = read_file(draw.write_series(tmp_path, draw.random_values(), spacing_mm=(0.02,) * 3, shear_mm=0.002))
    assert "tilted by 5.7 degrees" in content.notes[0]


@pytest.mark.thorough
def test_segments_on_thin_slices_keep_their_slices(tmp_path, draw):
    values = np.zeros((9, 6, 7), np.uint8)
    values[1:8:2, 2:4, 2:5] = 1
    (series,) = find_series(
        draw.write_series(tmp_path / "in", draw.random_values(values.shape), spacing_mm=(0.009,) * 3)
    ).series
    labels = LabelVolume(values, read_geometry(series))
    write_seg(tmp_path / "seg.dcm", series, labels, {"a": (1,)}, **WAYS)
    np.testing.assert_array_equal(read_label_volume(tmp_path / "seg.dcm", onto=labels.geometry).data, values)
    write_rtstruct(tmp_path / "rt.dcm", series, labels, {"a": (1,)}, **WAYS)
    (contour, *_) = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence
    index = labels.geometry.to_index(np.reshape(contour.ContourData, (-1, 3)).astype(float) * [-1, -1, 1])
    np.testing.assert_allclose(2 * index, np.rint(2 * index), atol=1e-3)  # half-way between voxels


# -- directions and pixel sizes that were rounded -------------------------------------------------------------------------


def rounded(slices, which, *, directions=None, sizes=None):
    for z in which:
        if directions is not None:
            slices[z].ImageOrientationPatient = [round(float(v), directions) for v in slices[z].ImageOrientationPatient]
        if sizes is not None:
            slices[z].PixelSpacing = [round(float(v), sizes) for v in slices[z].PixelSpacing]
    return slices


@pytest.mark.thorough
@pytest.mark.parametrize("which", [range(9, 14), range(9), [13], [0]], ids=str)
def test_rounding_does_not_split_a_series(tmp_path, draw, which):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    how = {"rotation": turn, "spacing_mm": (2.5, 0.703125, 0.703125)}
    values = draw.random_values((14, 64, 64))
    exact = read_geometry(saved(draw, tmp_path / "exact", draw.slice_datasets(values, **how)))
    slices = rounded(list(draw.slice_datasets(values, **how)), which, directions=3, sizes=3)
    found = find_series(saved(draw, tmp_path / "rounded", slices))
    assert len(found.series) == 1
    content = read_file(found.series[0])
    np.testing.assert_array_equal(content.data[0], values)
    assert content.geometry.matches(exact, 1e-3)
    (note,) = content.notes
    assert "of a pixel at the far corner, as after rounding; those with the most digits are used" in note
    labels = LabelVolume((content.data[0] > 0).astype(np.uint8), content.geometry)
    write_seg(tmp_path / "seg", found.series[0], labels, {"a": (1,)}, **WAYS)
    assert read_geometry(tmp_path / "exact").matches(labels.geometry, 1e-3)


def test_directions_that_are_all_rounded_to_three_digits_are_made_right_angled(tmp_path, draw):
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    values = draw.random_values((4, 64, 64))
    slices = rounded(list(draw.slice_datasets(values, rotation=turn)), range(4), directions=3)
    directions = read_geometry(saved(draw, tmp_path, slices)).directions
    np.testing.assert_allclose(directions.T[1:] @ directions[:, 1:], np.eye(2), atol=1e-9)
    np.testing.assert_allclose(directions[:, 2], turn[:, 0] * [-1, -1, 1], atol=1e-3)


def test_slices_that_differ_by_more_than_rounding_are_refused(tmp_path, draw):
    values = draw.random_values((6, 256, 256))
    angle = np.radians(0.3)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    slices = list(draw.slice_datasets(values))
    slices[5] = list(draw.slice_datasets(values, rotation=turned))[5]
    with pytest.raises(GeometryError, match="slices of one orientation, found 2 different ones among 6 images"):
        read_file(saved(draw, tmp_path / "turned", slices))
    slices = list(draw.slice_datasets(values))
    slices[2].PixelSpacing = [0.8, 0.705]
    with pytest.raises(GeometryError, match="slices of one pixel spacing, found 2 different ones"):
        read_file(saved(draw, tmp_path / "spaced", slices))


# -- what the values mean, how they are packed ----------------------------------------------------------------------------


@pytest.mark.parametrize(("signed", "bits"), [(0, 12), (1, 16), (0, 16)])
def test_monochrome1_is_said_and_turned_round_as_simpleitk_does_where_asked(tmp_path, draw, signed, bits):
    values = draw.random_values() if signed else np.abs(draw.random_values())
    meaning = {"PhotometricInterpretation": "MONOCHROME1", "PixelRepresentation": signed, "BitsStored": bits}
    how = {**meaning, "HighBit": bits - 1, "RescaleSlope": 2, "RescaleIntercept": -100}
    folder = draw.write_series(tmp_path, values, **how)
    stored = read_file(folder)
    np.testing.assert_array_equal(stored.data[0], 2 * values.astype(float) - 100)
    (note,) = stored.notes
    assert "MONOCHROME1" in note
    assert "SimpleITK, ITK and 3D Slicer invert them" in note
    (series,) = find_series(folder, inverts=True).series
    turned = read_file(series)
    np.testing.assert_array_equal(turned.data[0], by_simpleitk(folder)[0])
    assert "inverted" in turned.notes[0]
    assert turned.digest != stored.digest
    assert digest_on_disk(series) == turned.digest


def test_activity_of_pet_is_said_to_be_no_standardised_uptake(tmp_path, draw):
    draw.write_series(tmp_path / "activity", draw.random_values(), Modality="PT", Units="BQML")
    draw.write_series(tmp_path / "uptake", draw.random_values(), Modality="PT", Units="GML")
    (note,) = read_file(tmp_path / "activity").notes
    assert note.startswith("The values are BQML, no standardised uptake (SUV)")
    assert read_file(tmp_path / "uptake").notes == ()


def test_a_series_of_both_kinds_of_monochrome_is_refused(tmp_path, draw):
    slices = list(draw.slice_datasets(draw.random_values()))
    slices[2].PhotometricInterpretation = "MONOCHROME1"
    with pytest.raises(GeometryError, match=r"one kind \(MONOCHROME1 or MONOCHROME2\)"):
        read_file(saved(draw, tmp_path, slices))


def deflated(draw, path, ds):
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return draw.save(ds, path)


def test_deflated_files_are_read_slices_as_frames(tmp_path, draw):
    values = draw.random_values()
    for z, ds in enumerate(draw.slice_datasets(values)):
        deflated(draw, tmp_path / "slices" / f"{z}.dcm", ds)
    content = read_file(tmp_path / "slices")
    np.testing.assert_array_equal(content.data[0], values)
    np.testing.assert_array_equal(by_simpleitk(tmp_path / "slices")[0], values)
    deflated(draw, tmp_path / "frames" / "whole.dcm", draw.multiframe_dataset(values))
    np.testing.assert_array_equal(read_file(tmp_path / "frames").data[0], values)


@pytest.mark.parametrize("has_meta", [True, False])
@pytest.mark.parametrize("name", ["{}.dcm", "IM{:04d}"])
def test_files_without_the_signature_of_dicom_are_read(tmp_path, draw, has_meta, name):
    values = draw.random_values()
    for z, ds in enumerate(draw.slice_datasets(values)):
        path = tmp_path / name.format(z)
        ds.save_as(path, enforce_file_format=True)
        if has_meta:
            path.write_bytes(path.read_bytes()[132:])
            continue
        plain = pydicom.Dataset({element.tag: element for element in ds})
        plain.save_as(path, implicit_vr=True, little_endian=True)
    content = read_file(tmp_path)
    np.testing.assert_array_equal(content.data[0], values)
    (series,) = find_series(tmp_path).series
    labels = LabelVolume((values > 0).astype(np.uint8), content.geometry)
    for write in (write_seg, write_rtstruct):
        write(tmp_path / "out", series, labels, {"a": (1,)}, **WAYS)
        (tmp_path / "out").unlink()


def test_files_that_begin_nearly_as_dicom_does_are_passed_over(tmp_path, draw):
    draw.write_series(tmp_path, draw.random_values())
    (tmp_path / "a.bin").write_bytes(b"\x08\x00\x05\x00" + bytes(200))
    (tmp_path / "b.bin").write_bytes(b"\x08\x00\x05\x00CS" + bytes(200))
    assert len(find_series(tmp_path).series) == 1


def test_a_deflated_file_that_unpacks_beyond_all_measure_is_left_out(tmp_path, draw, monkeypatch):
    monkeypatch.setattr(dicom_file, "LARGEST_UNPACKED", 1 << 20)
    (ds,) = draw.slice_datasets(np.zeros((1, 6, 7), np.int16))
    path = deflated(draw, tmp_path / "a.dcm", ds)
    packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    raw = path.read_bytes()
    path.write_bytes(raw[: 144 + int.from_bytes(raw[140:144], "little")] + packed.compress(bytes(1 << 25)) + packed.flush())
    assert path.stat().st_size < 1 << 17
    assert "1 file closed, damaged, or not DICOM" in find_series(tmp_path).left_out[0]
    with pytest.raises(FileError, match="unpacks to more than 1 MiB"):
        dicom_file.open_dataset(path)


# -- headers with values that DICOM does not allow ------------------------------------------------------------------------

ODD = {
    "PatientBirthDate": ["anonymous", "00000000", "1970-01-01"],
    "PatientSex": ["Male", "m"],
    "StudyDate": ["2020.01.01"],
    "StudyTime": ["12:30:10", "99"],
    "StudyID": ["x" * 20],
    "AccessionNumber": ["x" * 20, "a\\b"],
    "PatientAge": ["45"],
    "PatientWeight": ["n/a"],
    "SeriesNumber": ["abc"],
}


def with_raw(ds, keyword, text):
    """The element as a file holds it that nobody checked."""
    tag, vr = pydicom.datadict.tag_for_keyword(keyword), pydicom.datadict.dictionary_VR(keyword)
    raw = text.encode() + b" " * (len(text) % 2)
    ds[tag] = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(tag), vr, len(raw), raw, 0, False, True)


@pytest.mark.parametrize(("keyword", "text"), [(key, text) for key, texts in ODD.items() for text in texts])
@pytest.mark.parametrize("write", [write_seg, write_rtstruct], ids=lambda write: write.__name__)
def test_values_that_dicom_does_not_allow_are_left_empty_and_said(tmp_path, draw, write, keyword, text):
    values = np.zeros((4, 6, 7), np.uint8)
    values[1:3, 2:4, 2:5] = 1
    slices = list(draw.slice_datasets(values.astype(np.int16)))
    for ds in slices:
        with_raw(ds, keyword, text)
    (series,) = find_series(saved(draw, tmp_path / "in", slices)).series
    notes = write(tmp_path / "out.dcm", series, LabelVolume(values, read_geometry(series)), {"a": (1,)}, **WAYS)
    assert notes == (f"Left empty, since the images hold values there that DICOM does not allow: {keyword}.",)
    ds = pydicom.dcmread(tmp_path / "out.dcm")
    if keyword != "SeriesNumber":
        assert not ds.get(keyword)
    assert str(ds.PatientName) == draw.patient
    assert ds.PatientID == "4711" or keyword == "PatientID"


def test_values_that_dicom_allows_stay_and_nothing_is_said(tmp_path, draw):
    values = np.ones((4, 6, 7), np.uint8)
    more = {"PatientAge": "045Y", "PatientWeight": "70.5", "SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Ö"}
    (series,) = find_series(draw.write_series(tmp_path / "in", values.astype(np.int16), **more)).series
    for write in (write_seg, write_rtstruct):
        assert write(tmp_path / "out.dcm", series, LabelVolume(values, read_geometry(series)), {"a": (1,)}, **WAYS) == ()
        ds = pydicom.dcmread(tmp_path / "out.dcm")
        assert (ds.PatientBirthDate, ds.PatientSex, str(ds.PatientName)) == ("19700101", "F", "Müller^Ö")


def test_identifiers_of_odd_form_are_repeated_as_they_are_since_others_know_the_images_by_them(tmp_path, draw):
    values = np.ones((3, 6, 7), np.uint8)
    slices = list(draw.slice_datasets(values.astype(np.int16)))
    for z, ds in enumerate(slices):
        with_raw(ds, "SOPInstanceUID", f"1.2.3.0{z}.anon")
    (series,) = find_series(saved(draw, tmp_path / "in", slices)).series
    write_rtstruct(tmp_path / "rt", series, LabelVolume(values, read_geometry(series)), {"a": (1,)}, **WAYS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of these identifiers
        (roi,) = pydicom.dcmread(tmp_path / "rt").ROIContourSequence
        found = {contour.ContourImageSequence[0].ReferencedSOPInstanceUID for contour in roi.ContourSequence}
    assert found == {f"1.2.3.0{z}.anon" for z in range(3)}


def test_names_of_structures_and_models_are_one_value_each(tmp_path, draw):
    values = np.ones((3, 6, 7), np.uint8)
    (series,) = find_series(draw.write_series(tmp_path / "in", values.astype(np.int16))).series
    labels, name = LabelVolume(values, read_geometry(series)), "left\\right\n" + "x" * 80
    for write in (write_seg, write_rtstruct):
        write(tmp_path / write.__name__, series, labels, {name: (1,)}, model="a\\b", version="1")
    (segment,) = pydicom.dcmread(tmp_path / "write_seg").SegmentSequence
    (roi,) = pydicom.dcmread(tmp_path / "write_rtstruct").StructureSetROISequence
    assert segment.SegmentLabel == roi.ROIName == ("left/right " + "x" * 80)[:64]
    assert pydicom.dcmread(tmp_path / "write_rtstruct").StructureSetName == "autoseg, a/b"


# -- contours -------------------------------------------------------------------------------------------------------------


def even_odd(polygon, shape):
    """(rows, columns) bool by the plainest test there is: how often a ray from the centre to the right meets an edge."""
    inside = np.zeros(shape, bool)
    columns = np.arange(shape[1])
    for (r0, c0), (r1, c1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if r0 == r1:
            continue
        for row in range(int(np.ceil(min(r0, r1))), int(np.ceil(max(r0, r1)))):
            inside[row] ^= columns < c0 + (row - r0) * (c1 - c0) / (r1 - r0)
    return inside


def holey(rng, size, holes):
    mask = np.zeros((size, size), bool)
    rows, columns = np.indices(mask.shape) - size / 2
    mask[rows**2 + columns**2 < (0.47 * size) ** 2] = True
    places = rng.permutation(np.argwhere(mask[4:-4, 4:-4]) + 4)[:holes]
    mask[tuple(places.T)] = False
    return mask


def edges_meet_centres(polygon):
    """Whether a vertex or an edge along rows or columns runs through a whole row and column."""
    ends = np.roll(polygon, -1, axis=0)
    for axis in (0, 1):
        straight = (polygon[:, axis] == ends[:, axis]) & (polygon[:, axis] == np.rint(polygon[:, axis]))
        lower, upper = np.sort([polygon[straight, 1 - axis], ends[straight, 1 - axis]], axis=0)
        if (np.ceil(lower) <= np.floor(upper)).any():
            return True
    return False


@pytest.mark.thorough
def test_keyholes_meet_no_centre_so_every_test_of_inside_finds_the_mask():
    rng = np.random.default_rng(0)
    masks = [holey(rng, 60, 300), holey(rng, 260, 1593), rng.random((30, 30)) < 0.7, rng.random((30, 30)) < 0.5]
    ring = np.ones((9, 30), bool)
    ring[2:7, 2:28] = False
    ring[3:6, 4:26:3] = True  # islands within a hole
    ring[4, 5:25:6] = False
    for mask in [*masks, ring, np.kron([[1, 0], [0, 1]], np.ones((4, 4), bool)).astype(bool)]:
        by_hand, by_matplotlib = np.zeros(mask.shape, int), np.zeros(mask.shape, int)
        centres = np.indices(mask.shape).reshape(2, -1).T
        for polygon in outlines(mask):
            assert not edges_meet_centres(polygon)
            by_hand += even_odd(polygon, mask.shape)
            by_matplotlib += Path(np.vstack([polygon, polygon[:1]])).contains_points(centres).reshape(mask.shape)
        np.testing.assert_array_equal(by_hand, mask)
        np.testing.assert_array_equal(by_matplotlib, mask)


@pytest.mark.thorough
def test_an_outline_of_any_length_is_read_by_pydicom_as_numbers(tmp_path, draw):
    values = holey(np.random.default_rng(1), 200, 1593)[None].astype(np.uint8)
    (series,) = find_series(
        draw.write_series(tmp_path / "in", values.astype(np.int16), rotation=np.eye(3)[:, [1, 2, 0]])
    ).series
    labels = LabelVolume(values, read_geometry(series))
    write_rtstruct(tmp_path / "rt", series, labels, {"lung": (1,)}, **WAYS)
    contours = pydicom.dcmread(tmp_path / "rt").ROIContourSequence[0].ContourSequence
    contour = max(contours, key=lambda one: one.NumberOfContourPoints)
    assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints
    assert sum(len(str(value)) + 1 for value in contour.ContourData) > 1 << 16  # what a short length can tell
    inside = np.zeros(values.shape[1:], bool)
    for contour in contours:
        index = labels.geometry.to_index(np.reshape(contour.ContourData, (-1, 3)).astype(float) * [-1, -1, 1])
        inside |= even_odd(np.round(2 * index[:, 1:]) / 2, inside.shape)
    np.testing.assert_array_equal(inside, values[0])


@pytest.mark.parametrize(("edge_mm", "place"), [(1e-4, -123456.7), (0.009, 98765.4), (0.7, -99.5)])
def test_coordinates_of_contours_have_the_digits_that_a_decimal_string_holds(tmp_path, draw, edge_mm, place):
    values = np.ones((2, 3, 3), np.uint8)
    spacing = (edge_mm,) * 3
    (series,) = find_series(
        draw.write_series(tmp_path / "in", values.astype(np.int16), spacing_mm=spacing, position=(place,) * 3)
    ).series
    write_rtstruct(tmp_path / "rt", series, LabelVolume(values, read_geometry(series)), {"a": (1,)}, **WAYS)
    for contour in pydicom.dcmread(tmp_path / "rt").ROIContourSequence[0].ContourSequence:
        texts = [number.original_string for number in contour.ContourData]
        assert max(map(len, texts)) <= 16
        assert len(set(texts[0::3])) > 1


# -- segmentation objects -------------------------------------------------------------------------------------------------


def written_segmentation(draw, folder, *, values=None, kind="BINARY", **options):
    """(path of a segmentation by highdicom with liver and spleen as 1 and 2, LabelVolume)."""
    if values is None:
        values = np.zeros((5, 6, 7), np.uint8)
        values[1:4, 1:5, 1:3], values[2:4, 2:4, 4:6] = 1, 2
    (series,) = find_series(draw.write_series(folder / "in", draw.random_values(values.shape))).series
    names = ["liver", "spleen"][: max(1, values.max())]
    path = draw.write_segmentation(folder / "a.dcm", series, values, kind, names, **options)
    return path, LabelVolume(values, read_geometry(series))


@pytest.mark.parametrize("columns", range(9, 17))
def test_frames_of_any_number_of_pixels_are_read(tmp_path, draw, columns):
    values = np.random.default_rng(columns).integers(0, 3, (4, 5, columns)).astype(np.uint8)
    path, labels = written_segmentation(draw, tmp_path, values=values)
    np.testing.assert_array_equal(read_label_volume(path, onto=labels.geometry).data, values)


def test_frames_that_do_not_name_the_only_segment_are_its_own(tmp_path, draw):
    values = np.zeros((5, 6, 7), np.uint8)
    values[1:4, 1:5, 1:3] = 1
    path, labels = written_segmentation(draw, tmp_path, values=values)
    ds = pydicom.dcmread(path)
    for group in (*ds.SharedFunctionalGroupsSequence, *ds.PerFrameFunctionalGroupsSequence):  # by the version of highdicom
        group.pop("SegmentIdentificationSequence", None)
    assert "Segment Identification Sequence" not in str(ds)
    ds.save_as(path)
    np.testing.assert_array_equal(read_label_volume(path, onto=labels.geometry).data, values)
    assert segment_names(path) == {"liver": 1}


def test_frames_that_name_none_of_several_segments_or_two_are_refused(tmp_path, draw):
    path, _ = written_segmentation(draw, tmp_path)
    for change, found in (
        (lambda frame: frame.pop("SegmentIdentificationSequence"), "none"),
        (named_twice, "1, 2"),
        (unknown, "9"),
    ):
        ds = pydicom.dcmread(path)
        change(ds.PerFrameFunctionalGroupsSequence[0])
        ds.save_as(tmp_path / "b.dcm")
        with pytest.raises(FileError, match=f"expected one of the segments 1, 2 for frame 1, found {found}"):
            read_label_volume(tmp_path / "b.dcm")


def named_twice(frame):
    (item,) = frame.SegmentIdentificationSequence
    other = copy.deepcopy(item)
    other.ReferencedSegmentNumber = 3 - item.ReferencedSegmentNumber
    frame.SegmentIdentificationSequence = [item, other]


def unknown(frame):
    frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def labelmap_with_number_0(draw, tmp_path, padding):
    """Liver has the number 0, spleen 2; the padding value stands for what is neither."""
    path, labels = written_segmentation(draw, tmp_path, kind="LABELMAP", omit_empty_frames=False)
    ds = pydicom.dcmread(path)
    pixels = np.frombuffer(ds.PixelData, np.uint8)
    ds.PixelData = np.select([pixels == 1, pixels == 2], [0, 2], padding).astype(np.uint8).tobytes()
    ds.PixelPaddingValue = padding
    ds.SegmentSequence = [item for item in ds.SegmentSequence if item.SegmentNumber]
    ds.SegmentSequence[0].SegmentNumber = 0
    ds.save_as(path)
    return path, labels


def test_a_segment_with_the_number_0_is_a_structure_where_another_value_pads(tmp_path, draw):
    path, labels = labelmap_with_number_0(draw, tmp_path, padding=255)
    found = read_label_volume(path, onto=labels.geometry)
    assert segment_names(path) == {"spleen": 2, "liver": 3}
    np.testing.assert_array_equal(found.data == 3, labels.data == 1)
    np.testing.assert_array_equal(found.data == 2, labels.data == 2)
    assert "Segment 0 (liver) has the value 3 here, since 0 is background." in read_file(path, as_label=True).notes
    raw = pydicom.dcmread(path).pixel_array  # by pydicom alone
    assert (raw == 0).sum() == (labels.data == 1).sum()


def test_the_background_of_a_label_map_is_no_structure(tmp_path, draw):
    path, labels = written_segmentation(draw, tmp_path, kind="LABELMAP", omit_empty_frames=False)
    assert segment_names(path) == {"liver": 1, "spleen": 2}
    ds = pydicom.dcmread(path)
    assert any(item.SegmentNumber == 0 for item in ds.SegmentSequence)  # highdicom describes it
    del ds.PixelPaddingValue
    ds.save_as(path)
    assert segment_names(path) == {"liver": 1, "spleen": 2}
    np.testing.assert_array_equal(read_label_volume(path, onto=labels.geometry).data, labels.data)


def test_nobody_knows_whether_a_part_is_cut_until_it_lies_on_its_scan(tmp_path, draw):
    values = np.zeros((7, 9, 9), np.uint8)
    values[2:5, 3:6, 3:6], values[4, 1:3, 1:3] = 1, 2
    path, labels = written_segmentation(draw, tmp_path, values=values)
    groups = {"liver": (1,), "spleen": (2,)}
    alone, onto = read_label_volume(path), read_label_volume(path, onto=labels.geometry)
    assert alone.data.shape == (3, 9, 9)
    for volume, expected in ((alone, [None, None]), (onto, [False, False])):
        found = measure_structures(volume, groups)
        assert [one.touches_border for one in found] == expected
        assert not any("cut by the border" in one.note for one in found)
    values[6, 3:6, 3:6] = 1
    (tmp_path / "end").mkdir()
    path, labels = written_segmentation(draw, tmp_path / "end", values=values)
    found = measure_structures(read_label_volume(path, onto=labels.geometry), groups)
    assert [one.touches_border for one in found] == [True, False]


def test_a_structure_within_the_stored_part_is_not_cut(tmp_path, draw):
    values = np.zeros((7, 9, 9), np.uint8)
    values[1:6, 2:7, 2:7], values[3, 4, 4] = 1, 2
    path, _ = written_segmentation(draw, tmp_path, values=values)
    found = measure_structures(read_label_volume(path), {"liver": (1,), "spleen": (2,)})
    assert [one.touches_border for one in found] == [None, False]


# -- where files lie, and what stays out of messages ----------------------------------------------------------------------


@pytest.mark.thorough
def test_a_package_that_cannot_be_imported_is_no_fault_of_the_file(tmp_path, draw):
    draw.write_series(tmp_path / "scan", draw.random_values())
    (tmp_path / "pydicom.py").write_text("raise AttributeError('RTLD_NOW')")
    code = f"from autoseg.imaging.files import read_file; read_file({str(tmp_path / 'scan')!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "FileError: DICOM needs packages that can be imported, found AttributeError: RTLD_NOW" in done.stderr


def test_links_to_patients_are_followed_and_loops_end(tmp_path, draw):
    for number in (1, 2, 3):
        draw.write_series(tmp_path / "store" / f"p{number}", draw.random_values(seed=number), SeriesInstanceUID=f"1.9.{number}")
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    os.rename(tmp_path / "store" / "p3", cohort / "p3")
    for number in (1, 2):
        (cohort / f"p{number}").symlink_to(tmp_path / "store" / f"p{number}")
    (cohort / "p3" / "again").symlink_to(cohort)
    (cohort / "self").symlink_to(cohort / "self")
    (cohort / "nowhere.dcm").symlink_to(cohort / "nothing")
    found = find_series(cohort)
    assert [series.name for series in found.series] == ["p1_s7", "p2_s7", "p3_s7"]
    assert all(series.notes == () for series in found.series)
    assert read_file(found.series[0]).geometry.shape == (5, 6, 7)


def test_a_pipe_among_the_files_does_not_stop_the_search(tmp_path, draw):
    folder = draw.write_series(tmp_path, draw.random_values())
    os.mkfifo(folder / "pipe.dcm")
    assert len(find_series(folder).series) == 1


def test_files_that_vanish_or_break_are_named_without_their_folders(tmp_path, draw):
    folder = draw.write_series(tmp_path / "Doe^Jane", draw.random_values())
    (series,) = find_series(tmp_path).series
    (folder / "003.dcm").write_bytes((folder / "003.dcm").read_bytes()[:-20])
    labels = LabelVolume(np.ones((5, 6, 7), np.uint8), read_geometry(series))
    messages = []
    for _ in range(2):
        for act in (read_file, digest_on_disk, lambda one: write_rtstruct(tmp_path / "x", one, labels, {"a": (1,)}, **WAYS)):
            try:
                act(series)
            except AutosegError as fault:
                messages.append(str(fault))
        (folder / "003.dcm").unlink(missing_ok=True)
    assert len(messages) == 4  # a file that is cut short still has a digest and a header
    assert all("003.dcm" in message for message in messages)
    assert not any(re.search(f"{re.escape(str(tmp_path))}|doe|jane", message, re.IGNORECASE) for message in messages)


# -- damage ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def originals(tmp_path_factory, draw):
    """Bytes of a slice, a file of frames, a deflated and a compressed file and a segmentation."""
    folder = tmp_path_factory.mktemp("originals")
    path, _ = written_segmentation(draw, folder)
    (one,) = draw.slice_datasets(draw.random_values((1, 6, 7)))
    draw.save(one, folder / "slice")
    draw.save(draw.multiframe_dataset(draw.random_values()), folder / "frames")
    one.compress(RLELossless)
    draw.save(one, folder / "compressed")
    (one,) = draw.slice_datasets(draw.random_values((1, 6, 7)))
    deflated(draw, folder / "deflated", one)
    return [(folder / name).read_bytes() for name in ("slice", "frames", "deflated", "compressed")] + [path.read_bytes()]


@pytest.mark.thorough
@given(data=st.data())
@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_raise_nothing_but_our_errors(originals, tmp_path, data):
    raw = bytearray(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        what = data.draw(st.sampled_from(["bit", "byte", "cut", "gone", "twice", "zeros", "ones"]))
        length = data.draw(st.integers(1, 40))
        if what == "bit":
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "byte":
            raw[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del raw[max(200, at) :]
        elif what == "gone":
            del raw[at : at + length]
        elif what == "twice":
            raw[at:at] = raw[at : at + length]
        else:
            raw[at : at + length] = (b"\0" if what == "zeros" else b"\xff") * len(raw[at : at + length])
        if not raw:
            return
    path = tmp_path / "a.dcm"
    path.write_bytes(raw)
    for act in (find_series, read_file, lambda one: read_file(one, as_label=True), segment_names):
        with contextlib.suppress(AutosegError):
            act(path)


def test_a_header_that_claims_a_million_frames_is_read_at_once(tmp_path, draw):
    (one,) = draw.slice_datasets(draw.random_values((1, 6, 7)))
    one.NumberOfFrames = 2**31 - 1
    draw.save(one, tmp_path / "slice" / "a.dcm")
    whole = draw.multiframe_dataset(draw.random_values())
    whole.NumberOfFrames = 2**31 - 1
    draw.save(whole, tmp_path / "frames" / "a.dcm")
    for folder in ("slice", "frames"):
        with pytest.raises(AutosegError):
            read_file(tmp_path / folder)


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("ImagePositionPatient", [1e30, 0, 0], "no usable ImagePositionPatient"),
        ("PixelSpacing", [1e12, 1], "no usable PixelSpacing"),
        ("PixelSpacing", [1e-9, 1], "no usable PixelSpacing"),
        ("RescaleSlope", 1e35, "expected a usable RescaleSlope"),
    ],
)
def test_lengths_and_slopes_beyond_all_measure_are_no_values(tmp_path, draw, keyword, value, said):
    slices = list(draw.slice_datasets(draw.random_values()))
    setattr(slices[2], keyword, value)
    with pytest.raises(AutosegError, match=said):
        read_file(saved(draw, tmp_path, slices))


@pytest.mark.parametrize("which", [2, 4])
def test_a_slice_without_directions_is_no_stray_image_and_one_without_any_place_is(tmp_path, draw, which):
    slices = list(draw.slice_datasets(draw.random_values()))
    del slices[which].ImageOrientationPatient
    with pytest.raises(GeometryError, match=f"00{which}.dcm has no usable ImageOrientationPatient"):
        read_file(saved(draw, tmp_path / "slice", slices))
    slices = list(draw.slice_datasets(draw.random_values((6, 6, 7))))
    del slices[5].ImageOrientationPatient, slices[5].ImagePositionPatient
    content = read_file(saved(draw, tmp_path / "report", slices))
    assert content.geometry.shape == (5, 6, 7)
    assert content.notes == ("1 single image of another size or orientation left out.",)


def test_a_large_intercept_stays_what_it_is(tmp_path, draw):
    values = draw.random_values()
    content = read_file(draw.write_series(tmp_path, values, RescaleIntercept=20000000000))
    np.testing.assert_allclose(content.data[0], values + 2e10, rtol=1e-6)
