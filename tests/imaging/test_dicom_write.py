"""Labels leave as DICOM objects and lie where they lay: read back by other code, for every orientation."""

import itertools
import warnings
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.sr.codedict import codes
from scipy.spatial.transform import Rotation
from skimage.color import lab2rgb
from skimage.measure import points_in_poly

from autoseg.errors import FileError
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.dicom_codes import code_structure
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.dicom_rtstruct import outlines, write_rtstruct
from autoseg.imaging.dicom_seg import write_seg
from autoseg.imaging.files import read_geometry
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from tests.helpers import dicom as draw

DATA = Path(__file__).parents[3] / "shared" / "data"
STRUCTURES = {"Left Kidney": (3,), "tumour": (7,), "absent": (9,)}
REGIONS = {"whole": (3, 7), "core": (7,)}
WAYS = {"model": "kidneys 0123", "version": "1.2"}

TURNS = [np.array(s) * np.eye(3)[:, o] for o in itertools.permutations(range(3)) for s in itertools.product((1, -1), repeat=3)]
TURNS = [turn for turn in TURNS if np.linalg.det(turn) > 0]
OBLIQUE = [Rotation.from_euler("xyz", angles, degrees=True).as_matrix() for angles in ((15, -40, 110), (-170, 20, 65))]


def shapes(shape=(4, 9, 10)):
    """Two structures without any symmetry: a box with a step and a hole, and a bar; value 9 never occurs."""
    values = np.zeros(shape, np.uint8)
    values[1:4, 2:7, 1:8] = 3
    values[1, 2:4, 1:3] = 0
    values[2, 4, 3:5] = 0
    values[0:2, 6:9, 8] = 7
    return values


def labelled(source, values=None):
    """(series, LabelVolume) of the only series in a folder."""
    (series,) = find_series(source).series
    geometry = read_geometry(series)
    return series, LabelVolume(shapes(geometry.shape) if values is None else values, geometry)


def centroid_mm(mask, geometry):
    return geometry.to_world(np.argwhere(mask)).mean(axis=0)


def read_seg(path):
    """({label: mask}, Geometry) as highdicom reads the object; (Z, Y, X) in the order of its own volume."""
    volume = highdicom.seg.segread(path).get_volume()
    affine = volume.affine * np.array([-1, -1, 1, 1])[:, None]  # LPS to RAS
    segments = highdicom.seg.segread(path).SegmentSequence
    masks = {segment.SegmentLabel: volume.array[..., i] > 0 for i, segment in enumerate(segments)}
    return masks, Geometry.from_affine(volume.array.shape[:3], affine)


def read_rtstruct(path, geometry):
    """{name: (Z, Y, X) mask on a grid}: voxels whose centres a contour holds; a contour beside every slice is an error."""
    ds = pydicom.dcmread(path)
    masks = {}
    for roi, shape in zip(ds.StructureSetROISequence, ds.ROIContourSequence, strict=True):
        assert roi.ROINumber == shape.ReferencedROINumber
        mask = masks[roi.ROIName] = np.zeros(geometry.shape, bool)
        for contour in shape.get("ContourSequence", []):
            points = geometry.to_index(np.reshape(contour.ContourData, (-1, 3)).astype(float) * [-1, -1, 1])
            z = np.rint(points[:, 0])
            np.testing.assert_allclose(points[:, 0], z[0], atol=1e-3)
            pixels = np.indices(geometry.shape[1:]).reshape(2, -1).T
            mask[int(z[0])] |= points_in_poly(pixels, points[:, 1:]).reshape(geometry.shape[1:])
    return masks


# -- where things lie ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [*TURNS, *OBLIQUE], ids=str)
@pytest.mark.parametrize("order", [range(4), range(3, -1, -1)], ids=["forth", "back"])
def test_structures_stay_where_they_are_in_the_patient(tmp_path, rotation, order):
    series, labels = labelled(draw.write_series(tmp_path / "in", shapes().astype(np.int16), rotation=rotation, order=order))
    write_seg(tmp_path / "seg.dcm", series, labels, STRUCTURES, **WAYS)
    write_rtstruct(tmp_path / "rt.dcm", series, labels, STRUCTURES, **WAYS)
    masks, grid = read_seg(tmp_path / "seg.dcm")
    contoured = read_rtstruct(tmp_path / "rt.dcm", labels.geometry)
    for name, (value,) in list(STRUCTURES.items())[:2]:
        expected = centroid_mm(labels.data == value, labels.geometry)
        np.testing.assert_allclose(centroid_mm(masks[name], grid), expected, atol=1e-3)
        assert masks[name].sum() == (labels.data == value).sum()
        np.testing.assert_array_equal(contoured[name], labels.data == value)
    assert not masks["absent"].any()
    assert not contoured["absent"].any()


