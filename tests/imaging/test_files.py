"""Every format of volumes keeps voxels and their place; damage is noticed; what is written belongs to its scan."""

import gzip
import hashlib
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autoseg.errors import FileError, GeometryError
from autoseg.imaging import files
from autoseg.imaging.files import (
    FORMATS,
    PICTURES,
    ending_of,
    read_file,
    read_geometry,
    read_label_volume,
    read_volume,
    write_label_volume,
    write_volume,
)
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from tests.helpers.examples import examples

DATA = Path(__file__).parents[3] / "shared" / "data"
VOLUMES = [ending for ending in FORMATS if ending not in PICTURES]
TURNS = [(0, 0, 0), (15, -40, 110), (-170, 20, 65)]


def oblique(angles=TURNS[1], shape=(5, 6, 7), signs=(1, 1, 1)):
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return Geometry.from_affine(shape, np.column_stack([turn * signs * (4.0, 0.8, 0.7), (-123.4, 56.7, 801.2)]))


def image(geometry, channels=1):
    return Volume(np.random.default_rng(0).normal(size=(channels, *geometry.shape)).astype(np.float32), geometry)


def labels(geometry, highest=3):
    return LabelVolume(np.random.default_rng(1).integers(0, highest + 1, geometry.shape).astype(np.int16), geometry)


def nifti_header(path):
    return nibabel.load(path).header


def write_nifti(path, array, affine=None, **fields):
    """A file whose header has exactly these fields; nibabel alone would make them agree with each other."""
    header = nibabel.Nifti1Image(array, affine).header
    for name, value in fields.items():
        header[name] = value
    header["vox_offset"] = 352
    path.write_bytes(header.binaryblock + bytes(4) + array.tobytes("F"))
    return path


# -- the contract of every format ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", VOLUMES)
@pytest.mark.parametrize("angles", TURNS)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_oblique_anisotropic_grids_come_back(tmp_path, ending, angles, signs):
    geometry = oblique(angles, signs=signs)
    volume, label = image(geometry), labels(geometry)
    write_volume(volume, tmp_path / f"image{ending}")
    write_label_volume(label, tmp_path / f"label{ending}")
    found = read_volume(tmp_path / f"image{ending}")
    assert found.data.dtype == np.float32
    assert np.array_equal(found.data, volume.data)
    assert found.geometry.matches(geometry, 1e-4)
    assert read_geometry(tmp_path / f"image{ending}") == found.geometry
    found = read_label_volume(tmp_path / f"label{ending}")
    assert found.data.dtype == np.uint8
    assert np.array_equal(found.data, label.data)
    assert found.geometry.matches(geometry, 1e-4)
    assert read_file(tmp_path / f"image{ending}").notes == ()


@pytest.mark.parametrize("ending", VOLUMES)
def test_channels_come_back_in_order(tmp_path, ending):
    volume = image(oblique(), channels=3)
    write_volume(volume, tmp_path / f"image{ending}")
    found = read_volume(tmp_path / f"image{ending}")
    assert np.array_equal(found.data, volume.data)
    assert found.geometry.matches(volume.geometry, 1e-4)


@pytest.mark.parametrize("ending", VOLUMES)
@pytest.mark.parametrize(
    ("value", "kind"), [(255, np.uint8), (256, np.uint16), (-1, np.int16), (40000, np.uint16), (70000, np.int32)]
)
def test_labels_take_the_smallest_type(tmp_path, ending, value, kind):
    data = np.zeros((2, 2, 2), np.int64)
    data[0, 1, 0] = value
    write_label_volume(LabelVolume(data, oblique(shape=(2, 2, 2))), tmp_path / f"label{ending}")
    found = read_label_volume(tmp_path / f"label{ending}").data
    assert found.dtype == kind
    assert np.array_equal(found, data)


@pytest.mark.parametrize("ending", VOLUMES)
def test_a_result_lies_exactly_on_its_scan(tmp_path, ending):
    scan = image(oblique())
    write_volume(scan, tmp_path / f"scan{ending}")
    read = read_volume(tmp_path / f"scan{ending}")
    write_label_volume(labels(read.geometry), tmp_path / f"out{ending}", like=tmp_path / f"scan{ending}")
    assert read_geometry(tmp_path / f"out{ending}") == read.geometry


