"""Structure sets (RTSTRUCT) are labels wherever segmentation objects are: drawn exactly on the grid of the scan, or refused."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage
from scipy.spatial.transform import Rotation
from skimage.measure import points_in_poly

from autoseg.cli import main
from autoseg.data.dataset import read_dataset
from autoseg.errors import AutosegError, FileError, GeometryError
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.dicom_rtstruct import write_rtstruct
from autoseg.imaging.files import (
    read_file,
    read_geometry,
    read_label_volume,
    read_segmentation,
    segment_names,
    write_label_volume,
    write_volume,
)
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from tests.helpers import dicom as draw

GRID = Geometry.from_affine((6, 20, 24), [[0, 0, 1.0, -10], [0, 1.0, 0, 5], [3.0, 0, 0, 100]])  # z, y, x; RAS+
WAYS = {"model": "m", "version": "1"}
TURNS = [
    np.eye(3),
    np.diag([-1.0, -1, 1]),
    np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]]),  # sagittal
    Rotation.from_euler("xyz", (15, -40, 110), degrees=True).as_matrix(),
]
SQUARE = [(4, 4), (4, 12), (12, 12), (12, 4)]  # rows and columns, through centres of voxels
SPACINGS = [(2.5, 0.8, 0.7), (5.0, 0.3, 1.9), (0.009, 0.009, 0.009), (0.009, 0.05, 0.02)]


def placed(points, z, grid=GRID):
    """ContourData of a polygon of (row, column) on a slice."""
    index = [(z, *point) for point in points]
    return [f"{value:.4f}" for value in (grid.to_world(index) * (-1, -1, 1)).ravel()]


def contour(points, z, kind="CLOSED_PLANAR", **changes):
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = placed(points, z)
    for name, value in changes.items():
        setattr(item, name, value)
    return item


def structure_set(path, structures, syntax=ImplicitVRLittleEndian, change=None):
    """Write a structure set of {name: contours}, numbered from 1; ``change`` edits it before. Returns the path."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTStructureSetStorage, "1.2.6.1", "RTSTRUCT"
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), start=1):
        roi, shape = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, "1.2.3.5"
        shape.ReferencedROINumber, shape.ContourSequence = number, list(contours)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(shape)
    if change:
        change(ds)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def box(z, rows, columns):
    mask = np.zeros(GRID.shape, bool)
    mask[z, slice(*rows), slice(*columns)] = True
    return mask


def mask_of(path, name, grid=GRID):
    """(bool mask, notes) of one structure."""
    content = read_segmentation(path).mask(name, grid)
    return content.data[0].astype(bool), content.notes


def scan(path, grid, seed):
    write_volume(Volume(draw.random_values(grid.shape, seed)[None].astype(np.float32), grid), path)


# -- where voxels lie ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing_mm", SPACINGS, ids=str)
@pytest.mark.parametrize("rotation", TURNS, ids=["axial", "turned", "sagittal", "oblique"])
def test_what_we_write_comes_back_voxel_for_voxel_on_any_grid_of_the_scan(tmp_path, spacing_mm, rotation):
    values = np.random.default_rng(0).integers(0, 3, (5, 9, 10)).astype(np.uint8)  # holes, corners that touch, single voxels
    folder = draw.write_series(tmp_path / "in", draw.random_values(values.shape), spacing_mm=spacing_mm, rotation=rotation)
    (series,) = find_series(folder).series
    grid = read_geometry(series)
    write_rtstruct(tmp_path / "a.dcm", series, LabelVolume(values, grid), {"a": (1,), "b": (2,)}, **WAYS)
    assert segment_names(tmp_path / "a.dcm") == {"a": 1, "b": 2}
    for order, flips in (((0, 1, 2), ()), ((0, 1, 2), (0, 2)), ((2, 0, 1), (1,))):
        onto = grid.oriented(order, flips)
        found = read_label_volume(tmp_path / "a.dcm", onto=onto)
        assert found.geometry == onto
        np.testing.assert_array_equal(found.data, np.flip(values.transpose(order), flips))


