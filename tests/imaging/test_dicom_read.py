"""DICOM series become grids: right, or refused with the reason."""

import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, JPEGLSLossless, RLELossless, SegmentationStorage
from scipy.spatial.transform import Rotation

from autoseg.errors import AutosegError, FileError, GeometryError
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.files import digest_on_disk, read_file, read_geometry, read_volume, write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, orient
from tests.helpers import dicom as draw

DATA = Path(__file__).parents[3] / "shared" / "data" / "dicom"
VENDORS = DATA / "vendors" / "data"
TRUTHS = [path for path in sorted(VENDORS.glob("**/*_ground_truth.nii.gz")) if "fmri" not in path.parts] or [None]

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no scans in {DATA}")


def truth_folder(path):
    return path.with_name(path.name.removesuffix("_ground_truth.nii.gz"))


def canonical(content):
    order, flips = content.geometry.canonical()
    return orient(content.data, order, flips), content.geometry.oriented(order, flips)


# -- real series ---------------------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("path", TRUTHS, ids=lambda path: path and str(truth_folder(path).relative_to(VENDORS)))
def test_every_makers_series_equals_another_tools_conversion(path):
    found, expected = read_file(truth_folder(path)), read_file(path)
    (data, grid), (truth, truth_grid) = canonical(found), canonical(expected)
    assert grid.matches(truth_grid, 1e-3)
    truth = truth[: len(data)]  # the other tool adds a channel of opacity to colours
    np.testing.assert_allclose(data, truth, rtol=1e-6, atol=0)
    assert read_geometry(truth_folder(path)) == found.geometry


@needs_data
def test_series_that_are_no_volume_say_why():
    with pytest.raises(GeometryError, match="4 images at 1 ") as error:
        read_file(VENDORS / "failing" / "notavolume" / "001")
    assert "of one volume into a folder of their own" in str(error.value)
    with pytest.raises(GeometryError, match="8 images at 2 "):
        read_file(VENDORS / "philips" / "fmri" / "001")
    assert "Two slices only" in read_file(VENDORS / "failing" / "slicecount" / "001").notes[0]
    for folder in ("98892003/MR700", "98892001/CT2N", "77654033/CR1"):
        with pytest.raises(FileError, match="left out: .*localisers|left out: .*position"):
            read_file(DATA / "series" / "pydicom_dicomdirtests" / folder)
    with pytest.raises(GeometryError, match=r"expected slices at even distances, found steps of 1.25 to 202.5 mm"):
        read_file(DATA / "series" / "pydicom_dicomdirtests" / "77654033" / "CT2")


@needs_data
def test_magnitude_and_phase_of_one_series_are_two_volumes():
    found = find_series(VENDORS / "philips" / "anatomical" / "002")
    assert [series.name for series in found.series] == ["002_s501_a", "002_s501_b"]
    assert "SW_M" in str(found.series[0])
    values = [read_file(series).data for series in found.series]
    assert values[0].shape == values[1].shape == (1, 4, 768, 768)
    assert values[0].min() == 0 > values[1].min()  # phase is signed


@needs_data
def test_frames_of_one_file_equal_the_slices_that_they_were_made_of():
    for name in ("23x38x3", "24x38x3"):
        folder = DATA / "series" / "dcmqi_CT3_and_SEG" / name
        slices, frames = read_file(folder / "image"), read_file(folder / "multiframe")
        assert frames.geometry.matches(slices.geometry, 1e-3)
        np.testing.assert_array_equal(frames.data, slices.data)


@needs_data
def test_a_directory_of_dicom_stands_for_its_tree():
    folder = DATA / "series" / "pydicom_dicomdirtests"
    found, same = find_series(folder / "DICOMDIR"), find_series(folder)
    assert found == same
    assert "98892001_CT5N_s5" in [series.name for series in found.series]
    assert sum("localisers" in sentence for sentence in found.left_out) == 4


# -- series drawn here ---------------------------------------------------------------------------------------------------