@pytest.mark.parametrize("ending", VOLUMES)
def test_a_result_on_another_grid_than_its_scan_is_refused(tmp_path, ending):
    scan = tmp_path / f"scan{ending}"
    write_volume(image(oblique()), scan)
    for other in (oblique(shape=(5, 6, 8)), oblique(angles=(0, 0, 0)), oblique().flipped([2])):
        with pytest.raises(GeometryError, match="scan"):
            write_label_volume(labels(other), tmp_path / f"out{ending}", like=scan)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("ending", VOLUMES)
def test_a_scan_of_another_format_gives_its_grid(tmp_path, ending):
    other = ".mha" if ending.startswith(".nii") else ".nii.gz"
    write_volume(image(oblique()), tmp_path / f"scan{other}")
    scan = read_volume(tmp_path / f"scan{other}")
    write_label_volume(labels(scan.geometry), tmp_path / f"out{ending}", like=tmp_path / f"scan{other}")
    assert read_geometry(tmp_path / f"out{ending}").matches(scan.geometry, 1e-4)


@pytest.mark.parametrize("ending", VOLUMES)
def test_simpleitk_reads_what_was_written(tmp_path, ending):
    volume = image(oblique())
    write_volume(volume, tmp_path / f"image{ending}")
    found = SimpleITK.ReadImage(str(tmp_path / f"image{ending}"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(found), volume.data[0])
    for index in [(0, 0, 0), (6, 5, 4), (3, 0, 2)]:
        x, y, z = volume.geometry.to_world([index[::-1]])[0]
        assert np.allclose(found.TransformIndexToPhysicalPoint(index), (-x, -y, z), atol=1e-4)


@pytest.mark.parametrize("ending", VOLUMES)
def test_files_that_are_cut_short_are_refused(tmp_path, ending):
    path = tmp_path / f"image{ending}"
    write_volume(image(oblique()), path)
    payload = max(tmp_path.iterdir(), key=lambda part: part.stat().st_size)
    raw = payload.read_bytes()
    for kept in (len(raw) // 2, len(raw) - 20, 10):
        payload.write_bytes(raw[:kept])
        with pytest.raises(FileError, match=path.name.split(".")[0]):
            read_file(path)


@pytest.mark.parametrize("ending", [ending for ending in VOLUMES if ending != ".nii"])
def test_a_flipped_bit_is_noticed_wherever_the_file_is_compressed(tmp_path, ending):
    path = tmp_path / f"image{ending}"
    write_volume(image(oblique()), path)
    payload = max(tmp_path.iterdir(), key=lambda part: part.stat().st_size)
    raw = bytearray(payload.read_bytes())
    for place in (len(raw) // 2, len(raw) - 100, len(raw) - 6):
        damaged = bytearray(raw)
        damaged[place] ^= 0x10
        payload.write_bytes(damaged)
        with pytest.raises(FileError, match="image"):
            read_file(path)


@pytest.mark.parametrize("ending", VOLUMES)
def test_a_failed_write_leaves_the_earlier_file(tmp_path, ending, monkeypatch):
    path = tmp_path / f"image{ending}"
    volume = image(oblique())
    write_volume(volume, path)
    before = sorted(part.name for part in tmp_path.iterdir())

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoseg.atomic.os.replace", fail)
    with pytest.raises(FileError, match="no room left"):
        write_volume(image(oblique(), channels=2), path)
    assert sorted(part.name for part in tmp_path.iterdir()) == before
    assert np.array_equal(read_volume(path).data, volume.data)


@pytest.mark.parametrize("ending", VOLUMES)
def test_the_digest_follows_the_voxels(tmp_path, ending):
    found = []
    for seed in (0, 0, 1):
        data = np.random.default_rng(seed).normal(size=(1, 5, 6, 7)).astype(np.float32)
        write_volume(Volume(data, oblique()), tmp_path / f"image{ending}")
        found.append(read_file(tmp_path / f"image{ending}").digest)
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 16


@pytest.mark.parametrize("ending", FORMATS)
def test_files_that_are_no_images_are_refused(tmp_path, ending):
    path = tmp_path / f"image{ending}"
    with pytest.raises(FileError, match="image"):
        read_file(path)
    for content in (b"", b"<html>not found</html>" * 50, gzip.compress(b"hello" * 200)):
        path.write_bytes(content)
        with pytest.raises(FileError, match="image"):
            read_file(path)
        with pytest.raises(FileError, match="image"):
            read_geometry(path)


# -- files.py ------------------------------------------------------------------------------------------------------------


def test_the_longest_known_ending_counts():
    assert ending_of("a/b.c.nii.gz") == ".nii.gz"
    assert ending_of("SCAN.NII.GZ") == ".nii.gz"
    assert ending_of("b.nii") == ".nii"
    with pytest.raises(FileError, match=r"expected a name that ends in one of \.jpeg"):
        ending_of("b.bmp")


def test_channel_files_are_stacked_in_the_given_order(tmp_path):
    volume = image(oblique(), channels=2)
    paths = [tmp_path / "b.nii.gz", tmp_path / "a.mha"]
    for path, channel in zip(paths, volume.data, strict=True):
        write_volume(Volume(channel[None], volume.geometry), path)
    assert np.array_equal(read_volume(paths).data, volume.data)


def test_channels_on_different_grids_are_named(tmp_path):
    shifted = oblique().affine
    shifted[0, 3] += 0.5
    write_volume(image(oblique()), tmp_path / "flair.nii")
    write_volume(image(Geometry.from_affine(oblique().shape, shifted)), tmp_path / "t1.nii")
    with pytest.raises(GeometryError, match=r"(?s)flair\.nii.*t1\.nii.*0\.5 mm"):
        read_volume([tmp_path / "flair.nii", tmp_path / "t1.nii"])


def test_whole_numbers_stored_as_float_are_labels(tmp_path):
    data = labels(oblique()).data
    write_volume(Volume(data[None].astype(np.float32), oblique()), tmp_path / "label.nii")
    found = read_label_volume(tmp_path / "label.nii").data
    assert found.dtype == np.uint8
    assert np.array_equal(found, data)


@pytest.mark.parametrize("value", [1.5, np.nan, np.inf])
def test_fractions_are_no_labels(tmp_path, value):
    data = np.zeros((1, 2, 2, 2), np.float32)
    data[0, 1, 0, 1] = value
    write_volume(Volume(data, oblique(shape=(2, 2, 2))), tmp_path / "label.nii")
    with pytest.raises(FileError, match="expected whole numbers as labels, found"):
        read_label_volume(tmp_path / "label.nii")


def test_labels_with_channels_are_refused(tmp_path):
    write_volume(image(oblique(), channels=2), tmp_path / "label.nii")
    with pytest.raises(FileError, match="2 channels"):
        read_label_volume(tmp_path / "label.nii")


def test_labels_beyond_32_bits_are_refused(tmp_path):
    with pytest.raises(FileError, match="32 bits"):
        write_label_volume(LabelVolume(np.full((2, 2, 2), 1 << 40), oblique(shape=(2, 2, 2))), tmp_path / "label.nii")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_nan_and_infinity_of_a_file_stay(tmp_path, ending):
    """SimpleITK 2.5.7 writes them in all formats, and reads those of NIfTI as 0: see findings."""
    values = np.array([[[np.nan, np.inf, -np.inf, 1, 2, 3]]], np.float32)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(files.read_file(tmp_path / f"a{ending}").data[0], values)


def test_a_file_is_read_from_disk_once(tmp_path, monkeypatch):
    write_volume(image(oblique()), tmp_path / "image.nii.gz")
    raw = (tmp_path / "image.nii.gz").read_bytes()
    read_bytes, calls = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: calls.append(path) or read_bytes(path))
    monkeypatch.setattr("builtins.open", None)
    content = files.read_file(tmp_path / "image.nii.gz")
    assert len(calls) == 1
    assert content.digest == hashlib.blake2b(raw, digest_size=8).hexdigest()


# -- NIfTI headers -------------------------------------------------------------------------------------------------------


def test_voxel_size_comes_from_pixdim_where_the_affine_contradicts_it(tmp_path):
    array = np.zeros((4, 5, 6), np.int16)
    path = write_nifti(tmp_path / "a.nii", array, np.diag([-1, -1, 1, 1.0]), qform_code=0, pixdim=[1, 1.5, 1.5, 10, 1, 0, 0, 0])
    content = read_file(path)
    assert content.geometry.spacing_mm == (10, 1.5, 1.5)
    assert content.geometry.orientation == "SPL"
    assert content.notes == ("Voxel size 1.5x1.5x10 mm (x, y, z) is taken from pixdim; the affine says 1x1x1 mm.",)


@pytest.mark.parametrize("pixdim", [[1, 1, 1, 1], [1, 0, 0, 0], [1, np.nan, 2, 3]])
def test_voxel_size_comes_from_the_affine_where_pixdim_is_not_filled_in(tmp_path, pixdim):
    array = np.zeros((4, 5, 6), np.int16)
    affine = np.diag([0.7, 0.8, 3, 1])
    path = write_nifti(tmp_path / "a.nii", array, affine, qform_code=0, pixdim=[*pixdim, 0, 0, 0, 0])
    content = read_file(path)
    assert np.allclose(content.geometry.spacing_mm, (3, 0.8, 0.7))
    assert "taken from the affine" in content.notes[0]


def test_a_small_difference_between_affine_and_pixdim_is_rounding(tmp_path):
    path = write_nifti(
        tmp_path / "a.nii",
        np.zeros((4, 5, 6), np.int16),
        np.diag([2, 2, 2, 1.0]),
        qform_code=0,
        pixdim=[1, 2.01, 2, 2, 0, 0, 0, 0],
    )
    content = read_file(path)
    assert content.geometry.spacing_mm == (2, 2, 2)
    assert content.notes == ()


def as_itk_reads(path):
    """The geometry of what ITK makes of a file."""
    copy = path.with_suffix(".mha")
    SimpleITK.WriteImage(SimpleITK.ReadImage(path), copy)
    return FORMATS[".mha"].read_geometry(copy)


def test_a_header_without_orientation_is_read_as_itk_reads_it(tmp_path):
    path = write_nifti(
        tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), pixdim=[1, 2, 3, 4, 0, 0, 0, 0], qform_code=0, magic=b"n+1"
    )
    content = read_file(path)
    assert content.geometry.matches(as_itk_reads(path), 1e-5)
    assert "orientation is assumed" in content.notes[0]


def test_an_sform_that_is_no_matrix_gives_way_to_the_qform(tmp_path):
    affine = np.diag([2, 3, 4, 1.0])
    path = write_nifti(
        tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), affine, qform_code=1, sform_code=1, srow_x=0, srow_y=0, srow_z=0
    )
    content = read_file(path)
    assert content.geometry.spacing_mm == (4, 3, 2)
    assert "sform of the header is not an invertible matrix" in content.notes[0]