def test_a_voxel_is_inside_if_its_centre_is_as_another_test_of_points_finds(tmp_path):
    """Stars and random polygons that cross themselves; no point of the grid lies on an edge."""
    rng = np.random.default_rng(1)
    polygons = [rng.uniform(-4, 24, (n, 2)) for n in (3, 4, 7, 30, 200)]
    path = structure_set(tmp_path / "a.dcm", {"a": [contour(points, z) for z, points in enumerate(polygons)]})
    found, notes = mask_of(path, "a")
    pixels = np.indices(GRID.shape[1:]).reshape(2, -1).T
    cut = 0
    for z, points in enumerate(polygons):
        exact = GRID.to_index(np.reshape(placed(points, z), (-1, 3)).astype(float) * (-1, -1, 1))[:, 1:]
        np.testing.assert_array_equal(found[z].ravel(), points_in_poly(pixels, exact))
        cut += ((exact < -0.5) | (exact > np.array(GRID.shape[1:]) - 0.5)).any()
    assert notes == (f"a: contours cut off at the edge of the image: {cut}.",)


def test_structures_with_a_common_border_share_no_voxel_and_leave_none_out(tmp_path):
    """Borders through centres of voxels, straight and slanted, walked in both directions."""
    rng = np.random.default_rng(2)
    middle = [(float(row), float(rng.integers(6, 18))) for row in range(2, 17)]
    left = [(2, 3), *middle, (16, 3)]
    right = [(16, 20), *middle[::-1], (2, 20)]
    path = structure_set(tmp_path / "a.dcm", {"a": [contour(left, 2)], "b": [contour(right, 2)], "c": [contour(SQUARE, 3)]})
    (a, _), (b, _), (c, _) = (mask_of(path, name) for name in "abc")
    assert min(a.sum(), b.sum()) > 0
    assert not (a & b).any()
    whole, _ = mask_of(structure_set(tmp_path / "b.dcm", {"w": [contour([(2, 3), (2, 20), (16, 20), (16, 3)], 2)]}), "w")
    np.testing.assert_array_equal(a | b, whole)
    assert c.sum() == 64  # 8 of 9 rows and columns of centres: each border belongs to one side


def test_contours_within_others_and_keyholes_are_holes(tmp_path):
    outer, inner = [(3.5, 3.5), (3.5, 15.5), (15.5, 15.5), (15.5, 3.5)], [(6.5, 6.5), (6.5, 9.5), (9.5, 9.5), (9.5, 6.5)]
    island = [(7.5, 7.5), (7.5, 8.5), (8.5, 8.5), (8.5, 7.5)]
    seam = [*outer, outer[0], *inner[::-1], inner[-1], outer[0]]  # in along a slanted seam through centres, and out again
    path = structure_set(
        tmp_path / "a.dcm",
        {"nested": [contour(part, 1) for part in (outer, inner, island)], "keyhole": [contour(seam, 1)]},
    )
    ring = box(1, (4, 16), (4, 16)) & ~box(1, (7, 10), (7, 10))
    np.testing.assert_array_equal(mask_of(path, "keyhole")[0], ring)
    np.testing.assert_array_equal(mask_of(path, "nested")[0], ring | box(1, (8, 9), (8, 9)))


def test_outlines_are_drawn_on_pixels_of_another_size_but_slices_must_be_the_same(tmp_path):
    fine = GRID.resized((6, 40, 72))
    path = structure_set(tmp_path / "a.dcm", {"a": [contour(SQUARE, z) for z in range(1, 5)]})
    assert mask_of(path, "a", fine)[0].sum() == 4 * 16 * 24
    for grid, said in (
        (GRID.resized((9, 20, 24)), "found 4 of 4 up to 0.25 slices away"),  # 2 mm instead of 3 mm
        (GRID.resized((18, 20, 24)), "found them on one in 3 only"),
        (GRID.cropped((0, 50, 0), (6, 20, 24)), "found all beyond it"),
        (GRID.cropped((9, 0, 0), (6, 20, 24)), "found all beyond it"),
    ):
        with pytest.raises(GeometryError, match=r"a\.dcm: expected") as fault:
            mask_of(path, "a", grid)
        assert said in str(fault.value)
        assert "Give the scan that they were drawn on" in str(fault.value)


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_on_their_slices(tmp_path):
    thin = Geometry.from_affine((6, 20, 24), [[0, 0, 1.0, 0], [0, 1.0, 0, 0], [0.625, 0, 0, 0]])

    def rounded(ds):
        for z, item in enumerate(ds.ROIContourSequence[0].ContourSequence):
            item.ContourData = [value if i % 3 < 2 else f"{0.625 * z:.1f}" for i, value in enumerate(placed(SQUARE, z, thin))]

    path = structure_set(tmp_path / "a.dcm", {"a": [contour(SQUARE, z) for z in range(6)]}, change=rounded)
    assert mask_of(path, "a", thin)[0].sum() == 6 * 64


