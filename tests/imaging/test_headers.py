"""What headers of NRRD and MetaImage say beside the voxels, and headers that lie: made byte by byte, right values by hand."""

import gzip
import zlib

import numpy as np
import pytest
import SimpleITK

from autoseg.errors import AutosegError, FileError, GeometryError
from autoseg.imaging import files, itk, raw
from autoseg.imaging.files import read_file, read_geometry, read_label_volume, read_segmentation, segment_names
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.itk_header import Header
from autoseg.reconstruct.measure import measure_structures

VOXELS = np.arange(24, dtype="<i2").reshape(2, 3, 4)  # (Z, Y, X)
STORED = VOXELS.tobytes()


def mha(path, payload, *, packed=True, size=True, dims="4 3 2", kind="MET_SHORT", more=""):
    """A MetaImage of VOXELS with a header that says what the test wants it to."""
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += [f"CompressedData = {packed}", *([f"CompressedDataSize = {len(payload)}"] if packed and size else [])]
    lines += [*more.splitlines(), "ElementSpacing = 1 2 3", "Offset = 10 20 30", f"DimSize = {dims}", f"ElementType = {kind}"]
    path.write_bytes("\n".join([*lines, "ElementDataFile = LOCAL", ""]).encode() + payload)
    return path


def nrrd(path, *lines, payload=STORED, encoding="raw", sizes="4 3 2", kind="short"):
    head = ["NRRD0005", f"type: {kind}", f"dimension: {len(sizes.split())}", f"sizes: {sizes}", "endian: little"]
    path.write_bytes("\n".join([*head, f"encoding: {encoding}", *lines, "", ""]).encode() + payload)
    return path


# What lies behind the header.


@pytest.mark.thorough
@pytest.mark.parametrize("packed", [zlib.compress, gzip.compress])
@pytest.mark.parametrize("length", [47, 49, 0, 4800, 60_000_000])
def test_compressed_voxels_of_another_length_than_the_header_says_are_refused(tmp_path, packed, length):
    payload = packed((VOXELS.tobytes() * 100)[:length] if length < 5000 else bytes(length))
    for path in (mha(tmp_path / "a.mha", payload), nrrd(tmp_path / "a.nrrd", payload=payload, encoding="gzip")):
        for read in (read_file, read_label_volume):
            with pytest.raises(FileError, match=r"a\.\w+: expected (48 bytes|a complete compressed image)"):
                read(path)


def test_a_metaimage_without_the_compressed_size_is_read_right(tmp_path):
    path = mha(tmp_path / "a.mha", zlib.compress(VOXELS.tobytes()), size=False)
    found = read_file(path)
    assert found.data.dtype == np.int16
    np.testing.assert_array_equal(found.data[0], VOXELS)
    assert found.geometry == read_file(mha(tmp_path / "b.mha", zlib.compress(VOXELS.tobytes()))).geometry
    assert "does not say how long" in found.notes[0]


@pytest.mark.parametrize("kind", ["<i1", "<u1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8"])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_that_are_unpacked_here_are_the_voxels_that_simpleitk_decodes(tmp_path, kind, channels, monkeypatch):
    values = np.random.default_rng(0).integers(0, 100, (2, 3, 4, channels)).astype(kind)
    image = SimpleITK.GetImageFromArray(values[..., 0] if channels == 1 else values, isVector=channels > 1)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"), useCompression=True)
    expected = read_file(tmp_path / "a.mha")
    monkeypatch.setattr(Header, "lacks_packed_size", True)
    found = read_file(tmp_path / "a.mha")
    assert found.data.dtype == expected.data.dtype
    np.testing.assert_array_equal(found.data, expected.data)


@pytest.mark.parametrize("write", [mha, nrrd])
def test_a_header_that_claims_a_million_slices_is_refused_before_anything_is_allocated(tmp_path, write, monkeypatch):
    monkeypatch.setattr(SimpleITK, "ReadImage", None)
    if write is mha:
        path = mha(tmp_path / "a.mha", VOXELS.tobytes(), packed=False, dims="512 512 1000000")
    else:
        path = nrrd(tmp_path / "a.nrrd", sizes="512 512 1000000")
    with pytest.raises(FileError, match="expected 524288000000 bytes of voxels as the header says, found 48"):
        read_file(path)