def test_a_quaternion_that_is_no_rotation_gives_way_to_the_sform(tmp_path):
    array = np.zeros((4, 5, 6), np.int16)
    path = write_nifti(tmp_path / "a.nii", array, np.diag([2, 3, 4, 1.0]), qform_code=1, sform_code=1, quatern_b=3)
    content = read_file(path)
    assert content.geometry.spacing_mm == (4, 3, 2)
    assert "qform of the header is not an invertible matrix" in content.notes[0]


def test_orientations_that_differ_are_noted(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), np.diag([2, 2, 2, 1.0]), qform_code=1, quatern_d=1.0)
    content = read_file(path)
    assert content.geometry.orientation == "SAR"
    assert "different orientations" in content.notes[0]


@pytest.mark.parametrize(("shift_mm", "told"), [(20.0, "10 voxels apart"), (0.5, "")])
def test_forms_that_place_the_voxels_apart_are_noted(tmp_path, shift_mm, told):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2, 2, 4, 1.0]))
    moved = np.array(image.affine)
    moved[1, 3] += shift_mm
    image.set_sform(image.affine, 1)
    image.set_qform(moved, 1)
    nibabel.save(image, tmp_path / "a.nii")
    content = read_file(tmp_path / "a.nii")
    assert content.geometry.to_world([[0, 0, 0]]).tolist() == [[0, 0, 0]], "the sform counts"
    assert [told in note for note in content.notes] == [True] * bool(told)


