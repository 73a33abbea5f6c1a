"""A scan goes to the network's grid and comes back where it was."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.dataset import read_dataset
from autoseg.data.scan import scan_dataset
from autoseg.errors import AutosegError
from autoseg.imaging.files import read_file, read_label_volume, read_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume, orient
from autoseg.phantoms import draw_phantom, write_phantoms
from autoseg.preprocess.case import find_locations, prepare_case, prepare_volume
from autoseg.reconstruct.native import logits_to_codes
from planners import Budget, ChannelStats, Fingerprint, get_planner

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
STATS = ChannelStats("MR", 600, 600, 200, 0, 2000, 100, 1500)


def plan_for(shape, spacing_mm, structures=("a", "b"), parity=False):
    fingerprint = Fingerprint("x", ("c",), (tuple(shape),), (tuple(spacing_mm),), (STATS,), structures, len(structures) + 1)
    return get_planner("fullres_3d").plan(fingerprint, Budget(parity=parity))


def one_hot(codes, classes):
    return np.stack([codes == c for c in range(classes)]).astype(np.float32)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture
def data_set(tmp_path):
    return read_dataset(write_phantoms(tmp_path / "Dataset001_P", training=3, test=0, in_plane_mm=4))


def test_the_same_patient_in_another_orientation_is_the_same_case():
    volume, _ = draw_phantom(np.random.default_rng(0), (6, 3, 3))
    plan = replace(plan_for(volume.geometry.shape, (5, 2.5, 2.5)), axis_order=(1, 0, 2))
    expected, grid = prepare_volume(volume, plan)
    for order, flips in [((2, 0, 1), (0,)), ((1, 2, 0), (0, 1, 2)), ((0, 1, 2), (2,))]:
        turned = Volume(np.ascontiguousarray(orient(volume.data, order, flips)), volume.geometry.oriented(order, flips))
        data, found = prepare_volume(turned, plan)
        assert found.matches(grid)
        assert np.allclose(data, expected, atol=1e-5)


@pytest.mark.parametrize("parity", [False, True])
def test_labels_come_back_to_the_scan(data_set, parity):
    for case in data_set.training:
        truth = read_label_volume(case.label)
        plan = replace(plan_for(truth.geometry.shape, (3.1, 3.1, 3.1), parity=parity), axis_order=(2, 0, 1))
        prepared = prepare_case(case, data_set.labels, plan)
        back = logits_to_codes(one_hot(prepared.codes, 5), prepared.geometry, truth.geometry)
        for code in (1, 2, 3, 4):
            assert dice(back == code, truth.data == code) > 0.9


def test_sites_lie_on_their_codes(data_set):
    prepared = prepare_case(data_set.training[0], data_set.labels, plan_for((20, 25, 30), (4, 4, 4)))
    assert sorted(prepared.locations) == [1, 2, 3, 4]
    for code, voxels in prepared.locations.items():
        assert (prepared.codes[tuple(voxels.T)] == code).all()


def test_a_label_on_another_grid_names_the_case(data_set, tmp_path):
    case = data_set.training[0]
    wrong = LabelVolume(np.zeros((3, 3, 3), np.uint8), Geometry.from_spacing((3, 3, 3), (1, 1, 1)))
    write_label_volume(wrong, tmp_path / "wrong.nii.gz")
    with pytest.raises(AutosegError, match="case 'phantom_000': image and label differ"):
        prepare_case(replace(case, label=tmp_path / "wrong.nii.gz"), data_set.labels, plan_for((20, 25, 30), (4, 4, 4)))


def test_the_wrong_number_of_channels_is_said():
    volume = Volume(np.ones((2, 9, 9, 9), np.float32), Geometry.from_spacing((9, 9, 9), (1, 1, 1)))
    with pytest.raises(AutosegError, match=r"expected 1 channel \(MR\), found 2"):
        prepare_volume(volume, plan_for((9, 9, 9), (1, 1, 1)))


def test_gaps_in_label_values_are_closed_and_restored(tmp_path):
    folder = tmp_path / "Dataset009_Gaps"
    geometry = Geometry.from_spacing((12, 12, 12), (1, 1, 1))
    values = np.zeros((12, 12, 12), np.int16)
    values[2:5], values[6:9] = 1, 4
    write_volume(Volume(1.0 + values[None].astype(np.float32), geometry), folder / "imagesTr" / "a_0000.nii.gz")
    write_label_volume(LabelVolume(values, geometry), folder / "labelsTr" / "a.nii.gz")
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T1"}, "labels": {"background": 0, "core": 1, "rim": 4}, "file_ending": ".nii.gz"})
    )
    data_set = read_dataset(folder)
    prepared = prepare_case(data_set.training[0], data_set.labels, plan_for((12, 12, 12), (1, 1, 1)))
    assert np.unique(prepared.codes).tolist() == [0, 1, 2]
    assert np.array_equal(np.array(data_set.labels.declared_values)[prepared.codes], values)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["Dataset027_ACDC", "Dataset055_HeadNeckCT"])
def test_real_labels_come_back_to_their_scan_and_left_stays_left(name):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip("../shared/data is not there")
    data_set = read_dataset(folder)
    data_set = replace(data_set, training=data_set.training[:2])
    shapes = [scan.shape for scan in scan_dataset(data_set)]
    for case, shape in zip(data_set.training, shapes, strict=True):
        truth = read_label_volume(case.label)
        spacing = truth.geometry.oriented(*truth.geometry.canonical()).spacing_mm
        prepared = prepare_case(case, data_set.labels, plan_for(shape, spacing))
        classes = len(data_set.labels.declared_values)
        native = read_volume(case.images).geometry
        back = logits_to_codes(one_hot(prepared.codes, classes), prepared.geometry, native)
        assert native == read_file(case.images[0]).geometry
        for code in range(1, classes):
            assert dice(back == code, truth.data == code) > 0.99
            middle = native.to_world(np.argwhere(back == code)).mean(axis=0)
            expected = native.to_world(np.argwhere(truth.data == code)).mean(axis=0)
            assert np.allclose(middle, expected, atol=0.5)


def test_sites_of_many_codes_are_those_of_each_code_looked_for_alone():
    codes = np.random.default_rng(3).integers(-1, 40, (8, 9, 10)).astype(np.int16)
    locations = find_locations(codes, seed=0)
    assert list(locations) == list(range(40))
    assert all(np.array_equal(voxels, np.argwhere(codes == code)) for code, voxels in locations.items())