# every way to turn a grid so that its axes run along the patient's: 24; files in order and against it make 48
TURNS = [
    np.array(signs) * np.eye(3)[:, order]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
TURNS = [turn for turn in (np.array(t) for t in TURNS) if np.linalg.det(turn) > 0]
OBLIQUE = [Rotation.from_euler("xyz", angles, degrees=True).as_matrix() for angles in ((15, -40, 110), (-170, 20, 65))]


@pytest.mark.parametrize("rotation", [*TURNS, *OBLIQUE], ids=str)
@pytest.mark.parametrize("order", [range(3), range(2, -1, -1), (1, 0, 2)], ids=["forth", "back", "mixed"])
def test_every_orientation_is_sorted_by_position(tmp_path, rotation, order):
    values = draw.random_values((3, 4, 5))
    content = read_file(draw.write_series(tmp_path, values, rotation=rotation, order=order))
    np.testing.assert_array_equal(content.data[0], values)
    lps = np.column_stack([2.5 * rotation[:, 2], 0.8 * rotation[:, 1], 0.7 * rotation[:, 0], (-10, -20, 30)])
    assert content.geometry.matches(Geometry.from_affine(values.shape, lps * [[-1], [-1], [1]]), 1e-6)
    assert content.notes == ()


def test_slope_and_intercept_belong_to_each_slice(tmp_path):
    values = draw.random_values()
    for z, ds in enumerate(draw.slice_datasets(values)):
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 + z, -z
        draw.save(ds, tmp_path / f"{z}.dcm")
    content = read_file(tmp_path)
    z = np.arange(5).reshape(-1, 1, 1)
    assert content.data.dtype == np.float32
    np.testing.assert_allclose(content.data[0], values * (0.5 + z) - z, rtol=1e-6)
    shifted = read_file(draw.write_series(tmp_path / "ct", np.abs(values), PixelRepresentation=0, RescaleIntercept=-1024))
    assert shifted.data.dtype == np.int32
    np.testing.assert_array_equal(shifted.data[0], np.abs(values).astype(int) - 1024)


def test_a_tilted_gantry_makes_a_sheared_grid_and_is_said(tmp_path):
    values = draw.random_values()
    content = read_file(draw.write_series(tmp_path, values, shear_mm=0.5))
    np.testing.assert_array_equal(content.data[0], values)
    corner = content.geometry.to_world([(4, 5, 6)])[0]
    np.testing.assert_allclose(corner, [10 - 6 * 0.7, 20 - 4 * 0.5 - 5 * 0.8, 30 + 4 * 2.5], atol=1e-6)
    (note,) = content.notes
    assert "tilted by 11.3 degrees" in note


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless], ids=lambda uid: uid.name)
def test_compressed_files_are_read(tmp_path, syntax):
    values = draw.random_values((3, 16, 17))
    for z, ds in enumerate(draw.slice_datasets(values)):
        ds.compress(syntax, generate_instance_uid=False)
        draw.save(ds, tmp_path / f"{z}.dcm")
    np.testing.assert_array_equal(read_file(tmp_path).data[0], values)


def test_colours_are_three_channels_and_palettes_are_refused(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (4, 6, 7, 3)).astype(np.uint8)
    grey = draw.random_values((4, 6, 7))
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "PixelRepresentation": 0}
    for z, ds in enumerate(draw.slice_datasets(grey, **colour)):
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelData = 8, 8, 7, values[z].tobytes()
        draw.save(ds, tmp_path / "rgb" / f"{z}.dcm")
    np.testing.assert_array_equal(read_file(tmp_path / "rgb").data, np.moveaxis(values, -1, 0))
    with pytest.raises(FileError, match="indices of a colour palette"):
        read_file(draw.write_series(tmp_path / "palette", grey, PhotometricInterpretation="PALETTE COLOR"))


def test_a_single_slice_says_what_its_thickness_is(tmp_path):
    content = read_file(draw.write_series(tmp_path, draw.random_values((1, 6, 7))))
    assert content.geometry.spacing_mm == pytest.approx((99, 0.8, 0.7))
    assert "thickness is taken as 99 mm" in content.notes[0]


def test_enhanced_frames_are_sorted_by_position_and_rescaled(tmp_path):
    values = draw.random_values()
    whole = draw.multiframe_dataset(values, slope=0.25, rotation=OBLIQUE[0])
    frames, order = whole.PerFrameFunctionalGroupsSequence, [2, 0, 4, 1, 3]
    whole.PerFrameFunctionalGroupsSequence = [frames[z] for z in order]
    whole.PixelData = values[order].astype("<i2").tobytes()
    content = read_file(draw.save(whole, tmp_path / "one" / "whole.dcm").parent)
    slices = read_file(draw.write_series(tmp_path / "slices", values, rotation=OBLIQUE[0]))
    np.testing.assert_allclose(content.data[0], values * 0.25)
    assert content.geometry.matches(slices.geometry, 1e-6)