def test_micrometres_become_millimetres(tmp_path):
    affine = np.array([[20, 0, 0, 500], [0, 30, 0, 600], [0, 0, 40, 700], [0, 0, 0, 1.0]])
    path = write_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), affine, xyzt_units=3)
    content = read_file(path)
    assert content.geometry.matches(as_itk_reads(path), 1e-5)
    assert np.allclose(content.geometry.spacing_mm, (0.04, 0.03, 0.02))
    assert "micrometres" in content.notes[0]


def test_slope_and_intercept_are_applied(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = write_nifti(tmp_path / "a.nii", array, np.eye(4), scl_slope=0.5, scl_inter=-7)
    found = read_file(path).data
    assert found.dtype == np.float32
    assert np.array_equal(found[0].T, array * 0.5 - 7)


def test_an_intercept_without_a_slope_is_said_not_to_count(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = write_nifti(tmp_path / "a.nii", array, np.eye(4), scl_slope=0, scl_inter=-1024)
    (note,) = read_file(path).notes
    assert "The slope is 0, so the stored numbers count" in note
    assert SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).min() == -1024, "the note says so"
    assert read_file(write_nifti(path, array, np.eye(4), scl_slope=0, scl_inter=0)).notes == ()


def test_a_slope_of_one_keeps_the_type(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.ones((2, 3, 4), np.uint8), np.eye(4), scl_slope=1, scl_inter=0)
    assert read_file(path).data.dtype == np.uint8


def test_big_endian_files_are_read(tmp_path):
    array = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_data_shape(array.shape)
    header.set_sform(np.diag([2, 3, 4, 1]), 1)
    header["pixdim"][1:4] = 2, 3, 4
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + bytes(4) + array.tobytes("F"))
    content = read_file(path)
    assert content.data.dtype.isnative
    assert np.array_equal(content.data[0].T, array)
    assert content.geometry.spacing_mm == (4, 3, 2)
    write_label_volume(LabelVolume(content.data[0], content.geometry), tmp_path / "b.nii", like=path)
    assert np.array_equal(read_label_volume(tmp_path / "b.nii").data.T, array)