# -- what is left out, in words ------------------------------------------------------------------------------------------


def test_what_is_no_volume_is_left_out_and_said(tmp_path):
    path = structure_set(
        tmp_path / "a.dcm",
        {
            "ISO": [contour([(5, 5)], 2, "POINT")],
            "wire": [contour(SQUARE, 2, "OPEN_PLANAR"), contour(SQUARE, 3, "OPEN_NONPLANAR")],
            "Heart": [
                contour(SQUARE, 1),
                contour(SQUARE, 1),
                contour([*SQUARE, SQUARE[0]], 4),  # closed by its first point again
                contour([(1, 1), (2, 2)], 1),
                contour([(5, 5)], 1, "POINT"),
                contour(SQUARE, 9),
                contour([(5, 20), (5, 40), (9, 40), (9, 20)], 4),
            ],
            "PTV": [],
        },
    )
    assert segment_names(path) == {"Heart": 3, "PTV": 4}
    found, notes = mask_of(path, "Heart")
    np.testing.assert_array_equal(found, box(1, (5, 13), (5, 13)) | box(4, (5, 13), (5, 13)) | box(4, (6, 10), (21, 24)))
    assert notes == (
        "Left out, since they are not closed: ISO (POINT), wire (OPEN_PLANAR, OPEN_NONPLANAR).",
        "Not drawn, so taken as empty: PTV.",
        "Heart: contours that are not closed (POINT), left out: 1.",
        "Heart: contours of fewer than 3 points, left out: 1.",
        "Heart: contours that are there twice, counted once: 1.",
        "Heart: contours beyond the slices of the scan, left out: 1.",
        "Heart: contours cut off at the edge of the image: 1.",
        "Heart: slices between its first and its last without a contour, left empty: 2.",
    )
    assert not mask_of(path, "PTV")[0].any()


def test_numbers_and_names_of_any_kind_are_distinct(tmp_path):
    def change(ds):
        for roi, shape, number in zip(ds.StructureSetROISequence, ds.ROIContourSequence, (0, 7, 12, 4, 9), strict=True):
            roi.ROINumber = shape.ReferencedROINumber = number
        ds.StructureSetROISequence[2].ROIName = "GTV"
        del ds.StructureSetROISequence[3]  # number 4 has contours, and no name

    names = ["Lunge (links) / ä", "GTV", "third", "fourth", "GTV 7"]
    path = structure_set(tmp_path / "a.dcm", {name: [contour(SQUARE, 1)] for name in names}, change=change)
    assert segment_names(path) == {"segment 4": 4, "GTV 7 7": 7, "GTV 7": 9, "GTV 12": 12, "Lunge (links) / ä": 13}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=lambda syntax: syntax.name)
@pytest.mark.filterwarnings("ignore:The value for the data element")
def test_a_contour_of_any_length_is_read(tmp_path, syntax):
    """Beyond 64 kB, explicit VR has to call it UN."""
    angles = np.linspace(0, 2 * np.pi, 9000, endpoint=False)
    circle = np.stack([10 + 7.3 * np.sin(angles), 11 + 7.3 * np.cos(angles)], axis=1)
    path = structure_set(tmp_path / "a.dcm", {"a": [contour(circle, 2)]}, syntax)
    assert len(pydicom.dcmread(path).ROIContourSequence[0].ContourSequence[0].get_item("ContourData").value) > 1 << 16
    rows, columns = np.indices(GRID.shape[1:])
    np.testing.assert_array_equal(mask_of(path, "a")[0][2], np.hypot(rows - 10, columns - 11) < 7.3)


# -- refused, with a remedy ----------------------------------------------------------------------------------------------


def first(ds):
    return ds.ROIContourSequence[0].ContourSequence[0]