def defects():
    """(name, how to spoil the list of datasets, what the message says)."""

    def drop(slices):
        del slices[3]

    def gap(slices):
        slices[-1].ImagePositionPatient[2] += 1.7

    def sideways(slices):
        slices[2].ImagePositionPatient[0] += 1.0

    def repeat(slices):
        slices[2].ImagePositionPatient = slices[1].ImagePositionPatient

    def strip(slices):
        for ds in slices[2:4]:
            ds.ImagePositionPatient = None

    def no_spacing(slices):
        for ds in slices:
            del ds.PixelSpacing

    def skew(slices):
        for ds in slices:
            ds.ImageOrientationPatient = [1, 0, 0, 0.5, 1, 0]

    def cut(slices):
        slices[2].PixelData = slices[2].PixelData[:-10]

    def lut(slices):
        for ds in slices:
            ds.ModalityLUTSequence = [pydicom.Dataset()]

    def mosaic(slices):
        for ds in slices:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]

    def flat(slices):
        for ds in slices:
            ds.RescaleSlope = 0

    return {
        "slope of nothing": (flat, "expected a usable RescaleSlope, found 0"),
        "mosaic": (mosaic, "found the slices of a whole volume laid out in one image"),
        "missing slice": (
            drop,
            r"a slice every 2\.5 mm, found a gap of 5 mm between 002\.dcm and 004\.dcm: 5 slices, 1 missing",
        ),
        "uneven gaps": (gap, r"even distances, found steps of 2\.5 to 4\.2 mm, the largest between 004\.dcm and 005\.dcm"),
        "slice beside": (sideways, "stacked along a straight line"),
        "repeated place": (repeat, r"6 images at 5 \(00[12]\.dcm and 00[12]\.dcm"),
        "no position": (strip, r"002\.dcm has no usable ImagePositionPatient"),
        "no spacing": (no_spacing, r"no usable PixelSpacing"),
        "directions not at right angles": (skew, "no usable ImageOrientationPatient"),
        "cut short": (cut, r"voxels of 002\.dcm cannot be decoded"),
        "table of values": (lut, "found a table of values"),
    }


@pytest.mark.parametrize("name", defects())
def test_defects_are_refused_with_their_reason(tmp_path, name):
    spoil, message = defects()[name]
    slices = list(draw.slice_datasets(draw.random_values((6, 6, 7))))
    names = [f"{z:03d}.dcm" for z in range(6)]
    if name == "missing slice":
        del names[3]
    spoil(slices)
    for ds, file in zip(slices, names, strict=True):
        draw.save(ds, tmp_path / "Doe_Jane" / file)
    with pytest.raises(AutosegError, match=message) as error:
        read_file(tmp_path / "Doe_Jane")
    assert re.match(r"series 7 \(UID \.\.\.1\.2\.3\.4\) in patient-\w{8}: ", str(error.value))
    assert str(tmp_path) not in str(error.value)
    assert "Doe thorax" not in str(error.value)
    assert draw.patient not in str(error.value)


@pytest.mark.parametrize("count", [9, 4, 12])  # of 4 and 12 the last is rounded too
def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path, count):
    for z, ds in enumerate(draw.slice_datasets(draw.random_values((count, 6, 7)), spacing_mm=(0.625, 0.8, 0.7))):
        ds.ImagePositionPatient = [round(float(v), 1) for v in ds.ImagePositionPatient]
        draw.save(ds, tmp_path / f"{z}.dcm")
    length = round(30 + 0.625 * (count - 1), 1) - 30
    assert read_geometry(tmp_path).spacing_mm[0] == pytest.approx(length / (count - 1))


def test_copies_count_once(tmp_path):
    folder = draw.write_series(tmp_path / "a", draw.random_values())
    shutil.copytree(folder, tmp_path / "a" / "again")
    content = read_file(tmp_path / "a")
    assert content.geometry.shape == (5, 6, 7)
    assert "5 copies" in content.notes[0]