def test_voxels_that_do_not_fit_into_memory_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "free_memory", lambda: 2**20)
    monkeypatch.setattr(itk, "inflate", None)
    path = mha(tmp_path / "a.mha", zlib.compress(bytes(2**21)), dims="1024 1024 1")
    with pytest.raises(FileError, match=r"found 0.00195 GiB by its header; 0.000977 GiB are free"):
        read_file(path)


@pytest.mark.thorough
def test_a_small_gzip_that_unpacks_to_much_more_than_its_header_says_stays_small(tmp_path):
    header = bytearray(352)
    header[:4] = (348).to_bytes(4, "little")
    header[40:48] = np.array([3, 2, 2, 2], "<i2").tobytes()
    header[70:74] = np.array([2, 8], "<i2").tobytes()  # uint8
    header[108:112] = np.array([352], "<f4").tobytes()
    header[344:348] = b"n+1\0"
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(header) + bytes(80_000_000)))
    out, problem = raw.inflate(path.read_bytes(), 360)
    assert len(out) <= 360 + 2 * raw._AT_ONCE
    assert problem
    with pytest.raises(FileError, match="expected 360 decompressed bytes"):
        read_file(path)


@pytest.mark.parametrize("most", [-(10**12), 10**15])
def test_a_header_that_asks_for_any_size_costs_no_more_memory_than_its_stream_can_fill(most):
    out, problem = raw.inflate(gzip.compress(bytes(9)), most)
    assert (bytes(out), problem) == (bytes(9), None if most > 0 else "more follow, so header and voxels do not belong together")


@pytest.mark.parametrize("member", [1, 3])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_unpacking_piece_by_piece_gives_all_bytes(member, size):
    content = np.random.default_rng(0).integers(0, 3, size).astype(np.uint8).tobytes()
    packed = b"".join(gzip.compress(content, 1) for _ in range(member)) + bytes(7)
    out, problem = raw.inflate(packed, size * member)
    assert (bytes(out) == content * member, problem) == (True, None)
    assert raw.inflate(packed[:-12], size * member)[1]


@pytest.mark.parametrize(
    "lines",
    ["byte skip: 5", "byteskip: 5", "line skip: 1"],
)
def test_what_lies_before_the_compressed_voxels_is_passed_over(tmp_path, lines):
    packed = b"a line\n" + gzip.compress(VOXELS.tobytes()) if "line" in lines else gzip.compress(b"12345" + VOXELS.tobytes())
    path = nrrd(tmp_path / "a.nrrd", lines, payload=packed, encoding="gzip")
    np.testing.assert_array_equal(read_file(path).data[0], VOXELS)


# Units, ranges, scaling.


@pytest.mark.parametrize(
    ("unit", "factor"), [("microns", 1e-3), ("um", 1e-3), ("\u00b5m", 1e-3), ("cm", 10), ("m", 1000), ("mm", 1), ("", 1)]
)
def test_lengths_of_nrrd_are_converted_to_millimetres(tmp_path, unit, factor):
    space = ["space: left-posterior-superior", "space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (10,20,30)"]
    said = f'space units: "{unit}" "{unit}" "{unit}"'
    path = nrrd(tmp_path / "a.nrrd", *space, *([said] if unit else []))
    for grid in (read_file(path).geometry, read_geometry(path)):
        np.testing.assert_allclose(grid.spacing_mm, np.array([3, 2, 1]) * factor)
        np.testing.assert_allclose(grid.to_world([[0, 0, 0]])[0], np.array([-10, -20, 30]) * factor)
    assert [note[:24] for note in read_file(path).notes] == (["Lengths in the header ar"] if factor != 1 else [])
    path = nrrd(tmp_path / "b.nrrd", "spacings: 1 2 3", f'units: "{unit}" "{unit}" "{unit}"')
    np.testing.assert_allclose(read_geometry(path).spacing_mm, np.array([3, 2, 1]) * factor)


@pytest.mark.parametrize(
    ("lines", "axes", "spacing"),
    [
        ([], "x, y, z", (1, 1, 1)),
        (["thicknesses: 1 2 3"], "x, y, z", (1, 1, 1)),
        (["spacings: 2 3 nan"], "z", (1, 3, 2)),
        (["spacings: 2 3 4"], None, (4, 3, 2)),
        (["axis mins: 0 0 0", "axis maxs: 8 9 8"], None, (4, 3, 2)),
    ],
)
def test_nrrd_without_voxel_sizes_is_said_to_be_so(tmp_path, lines, axes, spacing):
    found = read_file(nrrd(tmp_path / "a.nrrd", *lines))
    assert found.geometry.spacing_mm == spacing
    assert [note for note in found.notes if "1 mm is assumed" in note] == (
        [f"The header gives no voxel size along {axes}; 1 mm is assumed."] if axes else []
    )


