"""Channels that lie on grids of their own: refused, or resampled where that was asked for."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from autoseg.data.dataset import Case, DatasetSpec
from autoseg.data.labels import read_labels
from autoseg.data.scan import scan_case
from autoseg.errors import GeometryError
from autoseg.imaging.files import read_file, read_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import resample_anywhere
from autoseg.imaging.volume import LabelVolume, Volume

STUDY = Path(__file__).parents[3] / "shared" / "data" / "channels_on_different_grids" / "cases" / "patient01"
needs_study = pytest.mark.skipif(not STUDY.is_dir(), reason=f"no scans in {STUDY}")


@pytest.fixture
def study():
    return [STUDY / f"study1_{name}.nii.gz" for name in ("FLAIR", "T1W", "T2W")]


def turned(angles, spacing_mm, shape, centre):
    """A grid with this voxel in the middle of the given point."""
    columns = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing_mm
    return Geometry.from_affine(shape, np.column_stack([columns, centre - columns @ ((np.array(shape) - 1) / 2)]))


def blob(geometry, centre, width_mm=6.0):
    """(1, Z, Y, X) of a smooth hill at a point of the patient."""
    points = geometry.to_world(np.indices(geometry.shape).reshape(3, -1).T)
    hill = np.exp(-((points - centre) ** 2).sum(axis=1) / width_mm**2)
    return hill.reshape(1, *geometry.shape).astype(np.float32)


def test_a_turned_grid_sees_the_same_hill_at_the_same_place():
    centre = np.array([12.0, -30.0, 400.0])
    here = turned((10, 20, -70), (2.0, 1.0, 1.2), (20, 40, 34), centre)
    there = turned((-35, 5, 15), (1.5, 1.4, 1.1), (24, 20, 22), centre)
    found = resample_anywhere(blob(here, centre), here, there)
    # cubic splines of a hill three voxels wide; nothing of it is cut off
    np.testing.assert_allclose(found, blob(there, centre), atol=2e-3)


def test_outside_its_own_grid_stands_the_smallest_value():
    here = Geometry.from_spacing((4, 4, 4), (1, 1, 1))
    data = np.full((2, 4, 4, 4), 7, np.int16)
    data[1] += np.arange(4, dtype=np.int16)
    found = resample_anywhere(data, here, here.cropped((0, 0, 4), (4, 4, 3)))
    assert (found[0] == 7).all()
    assert (found[1] == 7).all()


def test_the_edge_is_repeated_up_to_the_outer_faces_of_the_voxels():
    thick = Geometry.from_spacing((4, 5, 5), (5, 1, 1))
    data = np.arange(100, dtype=np.int16).reshape(1, 4, 5, 5) + 50
    found = resample_anywhere(data, thick, thick.resized((20, 5, 5)))  # the same box
    np.testing.assert_allclose(found[0, [0, -1]], data[0, [0, -1]], atol=3)
    one, other = Geometry.from_spacing((1, 5, 5), (5, 1, 1)), Geometry.from_spacing((4, 5, 5), (1, 1, 1))
    of_slice = resample_anywhere(data[:, :1], one, other)  # 0 to 3 mm from its middle
    np.testing.assert_allclose(of_slice[0, :3], np.repeat(data[0, :1], 3, axis=0), atol=1e-4)
    assert (of_slice[0, 3] == 50).all()


def test_channels_are_resampled_onto_the_first_only_where_asked(tmp_path):
    centre = np.zeros(3)
    grids = [turned((0, 0, 0), (2, 1, 1), (20, 40, 40), centre), turned((0, 4, 0), (1, 1, 1), (40, 40, 40), centre)]
    paths = [tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"]
    for path, grid in zip(paths, grids, strict=True):
        write_volume(Volume(blob(grid, centre), grid), path)
    with pytest.raises(GeometryError, match="--resample-channels") as error:
        read_volume(paths)
    assert str(grids[0]) in str(error.value)
    assert str(grids[1]) in str(error.value)
    volume = read_volume(paths, resample=True)
    notes = volume.notes
    assert volume.geometry.matches(grids[0], 1e-4)
    np.testing.assert_allclose(volume.data[1], volume.data[0], atol=2e-3)
    assert len(notes) == 1
    assert notes[0].startswith("a_0001.nii.gz: 40x40x40 voxels of 1x1x1 mm")
    notes += read_volume(paths[:1], resample=True).notes
    assert len(notes) == 1


@needs_study
def test_a_study_is_refused_when_read_and_when_verified(tmp_path, study):
    with pytest.raises(GeometryError, match="36x320x320 voxels of 4x.*\n.*39x320x320 voxels of 3x"):
        read_volume(study)
    grid = read_file(study[0]).geometry
    label = tmp_path / "label.nii.gz"
    write_label_volume(LabelVolume(np.ones(grid.shape, np.uint8), grid), label)
    case = Case("p1", "p1", tuple(study), label)
    spec = DatasetSpec("MS", STUDY, ("FLAIR", "T1W", "T2W"), read_labels({"lesion": 1}), (case,), (), ".nii.gz")
    findings = [finding for finding in scan_case(case, spec).findings if finding.code == "grid-mismatch"]
    assert [finding.message.split(":")[0] for finding in findings] == ["study1_T1W.nii.gz", "study1_T2W.nii.gz"]
    assert all(finding.severity == "error" for finding in findings)


@pytest.mark.thorough
@needs_study
def test_a_resampled_study_equals_another_librarys(study):
    data = read_volume([study[0], study[2]], resample=True).data[1]
    images = [SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32) for path in (study[0], study[2])]
    expected = SimpleITK.Resample(images[1], images[0], SimpleITK.Transform(), SimpleITK.sitkBSpline, float("nan"))
    expected = SimpleITK.GetArrayFromImage(expected)
    inner = (slice(3, -3), slice(20, -20), slice(20, -20))  # the two treat the samples beyond the edge in other ways
    data, expected = data[inner], expected[inner]
    seen = np.isfinite(expected)
    assert seen.mean() > 0.9
    assert np.abs(data - expected)[seen].max() < 1e-3 * expected[seen].max()