def set_to(name, value, of=first):
    return lambda ds: setattr(of(ds), name, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_to("NumberOfContourPoints", 5), "a: expected a contour of 5 points, found 12 coordinates"),
        (set_to("ContourData", ["1", "2"]), "found 2 coordinates"),
        (set_to("ContourData", ["1e30", *placed(SQUARE, 1)[1:]]), "expected coordinates within 1e+07 mm"),
        (set_to("ROINumber", 2, lambda ds: ds.StructureSetROISequence[0]), "structure number once, found 2 twice"),
        (set_to("ReferencedROINumber", 2, lambda ds: ds.ROIContourSequence[0]), "found two for 2"),
        (
            set_to("ReferencedFrameOfReferenceUID", "1.9", lambda ds: ds.StructureSetROISequence[0]),
            "one frame of reference, found 2, such as those of a and b",
        ),
        (
            set_to("StructureSetROISequence", [], lambda ds: set_to("ROIContourSequence", [], lambda ds: ds)(ds) or ds),
            "found none",
        ),
        (
            set_to("ContourData", placed([(4, 4), (4, 12), (12, 12), (12, 4)], 1)[:11] + ["101.2"]),
            "1 of 1 up to 0.6 slices away",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, change, said):
    path = structure_set(tmp_path / "a.dcm", {"a": [contour(SQUARE, 1)], "b": [contour(SQUARE, 2)]}, change=change)
    with pytest.raises(AutosegError) as fault:
        read_label_volume(path, onto=GRID)
    assert str(path) in str(fault.value)
    assert said in str(fault.value)


def test_numbers_that_are_none_and_damage_are_refused(tmp_path):
    path = structure_set(tmp_path / "a.dcm", {"a": [contour(SQUARE, 1)]})
    raw = path.read_bytes()
    number = placed(SQUARE, 1)[3].encode()
    for changed in (b"nan".ljust(len(number)), b"x".ljust(len(number)), b"1,5".ljust(len(number)), b"\\" * len(number)):
        path.write_bytes(raw.replace(number, changed, 1))
        with pytest.raises(FileError, match=r"a\.dcm: "):
            read_label_volume(path, onto=GRID)


def test_contours_need_a_grid_and_one_structure_per_voxel_where_a_map_is_wanted(tmp_path, capsys):
    maps = tmp_path / "maps"
    structure_set(maps / "a.dcm", {"a": [contour(SQUARE, 1)], "b": [contour(SQUARE, 1)]})
    with pytest.raises(FileError, match=r"found a and b in one\. `autoseg convert folders` makes regions"):
        read_label_volume(maps / "a.dcm", onto=GRID)
    assert main(["reconstruct", "-i", str(maps), "-o", str(tmp_path / "out"), "--surfaces", "none", "--quiet"]) == 1
    said = capsys.readouterr().out
    assert "a.dcm: expected labels of voxels, found contours (RTSTRUCT), which need the grid of their scan" in said
    assert "autoseg convert folders" in said


# -- on the command line -------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_structure_sets_are_labels_of_a_data_set_by_their_names(tmp_path, capsys):
    """Case a has a lesion within the liver, numbered otherwise than in b; c has none, and a marker."""
    lesion = [(6, 6), (6, 8), (8, 8), (8, 6)]
    sets = {
        "a": {"liver": [contour(SQUARE, z) for z in (1, 2, 3)], "lesion": [contour(lesion, 2)]},
        "b": {"lesion": [contour(lesion, 1)], "liver": [contour(SQUARE, z) for z in (1, 3)], "PTV": []},
        "c": {"liver": [contour(SQUARE, 4)], "lesion": [], "ISO": [contour([(1, 1)], 1, "POINT")]},
    }
    for case, structures in sets.items():
        scan(tmp_path / "scans" / f"{case}.nii.gz", GRID.flipped((0, 2)) if case == "b" else GRID, ord(case))
        structure_set(tmp_path / "maps" / f"{case}.dcm", structures)
    out = tmp_path / "Dataset001_RT"
    call = ["convert", "folders", str(tmp_path / "scans"), str(out), "--labels", str(tmp_path / "maps"), "--channels", "CT"]
    assert main([*call, "--quiet"]) == 0
    said = capsys.readouterr().out
    for note in (
        "liver: slices between its first and its last without a contour, left empty: 1",
        "Left out, since they are not closed: ISO (POINT)",
        "Not drawn, so taken as empty: lesion",
        "no voxel of PTV in any case: no label",
    ):
        assert note in said
    dataset = read_dataset(out)
    assert dataset.labels.structures == ("lesion", "liver")
    for case in dataset.training:
        grid = read_geometry(case.images[0])
        data = read_label_volume(case.label, onto=grid).data
        for number, name in enumerate(dataset.labels.structures):
            expected = mask_of(tmp_path / "maps" / f"{case.id}.dcm", name, grid)[0]
            np.testing.assert_array_equal(dataset.labels.mask(data, number), expected)
    assert main(["verify", str(out), "--workspace", str(tmp_path / "w"), "--quiet"]) == 0