@pytest.mark.parametrize(
    ("space", "is_said"),
    [("left-posterior-superior", False), ("RAS", False), ("scanner-xyz", True), ("3D-right-handed", True)],
)
def test_nrrd_whose_axes_are_not_those_of_a_patient_is_said_to_be_so(tmp_path, space, is_said):
    found = read_file(nrrd(tmp_path / "a.nrrd", f"space: {space}", "space directions: (1,0,0) (0,2,0) (0,0,3)"))
    assert any("does not say how its axes lie" in note for note in found.notes) == is_said


def test_a_metaimage_without_voxel_sizes_is_said_to_be_so(tmp_path):
    path = mha(tmp_path / "a.mha", STORED, packed=False)
    assert read_file(path).notes == ()
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 2 3\n", b""))
    assert read_file(path).notes == ("The header gives no voxel size along x, y, z; 1 mm is assumed.",)


def test_the_unit_of_a_metaimage_counts(tmp_path):
    path = mha(tmp_path / "a.mha", VOXELS.tobytes(), packed=False, more="DistanceUnits = um")
    np.testing.assert_allclose(read_geometry(path).spacing_mm, [0.003, 0.002, 0.001])


def test_units_that_nobody_knows_are_refused(tmp_path):
    for units in ('"furlong" "furlong" "furlong"', '"mm" "mm" "um"'):
        with pytest.raises(FileError, match="expected one unit of length"):
            read_geometry(nrrd(tmp_path / "a.nrrd", "spacings: 1 2 3", f"units: {units}"))


@pytest.mark.parametrize(
    ("centres", "spacing", "first"),
    [
        ("", (4, 1, 0.5), (0.25, 0.5, 2)),  # cells: 8 mm of 2 samples
        ("centers: cell cell cell", (4, 1, 0.5), (0.25, 0.5, 2)),
        ("centerings: node node node", (8, 1.5, 2 / 3), (0, 0, 0)),  # from the first centre to the last
    ],
)
def test_nrrd_with_axis_ranges_has_their_voxel_size(tmp_path, centres, spacing, first):
    path = nrrd(tmp_path / "a.nrrd", "axis mins: 0 0 0", "axis maxs: 2 3 8", *([centres] if centres else []))
    for grid in (read_file(path).geometry, read_geometry(path)):
        np.testing.assert_allclose(grid.spacing_mm, spacing)
        np.testing.assert_allclose(grid.to_world([[0, 0, 0]])[0], np.array(first) * [-1, -1, 1])
    assert "axis mins" in read_file(path).notes[0]


def test_slope_and_offset_of_a_metaimage_are_applied(tmp_path):
    scale = "ElementToIntensityFunctionSlope = 2.5\nElementToIntensityFunctionOffset = -1024"
    found = read_file(mha(tmp_path / "a.mha", VOXELS.tobytes(), packed=False, more=scale))
    np.testing.assert_array_equal(found.data[0], VOXELS * 2.5 - 1024)
    assert "times 2.5 plus -1024" in found.notes[0]
    plain = "ElementToIntensityFunctionSlope = 1\nElementToIntensityFunctionOffset = 0"
    assert read_file(mha(tmp_path / "b.mha", VOXELS.tobytes(), packed=False, more=plain)).data.dtype == np.int16


def test_a_left_anterior_superior_nrrd_lies_where_its_header_says(tmp_path):
    space = ["space: left-anterior-superior", "space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (10,20,30)"]
    grid = read_geometry(nrrd(tmp_path / "a.nrrd", *space))
    np.testing.assert_allclose(grid.to_world([[0, 0, 0], [1, 1, 1]]), [[-10, 20, 30], [-11, 22, 33]])  # RAS


# Voxels of any size.