def test_a_tilted_gantry_and_a_single_slice_go_out_too(tmp_path):
    tilted = draw.write_series(tmp_path / "tilted", draw.random_values((4, 9, 10)), shear_mm=0.5)
    single = draw.write_series(tmp_path / "single", draw.random_values((1, 9, 10)))
    for folder in (tilted, single):
        series, labels = labelled(folder, shapes()[: len(list(folder.iterdir()))])
        write_seg(folder / "seg", series, labels, STRUCTURES, **WAYS)
        write_rtstruct(folder / "rt", series, labels, STRUCTURES, **WAYS)
        frames = highdicom.seg.segread(folder / "seg")
        for plane, layer in zip(series.planes, labels.data, strict=True):
            found = frames.get_pixels_by_source_instance(
                [plane.uid], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
            )
            np.testing.assert_array_equal(found[0, ..., 1], layer == 7)
        np.testing.assert_array_equal(read_rtstruct(folder / "rt", labels.geometry)["Left Kidney"], labels.data == 3)


def test_frames_of_one_file_are_referred_to_one_by_one(tmp_path):
    whole = draw.multiframe_dataset(shapes().astype(np.int16), rotation=OBLIQUE[0])
    order = [2, 0, 3, 1]
    whole.PerFrameFunctionalGroupsSequence = [whole.PerFrameFunctionalGroupsSequence[z] for z in order]
    draw.save(whole, tmp_path / "in" / "whole")
    series, labels = labelled(tmp_path / "in")
    write_seg(tmp_path / "seg", series, labels, STRUCTURES, **WAYS)
    write_rtstruct(tmp_path / "rt", series, labels, STRUCTURES, **WAYS)
    masks, grid = read_seg(tmp_path / "seg")
    expected = centroid_mm(labels.data == 3, labels.geometry)
    np.testing.assert_allclose(centroid_mm(masks["Left Kidney"], grid), expected, atol=1e-3)
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt", labels.geometry)["Left Kidney"], labels.data == 3)
    bar = pydicom.dcmread(tmp_path / "rt").ROIContourSequence[1].ContourSequence  # slices 0 and 1 are frames 2 and 4
    assert [contour.ContourImageSequence[0].ReferencedFrameNumber for contour in bar] == [2, 4]


@pytest.mark.parametrize("rotation", [np.eye(3), *OBLIQUE], ids=str)
def test_simpleitk_finds_the_only_structure_of_an_object_on_the_grid_of_the_scan(tmp_path, rotation):
    """Of several structures it takes the frames for one stack, with a voxel of 1 x 1 x 1 mm."""
    values = np.zeros((6, 9, 8), np.uint8)
    values[1, 2:5, 3:7], values[4, 1:3, 2:4] = 3, 3  # slices between and around them are empty
    series, labels = labelled(draw.write_series(tmp_path / "in", values.astype(np.int16), rotation=rotation), values)
    write_seg(tmp_path / "seg.dcm", series, labels, {"kidney": (3,)}, **WAYS)
    image = SimpleITK.ReadImage(str(tmp_path / "seg.dcm"))
    np.testing.assert_allclose(image.GetSpacing(), (0.7, 0.8, 2.5), atol=1e-6)
    found = {tuple(np.round(image.TransformIndexToPhysicalPoint(index[::-1]), 2) + 0.0) for index in voxels_of(image)}
    expected = {tuple(np.round(place * [-1, -1, 1], 2) + 0.0) for place in labels.geometry.to_world(np.argwhere(values == 3))}
    assert found == expected


def voxels_of(image):
    """Indices (z, y, x) of what is not 0."""
    return np.argwhere(SimpleITK.GetArrayFromImage(image)).tolist()