def test_chosen_structures_alone_are_read_and_the_others_still_tell_another_scan(tmp_path):
    damaged = contour(SQUARE, 1, NumberOfContourPoints=7)
    every_other = [contour(SQUARE, z) for z in (0, 2, 4)]
    of = {"BODY": [contour(SQUARE, 1), damaged], "a": every_other, "b": [contour(SQUARE, 1)]}
    path = structure_set(tmp_path / "a.dcm", of)
    with pytest.raises(FileError):
        read_segmentation(path)
    chosen = read_segmentation(path, ["a"])
    assert list(chosen.segments) == ["a"]
    np.testing.assert_array_equal(chosen.mask("a", GRID).data[0], sum(box(z, (5, 13), (5, 13)) for z in (0, 2, 4)))
    alone = structure_set(tmp_path / "b.dcm", {"BODY": [], "a": every_other})
    with pytest.raises(GeometryError, match="found them on one in 2 only"):
        read_segmentation(alone, ["a"]).mask("a", GRID)


def test_structures_of_a_structure_set_are_chosen_in_any_spelling(tmp_path, capsys):
    for case, name in {"a": "Lung_L", "b": "lung l"}.items():
        scan(tmp_path / "scans" / f"{case}.nii.gz", GRID, ord(case))
        structure_set(tmp_path / "maps" / f"{case}.dcm", {"BODY": [contour(SQUARE, 1)], name: [contour(SQUARE, 1)], "x": []})
    out = tmp_path / "Dataset001_RT"
    call = ["convert", "folders", str(tmp_path / "scans"), str(out), "--labels", str(tmp_path / "maps"), "--channels", "CT"]
    assert main([*call, "--structures", "Lung_L", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "2 structures not chosen: 'BODY', 'x'" in said
    assert "'Lung_L' is written 'lung l' in 1 case" in said
    dataset = read_dataset(out)
    assert dataset.labels.groups == {"Lung_L": (1,)}
    for case in dataset.training:
        np.testing.assert_array_equal(read_label_volume(case.label, onto=GRID).data, box(1, (5, 13), (5, 13)))


@pytest.mark.thorough
@pytest.mark.parametrize("is_reference", [True, False])
def test_structure_sets_are_scored_beside_label_maps(tmp_path, is_reference):
    structure_set(tmp_path / "rt" / "a.dcm", {"a": [contour(SQUARE, 1)], "b": [contour(SQUARE, 3)]})
    values = (box(1, (5, 13), (5, 13)) + 2 * box(3, (5, 13), (5, 13))).astype(np.uint8)
    write_label_volume(LabelVolume(values, GRID), tmp_path / "map" / "a.nii.gz")
    reference, predicted = ("rt", "map") if is_reference else ("map", "rt")
    call = ["--reference", str(tmp_path / reference), "--predicted", str(tmp_path / predicted), "-o", str(tmp_path / "out")]
    assert main(["evaluate", *call, "--quiet"]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    names = ("a", "b") if is_reference else ("label 1", "label 2")  # those of the references
    assert {(row["structure"], row["dice"]) for row in rows} >= {(name, "1.0") for name in names}


def test_the_digest_is_that_of_the_file_and_nothing_of_it_changes(tmp_path):
    path = structure_set(tmp_path / "a.dcm", {"a": [contour(SQUARE, 1)]})
    before = Path(path).read_bytes()
    content = read_file(path, as_label=True, onto=GRID)
    assert not content.is_part
    assert content.digest == read_segmentation(path).mask("a", GRID).digest
    assert path.read_bytes() == before