def test_nifti_2_is_read_and_kept(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nibabel.save(nibabel.Nifti2Image(array, np.diag([2, 3, 4, 1.0])), tmp_path / "a.nii.gz")
    content = read_file(tmp_path / "a.nii.gz")
    assert np.array_equal(content.data[0].T, array)
    write_label_volume(LabelVolume(content.data[0], content.geometry), tmp_path / "b.nii.gz", like=tmp_path / "a.nii.gz")
    assert isinstance(nibabel.load(tmp_path / "b.nii.gz"), nibabel.Nifti2Image)
    assert np.array_equal(read_label_volume(tmp_path / "b.nii.gz").data.T, array)


def test_axes_after_the_third_are_channels_and_a_slice_has_depth_one(tmp_path):
    cases = {
        (2, 3): (1, 1, 3, 2),
        (2, 3, 4): (1, 4, 3, 2),
        (2, 3, 4, 1): (1, 4, 3, 2),
        (2, 3, 4, 5): (5, 4, 3, 2),
        (2, 3, 4, 1, 5): (5, 4, 3, 2),
    }
    for shape, expected in cases.items():
        array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape, order="F")
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
        data = read_file(tmp_path / "a.nii").data
        assert data.shape == expected
        assert np.array_equal(data.ravel(), np.arange(np.prod(shape)))


@pytest.mark.parametrize("ending", VOLUMES)
def test_a_4d_file_of_one_volume_is_a_scan_and_takes_labels(tmp_path, ending):
    grid = oblique(angles=TURNS[0])
    values = labels(grid)
    four = SimpleITK.GetImageFromArray(np.arange(210, dtype=np.int16).reshape(1, *grid.shape), isVector=False)
    four.SetSpacing((0.7, 0.8, 4.0, 1.0))
    if ending.startswith(".nii"):
        array = np.arange(210, dtype=np.int16).reshape(7, 6, 5, 1)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([0.7, 0.8, 4, 1])), tmp_path / f"a{ending}")
    else:
        SimpleITK.WriteImage(four, str(tmp_path / f"a{ending}"))
    scan = read_volume(tmp_path / f"a{ending}")
    assert scan.data.shape == (1, *grid.shape)
    assert np.allclose(scan.geometry.spacing_mm, (4, 0.8, 0.7))
    write_label_volume(LabelVolume(values.data, scan.geometry), tmp_path / f"b{ending}", like=tmp_path / f"a{ending}")
    found = read_label_volume(tmp_path / f"b{ending}")
    assert np.array_equal(found.data, values.data)
    assert found.geometry == scan.geometry