def test_objects_of_one_structure_each_have_identifiers_of_their_own(tmp_path):
    series, labels = labelled(draw.write_series(tmp_path / "in", shapes().astype(np.int16)))
    found = set()
    for name, values in STRUCTURES.items():
        write_seg(tmp_path / "seg.dcm", series, labels, {name: values}, **WAYS)
        ds = pydicom.dcmread(tmp_path / "seg.dcm")
        found |= {ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.SegmentSequence[0].TrackingUID}
    assert len(found) == 9


def test_regions_overlap(tmp_path):
    series, labels = labelled(draw.write_series(tmp_path / "in", shapes().astype(np.int16)))
    write_seg(tmp_path / "seg", series, labels, REGIONS, **WAYS)
    masks, _ = read_seg(tmp_path / "seg")
    assert masks["whole"].sum() == (labels.data > 0).sum()
    assert masks["core"].sum() == (labels.data == 7).sum()
    write_rtstruct(tmp_path / "rt", series, labels, REGIONS, **WAYS)
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt", labels.geometry)["whole"], labels.data > 0)


def test_nothing_found_is_written_as_nothing(tmp_path):
    series, labels = labelled(draw.write_series(tmp_path / "in", draw.random_values()), np.zeros((5, 6, 7), np.uint8))
    write_seg(tmp_path / "seg", series, labels, STRUCTURES, **WAYS)
    write_rtstruct(tmp_path / "rt", series, labels, STRUCTURES, **WAYS)
    seg = highdicom.seg.segread(tmp_path / "seg")
    assert not seg.pixel_array.any()
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == list(STRUCTURES)
    assert not any(mask.any() for mask in read_rtstruct(tmp_path / "rt", labels.geometry).values())


@pytest.mark.thorough
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no scans in {DATA}")
@pytest.mark.parametrize(
    "folder", ["vendors/data/hitachi/anatomical/001", "vendors/data/ge/anatomical/001", "series/torchio_CT17"]
)
def test_real_series_take_labels(tmp_path, folder):
    series, labels = labelled(DATA / "dicom" / folder)
    rng = np.random.default_rng(0)
    values = np.zeros(labels.data.shape, np.uint8)
    values[1:3, 10:30, 20:50] = 3 * (rng.random((2, 20, 30)) > 0.4)  # specks, holes, islands within holes
    labels = LabelVolume(values, labels.geometry)
    write_seg(tmp_path / "seg", series, labels, {"brain": (3,)}, **WAYS)
    masks, grid = read_seg(tmp_path / "seg")
    np.testing.assert_allclose(centroid_mm(masks["brain"], grid), centroid_mm(values == 3, labels.geometry), atol=1e-2)
    write_rtstruct(tmp_path / "rt", series, labels, {"brain": (3,)}, **WAYS)
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt", labels.geometry)["brain"], values == 3)


def test_outlines_hold_exactly_the_voxels_of_any_mask():
    pixels = np.indices((12, 14)).reshape(2, -1).T
    for seed in range(20):
        mask = np.random.default_rng(seed).random((12, 14)) < 0.3 + 0.03 * seed
        found = np.zeros(mask.size, bool)
        for polygon in outlines(mask):
            inside = points_in_poly(pixels, polygon)
            assert not (found & inside).any()
            found |= inside
        np.testing.assert_array_equal(found.reshape(mask.shape), mask)
    assert outlines(np.zeros((3, 3), bool)) == []


# -- what they say -------------------------------------------------------------------------------------------------------