@pytest.mark.parametrize("edge", [1e-5, 5e-5, 1e-4, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_small_and_large_voxels_are_where_their_header_says(tmp_path, edge, ending):
    grid = Geometry.from_affine((3, 4, 5), [[0, 0, -edge, 2 * edge], [0, edge, 0, 3 * edge], [2 * edge, 0, 0, edge]])
    labels = files.LabelVolume(np.ones(grid.shape, np.uint8), grid)
    files.write_label_volume(labels, tmp_path / f"a{ending}")
    found = read_geometry(tmp_path / f"a{ending}")
    np.testing.assert_allclose(found.affine / edge, grid.affine / edge, rtol=1e-5, atol=1e-5)
    assert found.is_same_grid(grid)
    assert not grid.is_same_grid(grid.cropped((1, 0, 0), grid.shape))  # a voxel apart, be it 10 nm


def test_a_nifti_in_metres_keeps_its_orientation_and_place(tmp_path):
    import nibabel

    affine = np.array([[-5e-5, 0, 0, 0.01], [0, -5e-5, 0, 0.02], [0, 0, 5e-5, 0.03], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(VOXELS.T.copy(), affine)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    found = read_file(tmp_path / "a.nii")
    np.testing.assert_allclose(found.geometry.affine[:3, [2, 1, 0, 3]], 1000 * affine[:3], rtol=1e-6)
    assert found.notes == ("Lengths in the header are in metres; they are converted to mm.",)


@pytest.mark.parametrize("edge", [1e6, 1e300, 1e-9])
@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_voxels_that_nothing_has_are_refused(tmp_path, edge, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".nii":
        image = files.LabelVolume(np.ones((2, 3, 4), np.uint8), Geometry.from_spacing((2, 3, 4), (1, 1, 1)))
        files.write_label_volume(image, path)
        content = bytearray(path.read_bytes())
        with np.errstate(over="ignore"):
            content[76:92] = np.array([1, edge, edge, edge], "<f4").tobytes()
        content[252:256] = bytes(4)  # no qform, no sform: pixdim counts
        path.write_bytes(content)
    elif ending == ".nrrd":
        nrrd(path, f"spacings: {edge} {edge} {edge}")
    else:
        mha(path, VOXELS.tobytes(), packed=False)
        path.write_bytes(path.read_bytes().replace(b"1 2 3", f"{edge} {edge} {edge}".encode()))
    for read in (read_file, read_geometry):
        with pytest.raises(AutosegError, match=f"a{ending}: expected"):
            read(path)


def test_directions_that_nearly_coincide_are_flat_whatever_their_length():
    for scale in (1e-6, 1.0, 1e3):
        with pytest.raises(GeometryError, match="three directions"):
            Geometry.from_affine((2, 2, 2), np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0.0]]) * scale)


# Labels that are nearly whole, and segmentations of 3D Slicer.


@pytest.mark.parametrize(
    ("highest", "stored"), [(2, np.int16), (7, np.int16), (104, np.int16), (628, np.int16), (7, np.uint8), (24, np.int8)]
)
def test_labels_that_a_scale_in_the_header_left_beside_whole_numbers_are_read(tmp_path, highest, stored):
    import nibabel

    labels = np.arange(highest + 1, dtype=float).reshape(1, 1, -1)
    image = nibabel.Nifti1Image(labels, np.eye(4))
    image.set_data_dtype(stored)
    nibabel.save(image, tmp_path / "a.nii")
    assert not (nibabel.load(tmp_path / "a.nii").get_fdata() == labels).all()
    np.testing.assert_array_equal(read_label_volume(tmp_path / "a.nii").data, labels.T)
    found = read_file(tmp_path / "a.nii", as_label=True)
    assert "off whole numbers, because of a scale in the header; they are rounded" in found.notes[-1]
    assert read_file(tmp_path / "a.nii").notes == ()  # as intensities they stay as they are


@pytest.mark.parametrize(("ending", "more"), [("nii.gz", ""), ("nrrd", ""), ("mha", ""), ("mha", "0.50001")])
def test_a_scale_is_blamed_for_labels_beside_whole_numbers_only_where_the_header_has_one(tmp_path, ending, more):
    path, data = tmp_path / f"a.{ending}", np.array([0, 1.00001, 2, 2.00001], np.float32).reshape(1, 1, 4)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(data * (2 if more else 1)), path)
    if more:
        slope = f"ElementToIntensityFunctionSlope = {more}\nElementDataFile".encode()
        path.write_bytes(path.read_bytes().replace(b"ElementDataFile", slope, 1))
    found = read_file(path, as_label=True)
    np.testing.assert_array_equal(found.data.ravel(), [0, 1, 2, 2])
    assert "off whole numbers" in found.notes[-1]
    assert ("scale in the header" in found.notes[-1]) == bool(more)


@pytest.mark.parametrize("stored", [np.uint8, np.int16])
def test_a_scale_in_the_header_does_not_make_labels_of_interpolated_ones(tmp_path, stored):
    import nibabel

    image = nibabel.Nifti1Image(np.array([0, 0.12, 1, 1.9, 7]).reshape(1, 1, -1), np.eye(4))
    image.set_data_dtype(stored)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(FileError, match="nearest neighbour"):
        read_label_volume(tmp_path / "a.nii")


def test_labels_that_were_interpolated_are_refused_with_the_remedy(tmp_path):
    data = np.array([0, 0.998, 1, 2]).reshape(1, 1, 1, 4)
    files.write_volume(files.Volume(data.astype(np.float32), Geometry.from_spacing((1, 1, 4), (1, 1, 1))), tmp_path / "a.nii")
    with pytest.raises(FileError, match="nearest neighbour"):
        read_label_volume(tmp_path / "a.nii")


SEGMENTS = (
    "Segment0_ID:=Segment_1",
    "Segment0_Name:=liver",
    "Segment0_LabelValue:=1",
    "Segment0_Layer:=0",
    "Segment1_ID:=Segment_2",
    "Segment1_Name:=vein",
    "Segment1_LabelValue:={}",
    "Segment1_Layer:={}",
)
SPACE = ("space: left-posterior-superior", "space directions: {}(2,0,0) (0,2,0) (0,0,2)", "kinds: {}domain domain domain")


def segmentation(path, layers, origin=(0, 0, 0), value=2, layer=0):
    """(L, Z, Y, X) layers as 3D Slicer writes them: several as a first axis of the kind list."""
    lead = "none " if len(layers) > 1 else "", "list " if len(layers) > 1 else ""
    lines = [SPACE[0], SPACE[1].format(lead[0]), SPACE[2].format(lead[1]), "space origin: ({},{},{})".format(*origin)]
    names = [line.format(value if "Value" in line else layer) for line in SEGMENTS]
    sizes = " ".join(str(n) for n in ([len(layers)] if len(layers) > 1 else []) + list(layers.shape[:0:-1]))
    payload = gzip.compress(np.moveaxis(layers, 0, -1).astype(np.uint8).tobytes())
    return nrrd(path, *lines, *names, payload=payload, encoding="gzip", sizes=sizes, kind="unsigned char")


def test_a_segmentation_of_slicer_is_read_with_its_names(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (1, 3, 4, 5))
    path = segmentation(tmp_path / "P1.seg.nrrd", labels)
    assert segment_names(path) == {"liver": 1, "vein": 2}
    np.testing.assert_array_equal(read_label_volume(path).data, labels[0])
    assert read_geometry(path).spacing_mm == (2, 2, 2)


def test_a_cropped_segmentation_of_slicer_is_laid_on_the_scan(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (1, 3, 4, 5))
    path = segmentation(tmp_path / "P1.seg.nrrd", labels, origin=(4, 2, 6))
    scan = Geometry.from_affine((9, 9, 9), [[0, 0, -2, 0], [0, -2, 0, 0], [2, 0, 0, 0]])
    expected = np.zeros(scan.shape, int)
    expected[3:6, 1:5, 2:7] = labels[0]
    found = read_label_volume(path, onto=scan)
    assert found.geometry == scan
    np.testing.assert_array_equal(found.data, expected)


def test_nobody_knows_whether_a_segmentation_of_slicer_is_cut_until_it_lies_on_its_scan(tmp_path):
    labels = np.zeros((1, 5, 6, 7), int)
    labels[0, :, :, :3], labels[0, 2, 3, 5] = 1, 2
    path = segmentation(tmp_path / "P1.seg.nrrd", labels, origin=(4, 2, 6))
    scan = Geometry.from_affine((9, 9, 9), [[0, 0, -2, 0], [0, -2, 0, 0], [2, 0, 0, 0]])
    for onto, expected in ((None, [None, False]), (scan, [False, False])):
        found = measure_structures(read_label_volume(path, onto=onto), {"liver": (1,), "vein": (2,)})
        assert [one.touches_border for one in found] == expected
        assert not any("cut by the border" in one.note for one in found)


def test_layers_of_slicer_that_do_not_overlap_are_one_map_and_others_are_told_apart(tmp_path):
    layers = np.zeros((2, 2, 3, 4), int)
    layers[0, 0], layers[1, 1] = 1, 1
    path = segmentation(tmp_path / "P1.seg.nrrd", layers, value=1, layer=1)
    assert segment_names(path) == {"liver": 1, "vein": 2}
    found = read_label_volume(path)
    assert found.data[:, 0, 0].tolist() == [1, 2]
    layers[1, 0, 0, 0] = 1
    path = segmentation(tmp_path / "P1.seg.nrrd", layers, value=1, layer=1)
    with pytest.raises(FileError, match="found liver and vein in the same voxels"):
        read_label_volume(path)
    for name, number in (("liver", 0), ("vein", 1)):
        np.testing.assert_array_equal(read_segmentation(path).mask(name).data[0], layers[number] == 1)


def test_segments_of_slicer_whose_numbers_have_gaps_are_all_read(tmp_path):
    layers = np.zeros((2, 2, 3, 4), int)
    layers[0, 0], layers[1, 1] = 1, 1
    path = segmentation(tmp_path / "P1.seg.nrrd", layers, value=1, layer=1)
    path.write_bytes(path.read_bytes().replace(b"Segment1_", b"Segment7_"))
    assert segment_names(path) == {"liver": 1, "vein": 2}
    assert read_label_volume(path).data[:, 0, 0].tolist() == [1, 2]


def test_voxels_of_no_segment_in_layers_of_slicer_are_refused(tmp_path):
    layers = np.zeros((2, 2, 3, 4), int)
    layers[0, 0], layers[1, 1], layers[1, 1, 2, 3] = 1, 1, 9
    path = segmentation(tmp_path / "P1.seg.nrrd", layers, value=1, layer=1)
    with pytest.raises(FileError, match="P1.seg.nrrd: expected voxels of its segments, found the values 9 in 1 others"):
        read_label_volume(path)


@pytest.mark.parametrize("line", ["Segment0_LabelValue:=x", "Segment0_LabelValue:=0", "Segment0_Layer:=7"])
def test_a_segmentation_of_slicer_whose_header_makes_no_sense_is_refused(tmp_path, line):
    layers = np.zeros((2, 2, 3, 4), int)
    path = segmentation(tmp_path / "P1.seg.nrrd", layers, value=1, layer=1)
    key = line.partition(":=")[0].encode()
    content = path.read_bytes()
    old = content[content.index(key) : content.index(b"\n", content.index(key))]
    path.write_bytes(content.replace(old, line.encode()))
    with pytest.raises(FileError, match=r"P1.seg.nrrd: expected (label value and layer|label values from 1|liver in layer 7)"):
        read_label_volume(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("NDims = 3", "NDims = 2"),
        ("NDims = 3", "NDims = three"),
        ("NDims = 3\n", ""),
        ("NDims = 3", "NDims = 3\nNDims = 3"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 2"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 2 3 4"),
        ("Offset = 10 20 30", "Offset = 10 20 x"),
        ("ObjectType = Image", "ObjectType = Mesh"),
        ("ObjectType = Image", f"ObjectType = Image\n{'k' * 201} = 1"),
        ("ObjectType = Image", f"ObjectType = Image\nComment = {'k' * 5000}"),
        ("ObjectType = Image", "ObjectType = Image\nComment = a\0b"),
    ],
)
def test_a_metaimage_whose_header_is_malformed_is_refused_before_itk_sees_it(tmp_path, old, new, monkeypatch):
    path = mha(tmp_path / "a.mha", STORED, packed=False)
    assert read_file(path).data.shape == (1, 2, 3, 4)
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    monkeypatch.setattr(SimpleITK, "ImageFileReader", None)
    for read in (read_file, read_geometry, read_label_volume):
        with pytest.raises(FileError, match=r"a\.mha: expected .* Copy or export"):
            read(path)
    assert files.description_of(path) == ""


@pytest.mark.parametrize("sizes", ["3 4 3 2", "2", "x"])
def test_an_nrrd_whose_sizes_are_not_those_of_its_axes_is_refused_before_itk_sees_it(tmp_path, sizes, monkeypatch):
    path = nrrd(tmp_path / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(b"dimension: 3", f"dimension: {sizes}".encode()))
    monkeypatch.setattr(SimpleITK, "ImageFileReader", None)
    for read in (read_file, read_geometry):
        with pytest.raises(FileError, match=r"a\.nrrd: expected as many sizes as axes"):
            read(path)