def test_colours_are_channels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (4, 3, 2, 3)).astype(np.uint8)
    packed = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(packed, np.eye(4)), tmp_path / "a.nii")
    assert np.array_equal(read_file(tmp_path / "a.nii").data, np.transpose(colours, (3, 2, 1, 0)))


@pytest.mark.parametrize(
    "kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64, np.float32, np.float64]
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_every_type_of_number_is_kept(tmp_path, kind, ending):
    array = np.arange(24).astype(kind).reshape(2, 3, 4)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), dtype=kind), tmp_path / f"a{ending}")
    found = read_file(tmp_path / f"a{ending}").data
    assert found.dtype == kind
    assert np.array_equal(found[0].T, array)


@pytest.mark.parametrize("slope", [np.nan, np.inf, 0])
def test_a_slope_that_is_no_factor_scales_nothing(tmp_path, slope):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = write_nifti(tmp_path / "a.nii", array, np.eye(4), scl_slope=slope, scl_inter=5)
    assert np.array_equal(read_file(path).data[0].T, array)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
def test_left_handed_and_sheared_grids_are_where_nibabel_has_them_and_results_stay_there(tmp_path, signs):
    affine = np.diag([*(np.array(signs) * (2.0, 3.0, 4.0)), 1])
    affine[0, 1], affine[:3, 3] = 0.3, (5, -6, 7)
    source = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
    source.header.set_xyzt_units("mm", "sec")
    source.header.set_sform(affine, 4)
    nibabel.save(source, tmp_path / "a.nii.gz")
    geometry = read_geometry(tmp_path / "a.nii.gz")
    write_label_volume(labels(geometry), tmp_path / "b.nii.gz", like=tmp_path / "a.nii.gz")
    written = nibabel.load(tmp_path / "b.nii.gz")
    for index in [(0, 0, 0), (3, 4, 5), (3, 0, 2)]:
        assert np.allclose(geometry.to_world([index[::-1]])[0], affine[:3] @ (*index, 1), atol=1e-5)
    assert np.array_equal(written.affine, nibabel.load(tmp_path / "a.nii.gz").affine)
    assert written.header["sform_code"] == 4
    assert written.get_data_dtype() == np.uint8


def test_an_intent_of_the_scan_is_none_of_its_labels(tmp_path):
    array = np.zeros((4, 5, 6), np.float32)
    scan = write_nifti(tmp_path / "a.nii", array, np.eye(4), intent_code=3, intent_name=b"t-map", intent_p1=12)
    write_label_volume(labels(read_geometry(scan)), tmp_path / "b.nii", like=scan)
    header = nifti_header(tmp_path / "b.nii")
    assert header.get_intent() == ("none", (), "")


def test_complex_numbers_are_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.complex64), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(FileError, match="complex64"):
        read_file(tmp_path / "a.nii")


def test_a_slice_stays_two_dimensional(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 6), np.int16), np.diag([2, 3, 1, 1.0])), tmp_path / "a.nii")
    write_label_volume(labels(read_geometry(tmp_path / "a.nii")), tmp_path / "b.nii", like=tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "b.nii").shape == (5, 6)
    SimpleITK.WriteImage(SimpleITK.Image([5, 6], SimpleITK.sitkInt16), str(tmp_path / "a.mha"))
    write_label_volume(labels(read_geometry(tmp_path / "a.mha")), tmp_path / "b.mha", like=tmp_path / "a.mha")
    assert SimpleITK.ReadImage(str(tmp_path / "b.mha")).GetSize() == (5, 6)