def test_objects_refer_to_their_images_and_say_what_made_them(tmp_path):
    folder = draw.write_series(
        tmp_path / "in", shapes().astype(np.int16), PatientName="Doe^Jané", SpecificCharacterSet="ISO_IR 100"
    )
    series, labels = labelled(folder)
    structures = {"Größe": (3,), "Left Kidney": (7,)}
    write_seg(tmp_path / "seg", series, labels, structures, **WAYS)
    write_rtstruct(tmp_path / "rt", series, labels, structures, **WAYS)
    seg, rt = pydicom.dcmread(tmp_path / "seg"), pydicom.dcmread(tmp_path / "rt")
    source = pydicom.dcmread(series.paths[0])
    for ds, modality in ((seg, "SEG"), (rt, "RTSTRUCT")):
        assert ds.Modality == modality
        assert str(ds.PatientName) == "Doe^Jané"
        for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert ds[name].value == source[name].value
        assert ds.SeriesInstanceUID != source.SeriesInstanceUID
        assert ds.Manufacturer == "autoseg"
    uids = {plane.uid for plane in series.planes}
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} <= uids
    study = rt.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    assert study.RTReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in study.RTReferencedSeriesSequence[0].ContourImageSequence} == uids
    assert [item.SegmentLabel for item in seg.SegmentSequence] == [item.ROIName for item in rt.StructureSetROISequence]
    assert seg.SegmentSequence[0].SegmentLabel == "Größe"
    kidney = seg.SegmentSequence[1]
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue == "64033007"
    assert kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert "kidneys 0123" in kidney.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName
    for segment, contours, colour in zip(
        seg.SegmentSequence, rt.ROIContourSequence, structure_colours(structures), strict=True
    ):
        assert tuple(contours.ROIDisplayColor) == colour
        lab = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).lab
        assert np.abs(255 * lab2rgb(lab) - colour).max() < 4  # D50 and D65 differ a little


def test_the_same_labels_have_the_same_identifiers(tmp_path):
    series, labels = labelled(draw.write_series(tmp_path / "in", shapes().astype(np.int16)))
    uids = []
    for name, values, model in (
        ("a", labels.data, "m"),
        ("b", labels.data, "m"),
        ("c", labels.data, "n"),
        ("d", labels.data * 0, "m"),
    ):
        write_rtstruct(tmp_path / name, series, LabelVolume(values, labels.geometry), STRUCTURES, model=model, version="1")
        uids.append(pydicom.dcmread(tmp_path / name).SOPInstanceUID)
    assert uids[0] == uids[1]
    assert len(set(uids)) == 3


def test_images_without_the_patients_details_are_enough_but_not_without_identifiers(tmp_path):
    bare = list(draw.slice_datasets(shapes().astype(np.int16)))
    for z, ds in enumerate(bare):
        for name in (
            "PatientBirthDate",
            "PatientSex",
            "StudyID",
            "AccessionNumber",
            "ReferringPhysicianName",
            "SliceThickness",
        ):
            delattr(ds, name)
        del ds.FrameOfReferenceUID
        draw.save(ds, tmp_path / "bare" / f"{z}.dcm")
        del ds.StudyInstanceUID
        draw.save(ds, tmp_path / "nowhere" / f"{z}.dcm")
    for write in (write_seg, write_rtstruct):
        write(tmp_path / write.__name__, *labelled(tmp_path / "bare"), STRUCTURES, **WAYS)
        with pytest.raises(FileError, match="no StudyInstanceUID"):
            write(tmp_path / "not", *labelled(tmp_path / "nowhere"), STRUCTURES, **WAYS)
    assert not (tmp_path / "not").exists()
    frames = {pydicom.dcmread(tmp_path / name).FrameOfReferenceUID for name in ("write_seg", "write_rtstruct")}
    assert len(frames) == 1


@pytest.mark.parametrize(
    ("name", "value", "side"),
    [
        ("liver", "10200004", None),
        ("LeftParotid", "45289007", "Left"),
        ("kidney_right", "64033007", "Right"),
        ("Left ventricle", "87878005", None),
        ("Brainstem", "119238007", None),
        ("SpinalCord", "2748008", None),
        ("lungs", "39607008", None),
        ("enhancing tumor", "108369006", None),
        ("Mandible", "91609006", None),
        ("anterior", "91723000", None),
        ("label 3", "91723000", None),
    ],
)
def test_names_become_codes_of_the_standard(name, value, side):
    code = code_structure(name)
    assert code.kind.value == value
    assert (code.side and code.side.meaning) == side
    expected = {"108369006": codes.SCT.MorphologicallyAbnormalStructure}.get(value, codes.SCT.AnatomicalStructure)
    assert code.category == expected


def test_writing_warns_about_nothing(tmp_path):
    series, labels = labelled(draw.write_series(tmp_path / "in", shapes().astype(np.int16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_seg(tmp_path / "seg", series, labels, STRUCTURES, **WAYS)
        write_rtstruct(tmp_path / "rt", series, labels, STRUCTURES, **WAYS)
