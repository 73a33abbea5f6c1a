"""Segmentations of 3D Slicer are what other readers of such files find: SimpleITK, and slicerio where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from autoseg.imaging.colours import structure_colours
from autoseg.imaging.files import read_geometry, read_label_volume, read_segmentation, segment_names
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.seg_nrrd import write_seg_nrrd
from autoseg.imaging.volume import LabelVolume

STRUCTURES = {"left kidney": (3,), "Tumor": (300,), "absent": (9,)}
REGIONS = {"whole": (3, 300), "core": (300,), "rim": (3,)}
TO_LPS = np.array([-1, -1, 1])


@pytest.fixture
def labels() -> LabelVolume:
    """Values 3 and 300 on an oblique, left-handed grid."""
    turn = Rotation.from_euler("xyz", (10, -20, 30), degrees=True).as_matrix() * [-2.5, 0.8, 0.7]
    geometry = Geometry.from_affine((4, 5, 6), np.column_stack([turn, (1.5, -20.25, 30.125)]))
    data = np.zeros(geometry.shape, np.uint16)
    data[1:3, 1:4, 2:5], data[2, 2:4, 3:6] = 3, 300
    return LabelVolume(data, geometry)


def test_simpleitk_finds_every_label_at_its_place(tmp_path: Path, labels: LabelVolume) -> None:
    write_seg_nrrd(tmp_path / "a.seg.nrrd", labels, STRUCTURES)
    image = SimpleITK.ReadImage(str(tmp_path / "a.seg.nrrd"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), labels.data)
    for z, y, x in np.ndindex(*labels.data.shape):
        place = labels.geometry.to_world([[z, y, x]])[0] * TO_LPS
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((x, y, z)), place, atol=1e-9)
    assert [image.GetMetaData(f"Segment{i}_Name") for i in range(3)] == list(STRUCTURES)


def test_it_is_read_back_with_names_and_the_label_values_of_the_map(tmp_path: Path, labels: LabelVolume) -> None:
    path = tmp_path / "a.seg.nrrd"
    write_seg_nrrd(path, labels, STRUCTURES)
    assert segment_names(path) == {name: value for name, (value,) in STRUCTURES.items()}
    assert read_geometry(path).is_same_grid(labels.geometry)
    np.testing.assert_array_equal(read_label_volume(path).data, labels.data)


def test_regions_that_overlap_lie_in_as_few_layers_as_they_need(tmp_path: Path, labels: LabelVolume) -> None:
    path = tmp_path / "a.seg.nrrd"
    write_seg_nrrd(path, labels, REGIONS)
    image = SimpleITK.ReadImage(str(path))
    assert (image.GetSize(), image.GetNumberOfComponentsPerPixel()) == ((6, 5, 4), 2)
    assert [image.GetMetaData(f"Segment{i}_Layer") for i in range(3)] == ["0", "1", "1"]
    for name, values in REGIONS.items():
        np.testing.assert_array_equal(read_segmentation(path).mask(name).data[0], np.isin(labels.data, values))


def test_values_below_0_are_numbered(tmp_path: Path, labels: LabelVolume) -> None:
    data = np.where(labels.data == 3, -4, np.where(labels.data == 300, 7, 0)).astype(np.int16)
    write_seg_nrrd(tmp_path / "a.seg.nrrd", LabelVolume(data, labels.geometry), {"a": (-4,), "b": (7,)})
    assert segment_names(tmp_path / "a.seg.nrrd") == {"a": 1, "b": 2}
    expected = np.select([data == -4, data == 7], [1, 2], 0)
    np.testing.assert_array_equal(read_label_volume(tmp_path / "a.seg.nrrd").data, expected)


def test_names_of_any_letters_come_back(tmp_path: Path, labels: LabelVolume) -> None:
    names = {"große Niere\\links": (3,), "腎\nb": (300,)}
    write_seg_nrrd(tmp_path / "a.seg.nrrd", labels, names)
    assert list(segment_names(tmp_path / "a.seg.nrrd")) == ["große Niere\\links", "腎 b"]


def test_the_same_labels_are_the_same_bytes(tmp_path: Path, labels: LabelVolume) -> None:
    for name in "ab":
        write_seg_nrrd(tmp_path / f"{name}.seg.nrrd", labels, STRUCTURES)
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()


@pytest.mark.parametrize("structures", [STRUCTURES, REGIONS], ids=["labels", "regions"])
def test_slicerio_finds_names_colours_codes_extents_and_voxels(
    tmp_path: Path, labels: LabelVolume, structures: dict[str, tuple[int, ...]]
) -> None:
    slicerio = pytest.importorskip("slicerio", reason="slicerio comes with the extra test")
    write_seg_nrrd(tmp_path / "a.seg.nrrd", labels, structures)
    read = slicerio.read_segmentation(str(tmp_path / "a.seg.nrrd"))
    corner = read["ijkToLPS"] @ [5, 4, 3, 1]
    np.testing.assert_allclose(corner[:3], labels.geometry.to_world([[3, 4, 5]])[0] * TO_LPS)
    assert [segment["name"] for segment in read["segments"]] == list(structures)
    for segment, colour in zip(read["segments"], structure_colours(structures), strict=True):
        np.testing.assert_allclose(segment["color"], np.array(colour) / 255, atol=1e-5)
        expected = np.isin(labels.data, structures[segment["name"]])
        voxels = read["voxels"][segment["layer"]] if structures is REGIONS else read["voxels"]
        np.testing.assert_array_equal((voxels == segment["labelValue"]).T, expected)
        where = np.argwhere(expected)[:, ::-1]
        ends = np.stack([where.min(axis=0), where.max(axis=0)], axis=1).ravel() if len(where) else [0, -1] * 3
        assert segment["extent"] == list(ends)
    codes = {segment["name"]: segment["terminology"] for segment in read["segments"]}
    if structures is STRUCTURES:
        assert codes["left kidney"]["type"] == ["SCT", "64033007", "Kidney"]
        assert codes["left kidney"]["typeModifier"] == ["SCT", "7771000", "Left"]
        assert codes["Tumor"]["category"] == ["SCT", "49755003", "Morphologically Abnormal Structure"]