def test_a_sheared_grid_is_kept_in_the_sform_alone(tmp_path):
    sheared = oblique().affine
    sheared[:3, 0] += 0.4 * sheared[:3, 1]
    sheared = Geometry.from_affine(oblique().shape, sheared)
    write_label_volume(labels(sheared), tmp_path / "a.nii")
    header = nifti_header(tmp_path / "a.nii")
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    assert read_geometry(tmp_path / "a.nii").matches(sheared, 1e-4)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_scan_on_a_sheared_grid_is_said_to_be_so(tmp_path, ending):
    affine = oblique().affine
    for shear, told in ((0.0, 0), (0.05, 1)):
        affine[:3, 0] += shear * affine[:3, 1]
        grid = Geometry.from_affine(oblique().shape, affine)
        write_volume(Volume(np.zeros((1, *grid.shape), np.float32), grid), tmp_path / f"a{ending}")
        notes = read_volume([tmp_path / f"a{ending}"] * 2).notes  # two channels say it once
        assert sum("not at right angles" in note for note in notes) == told, notes


def test_a_fresh_header_has_both_forms_and_says_millimetres(tmp_path):
    write_label_volume(labels(oblique()), tmp_path / "a.nii.gz")
    header = nifti_header(tmp_path / "a.nii.gz")
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-4)
    assert header.get_xyzt_units()[0] == "mm"


def test_the_header_of_the_scan_is_kept(tmp_path):
    array = np.zeros((4, 5, 6), np.int16)
    fields = {
        "descrip": b"made by hand",
        "xyzt_units": 10,
        "cal_max": 80,
        "scl_slope": 2,
        "scl_inter": 0,
        "qform_code": 2,
        "sform_code": 4,
    }
    scan = write_nifti(tmp_path / "a.nii", array, np.diag([2, 3, 4, 1.0]), **fields)
    write_label_volume(labels(read_geometry(scan)), tmp_path / "b.nii.gz", like=scan)
    before = nibabel.Nifti1Header(scan.read_bytes()[:348])
    after = nibabel.Nifti1Header(gzip.decompress((tmp_path / "b.nii.gz").read_bytes())[:348])
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert changed <= {"datatype", "bitpix", "scl_slope", "scl_inter", "cal_min", "cal_max", "vox_offset", "magic"}
    assert after["cal_max"] == 0
    assert after["scl_slope"] == 1


@examples(150)
@given(st.data())
def test_any_flipped_bit_in_a_gzip_file_is_noticed_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    write_label_volume(labels(oblique()), folder / "good.nii.gz")
    raw, good = bytearray((folder / "good.nii.gz").read_bytes()), read_file(folder / "good.nii.gz")
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "bad.nii.gz").write_bytes(raw)
    try:
        found = read_file(folder / "bad.nii.gz")
    except FileError:
        return
    assert np.array_equal(found.data, good.data)
    assert found.geometry == good.geometry


@examples(150)
@given(st.data())
def test_any_damaged_header_is_read_or_refused_but_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("header") / "image.nii"
    write_label_volume(labels(oblique()), path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        found = read_file(path)
    except FileError:
        return
    assert found.data.ndim == 4
    assert found.data.shape[1:] == found.geometry.shape


def test_the_message_of_a_cut_file_names_file_bytes_and_remedy(tmp_path):
    path = tmp_path / "cut.nii.gz"
    write_label_volume(labels(oblique()), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(
        FileError, match=r"cut\.nii\.gz: expected 562 decompressed bytes, found \d+; .* ends too early\. Copy or"
    ):
        read_file(path)
    path = tmp_path / "cut.nii"
    write_label_volume(labels(oblique()), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileError, match=r"cut\.nii: expected 562 bytes, found 532; the file is cut short"):
        read_file(path)


def test_bytes_behind_the_last_voxel_are_noticed(tmp_path):
    path = tmp_path / "long.nii"
    write_label_volume(labels(oblique()), path)
    path.write_bytes(path.read_bytes() + b"12")
    with pytest.raises(FileError, match="do not belong together"):
        read_file(path)


def test_gzip_members_and_zero_padding_are_read(tmp_path):
    write_label_volume(labels(oblique()), tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:]) + bytes(512))
    assert np.array_equal(read_file(tmp_path / "b.nii.gz").data, read_file(tmp_path / "a.nii").data)