def test_localisers_and_stray_images_in_a_series_are_left_out_and_said(tmp_path):
    folder = draw.write_series(tmp_path / "a", draw.random_values())
    scout = next(
        draw.slice_datasets(draw.random_values((1, 6, 7)), rotation=TURNS[5], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    )
    stray = next(draw.slice_datasets(draw.random_values((1, 3, 3))))
    draw.save(scout, folder / "scout.dcm")
    draw.save(stray, folder / "stray.dcm")
    content = read_file(folder)
    assert content.geometry.shape == (5, 6, 7)
    assert content.notes == (
        "1 localiser left out.",
        "1 single image of another size or orientation left out.",
    )


def test_echoes_and_sizes_of_one_series_are_volumes_of_their_own(tmp_path):
    for echo in (5.0, 20.0):
        draw.write_series(tmp_path / f"{echo}", draw.random_values(seed=int(echo)), EchoTime=echo)
    draw.write_series(tmp_path / "small", draw.random_values((4, 3, 3)))
    found = find_series(tmp_path)
    assert [(series.name[-2:], len(series.planes)) for series in found.series] == [("_a", 5), ("_b", 5), ("_c", 4)]
    assert "part a (EchoTime 5.0)" in str(found.series[0])
    assert all("holds 3 volumes" in series.notes[0] for series in found.series)
    with pytest.raises(FileError, match="expected one DICOM series, found") as error:
        read_file(tmp_path)
    assert str(error.value).count("part") == 3


def test_names_are_unique_stable_and_hold_nothing_of_the_patient(tmp_path):
    for folder, series, number in (("ct", "1.1", 2), ("ct", "1.2", 3), ("ct", "1.3", 3), ("mr x/deep", "1.4", None)):
        draw.write_series(tmp_path / folder / series, draw.random_values(), SeriesInstanceUID=series, SeriesNumber=number)
    for path in list(tmp_path.glob("ct/*/*.dcm")):  # all in one folder
        path.rename(tmp_path / "ct" / f"{path.parent.name}_{path.name}")
    found = find_series(tmp_path)
    names = [series.name for series in found.series]
    assert len(set(names)) == 4
    assert names[0] == "ct_s2"
    assert all(name.startswith("ct_s3_") for name in names[1:3])
    assert names[3] == "mr-x_deep_1.4"
    assert names == [series.name for series in find_series(tmp_path).series]
    shutil.rmtree(tmp_path / "mr x")
    assert names[:3] == [series.name for series in find_series(tmp_path).series]


def test_other_objects_and_other_files_are_passed_over(tmp_path):
    folder = draw.write_series(tmp_path, draw.random_values())
    (folder / "notes.txt").write_text("no DICOM")
    (folder / "empty.dcm").touch()
    (folder / ".DS_Store").touch()
    draw.save(draw.image_dataset(SegmentationStorage, Modality="SEG", SeriesInstanceUID="1.9"), folder / "seg.dcm")
    found = find_series(folder)
    assert len(found.series) == 1
    assert found.left_out == (
        "1 DICOM files that are no images (SEG)",
        "1 file closed, damaged, or not DICOM despite the name, such as empty.dcm",
    )


def test_numbers_that_cannot_be_read_are_named(tmp_path):
    folder = draw.write_series(tmp_path / "a", draw.random_values())
    draw.write_series(tmp_path / "b", draw.random_values(), SeriesInstanceUID="1.9")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(rb"0.8\0.7", rb"0,8\0,7"))
    draw.write_series(tmp_path / "c", draw.random_values(), SeriesInstanceUID="1.10", RescaleSlope=1.25)
    for path in (tmp_path / "c").iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.25", b"1,25"))
    series = find_series(tmp_path).series
    with pytest.raises(FileError, match="expected a usable RescaleSlope, found (None|1,25)"):
        read_file(series[2])
    with pytest.raises(GeometryError, match="no usable PixelSpacing"):
        read_file(series[0])
    assert read_file(series[1]).geometry.shape == (5, 6, 7)


def test_one_slice_of_a_series_is_refused_and_a_whole_file_is_read(tmp_path):
    folder = draw.write_series(tmp_path / "a", draw.random_values())
    with pytest.raises(FileError, match="is one of 5 files of its series. Give the folder"):
        read_file(next(folder.iterdir()).rename(folder / "slice"))
    whole = draw.save(draw.multiframe_dataset(draw.random_values()), tmp_path / "b" / "whole")
    assert read_geometry(whole).shape == (5, 6, 7)
    assert [series.name for series in find_series(whole).series] == ["whole"]
    with pytest.raises(FileError, match="expected a DICOM image, found SEG"):
        read_file(draw.save(draw.image_dataset(Modality="SEG"), tmp_path / "c" / "seg"))


def test_a_series_is_a_volume_with_a_digest_and_takes_labels(tmp_path):
    folder = draw.write_series(tmp_path / "a", draw.random_values())
    (series,) = find_series(folder).series
    volume = read_volume(series)
    assert volume.data.dtype == np.float32
    content = read_file(series)
    assert content.digest == digest_on_disk(series) == read_file(folder).digest
    labels = LabelVolume((volume.data[0] > 0).astype(np.uint8), volume.geometry)
    write_label_volume(labels, tmp_path / "labels.nii.gz", like=series)
    assert read_geometry(tmp_path / "labels.nii.gz").matches(volume.geometry, 1e-4)
    with pytest.raises(GeometryError, match="expected the grid of series 7"):
        write_label_volume(LabelVolume(labels.data, labels.geometry.flipped([0])), tmp_path / "x.nii.gz", like=series)


def test_frames_without_places_are_left_out(tmp_path):
    cine = draw.multiframe_dataset(draw.random_values())
    del cine.PerFrameFunctionalGroupsSequence
    cine.SOPClassUID = CTImageStorage
    draw.save(cine, tmp_path / "cine")
    with pytest.raises(FileError, match="frames without ImagePositionPatient"):
        read_file(tmp_path)