def test_bytes_behind_the_compressed_voxels_are_not_called_damage_of_these(tmp_path):
    write_label_volume(labels(oblique()), tmp_path / "a.nii.gz")
    with (tmp_path / "a.nii.gz").open("ab") as file:
        file.write(b"sent by mail")
    with pytest.raises(FileError, match=r"found 562; 12 bytes follow that are not compressed\. Copy or export"):
        read_file(tmp_path / "a.nii.gz")


# -- real files ----------------------------------------------------------------------------------------------------------


def real(pattern, count=2):
    found = sorted(DATA.glob(pattern))[:count]
    return found or [pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {DATA}"))]


def quiet_itk(path):
    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return SimpleITK.ReadImage(str(path))
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(before)


@pytest.mark.parametrize(
    "path",
    [
        *real("Dataset027_ACDC/*/*.nii.gz", 4),
        *real("Dataset004_Hippocampus/imagesTr/*.nii.gz"),
        *real("Dataset055_HeadNeckCT/*/*.nii.gz"),
        *real("Dataset137_BraTS/imagesTr/*.nii.gz", 1),
        *real("channels_on_different_grids/cases/patient01/*.nii.gz"),
        *real("dicom/vendors/data/philips/**/*.nii.gz", 3),
        *real("surfaces/pyradiomics/brain1*.nrrd"),
        *real("metrics_vessels/**/*.mha"),
    ],
    ids=lambda path: getattr(path, "name", None),
)
def test_real_files_are_where_simpleitk_has_them(path):
    content, image = read_file(path), quiet_itk(path)
    array = SimpleITK.GetArrayFromImage(image)
    assert np.array_equal(content.data.reshape(array.shape), array)
    assert np.allclose(content.geometry.spacing_mm, image.GetSpacing()[2::-1], atol=1e-5)
    for index in [(0, 0, 0), *np.diag(np.subtract(image.GetSize(), 1)).tolist()][: 1 + 3]:
        index = (*index, 0)[: image.GetDimension()]
        x, y, z = content.geometry.to_world([index[2::-1]])[0]
        assert np.allclose(image.TransformIndexToPhysicalPoint(index)[:3], (-x, -y, z), atol=2e-3)


@pytest.mark.parametrize("path", real("Dataset027_ACDC/imagesTr/*.nii.gz", 1), ids=lambda path: getattr(path, "name", None))
def test_a_result_for_acdc_keeps_its_contradictory_header(tmp_path, path):
    content = read_file(path)
    assert "taken from pixdim" in content.notes[0]
    write_label_volume(labels(content.geometry), tmp_path / "out.nii.gz", like=path)
    before, after = nifti_header(path), nifti_header(tmp_path / "out.nii.gz")
    for name in ("pixdim", "srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "xyzt_units", "descrip"):
        assert before[name].tobytes() == after[name].tobytes(), name
    assert read_geometry(tmp_path / "out.nii.gz") == content.geometry
    assert quiet_itk(tmp_path / "out.nii.gz").GetSpacing() == quiet_itk(path).GetSpacing()


@pytest.mark.skipif(not (DATA / "channels_on_different_grids").exists(), reason=f"no such folder in {DATA}")
def test_real_channels_on_different_grids_are_refused():
    paths = sorted((DATA / "channels_on_different_grids/cases/patient01").glob("study1_*.nii.gz"))
    with pytest.raises(GeometryError, match="share one grid"):
        read_volume(paths)


def test_nibabel_reads_what_was_written(tmp_path):
    volume = image(oblique())
    write_volume(volume, tmp_path / "a.nii.gz")
    found = nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress((tmp_path / "a.nii.gz").read_bytes())))
    assert np.array_equal(np.asarray(found.dataobj).T, volume.data[0])


@pytest.mark.parametrize("ending", [".MHA", ".NRRD", ".NII.GZ"])
def test_endings_in_capital_letters_are_read(tmp_path, ending):
    data = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    small = tmp_path / f"a{ending.lower()}"
    write_volume(Volume(data, Geometry.from_spacing((3, 4, 5), (3.0, 2.0, 1.0))), small)
    small.rename(tmp_path / f"A{ending}")
    found = read_file(tmp_path / f"A{ending}")
    np.testing.assert_array_equal(found.data, data)
    assert found.geometry.spacing_mm == pytest.approx((3.0, 2.0, 1.0))
