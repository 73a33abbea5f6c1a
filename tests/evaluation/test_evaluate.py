from pathlib import Path

import numpy as np
import pytest

from autoseg.data.labels import read_labels
from autoseg.engines import LocalEngine
from autoseg.errors import FileError, GeometryError
from autoseg.evaluation import METRICS, evaluate_case, evaluate_folder
from autoseg.evaluation.metrics import MaskPair
from autoseg.imaging.files import read_label_volume, write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, orient

DATA = Path(__file__).parents[3] / "shared" / "data"
ORGANS = read_labels({"background": 0, "liver": 1, "spleen": 5})
SHAPE, SPACING_MM = (10, 14, 16), (2.0, 1.0, 1.0)


def volume(data, spacing_mm=SPACING_MM):
    data = np.asarray(data)
    data.setflags(write=False)
    return LabelVolume(data, Geometry.from_spacing(data.shape, spacing_mm))


def organs(liver=True, spleen=True, shift=0):
    data = np.zeros(SHAPE, np.uint8)
    if liver:
        data[2:8, 2 + shift : 7 + shift, 2:12] = 1
    if spleen:
        data[3:6, 9:12, 3:7] = 5
    return volume(data)


def score(reference, predicted, labels=ORGANS, **options):
    rows = evaluate_case(reference=reference, predicted=predicted, labels=labels, case="one", **options)
    return {row.structure: row for row in rows}


# ---- one case


def test_every_structure_has_every_metric():
    rows = score(organs(), organs(shift=1))
    assert list(rows) == ["liver", "spleen"]
    assert list(rows["liver"].values) == [*METRICS, "mse_mask_fg", "foreground_share_fg"]
    assert rows["spleen"]["dice"] == 1
    assert rows["liver"]["dice"] == pytest.approx(4 / 5)
    assert rows["liver"]["hd95_mm"] == 1
    assert rows["liver"]["reference_ml"] == pytest.approx(6 * 5 * 10 * 2 / 1000)
    assert rows["liver"].counts.tn == np.prod(SHAPE) - 6 * 6 * 10


def test_volumes_and_distances_of_a_sheared_grid_are_those_in_the_patient():
    affine = Geometry.from_spacing((9, 9, 9), (2.0, 1.0, 0.5)).affine
    affine[:3, 0] += [0.3, 1.5, 0]  # a tilted gantry shifts each slice
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    affine[:3] = turned @ affine[:3]
    grid = Geometry.from_affine((9, 9, 9), affine)
    places = np.array([[[2, 4, 4]], [[6, 3, 5]]])  # a voxel in each mask
    masks = np.zeros((2, 9, 9, 9), np.uint8)
    for mask, (place,) in zip(masks, places, strict=True):
        mask[tuple(place)] = 1
    row = score(*(LabelVolume(mask, grid) for mask in masks))["liver"]
    assert row["reference_ml"] == pytest.approx(0.001)
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), axis=-1).reshape(-1, 3)  # of a voxel: its surface is there
    first, second = (grid.to_world(place + corners) for place in places)
    distances = np.linalg.norm(first[:, None] - second, axis=2)
    assert row["hd_mm"] == pytest.approx(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


def test_cutting_to_a_box_changes_no_metric():
    reference, predicted = organs(), organs(shift=2)
    for number, row in enumerate(score(reference, predicted).values()):
        masks = [ORGANS.mask(v.data, number) for v in (reference, predicted)]
        assert row.counts == MaskPair.of_images(*masks, SPACING_MM).counts
        for name, metric in METRICS.items():
            assert row[name] == pytest.approx(metric(*masks, SPACING_MM), abs=1e-12), name


def test_both_empty_is_undefined_and_says_so():
    row = score(organs(spleen=False), organs(spleen=False))["spleen"]
    for name in ("dice", "iou", "precision", "recall", "nsd", "hd95_mm", "hd_mm", "assd_mm", "relative_volume_error"):
        assert row[name] is None
        assert row.reason(name) == "both empty"
    assert row["volume_error_ml"] == 0
    assert row.counts.tn == np.prod(SHAPE)


def test_a_false_alarm_scores_zero_and_its_volume_is_reported():
    row = score(organs(spleen=False), organs())["spleen"]
    assert row["dice"] == row["iou"] == row["nsd"] == row["precision"] == 0
    for name in ("hd95_mm", "hd_mm", "assd_mm", "recall", "relative_volume_error"):
        assert row[name] is None
        assert row.reason(name) == "reference empty"
    assert row["volume_error_ml"] == row["predicted_ml"] == pytest.approx(3 * 3 * 4 * 2 / 1000)


def test_a_missed_structure_scores_zero_and_is_as_far_as_the_image_is_large():
    row = score(organs(), organs(spleen=False))["spleen"]
    assert row["dice"] == row["iou"] == row["nsd"] == row["recall"] == 0
    for name in ("hd95_mm", "hd_mm", "assd_mm"):
        assert row[name] == pytest.approx(np.linalg.norm(np.multiply(SHAPE, SPACING_MM)))
        assert row.reason(name) == "prediction empty: diagonal of the image"
    assert row["precision"] is None
    assert row.reason("precision") == "prediction empty"
    assert row["relative_volume_error"] == -1
    assert row.reason("dice") == row.reason("volume_error_ml") == ""


def test_regions_are_sets_of_values():
    labels = read_labels({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, [1, 2, 3])
    reference, predicted = np.zeros((2, 6, 6, 6), np.uint8)
    reference[1:5, 1:5, 1:5] = 1
    reference[2:4, 2:4, 2:4] = 3
    predicted[1:5, 1:5, 1:5] = 2
    rows = score(volume(reference), volume(predicted), labels)
    assert rows["whole"]["dice"] == 1
    assert rows["core"]["dice"] == pytest.approx(2 * 8 / (8 + 64))
    assert rows["enhancing"]["dice"] == 0


def test_ignored_voxels_count_nowhere():
    labels = read_labels({"background": 0, "liver": 1, "ignore": 7})
    data = organs(spleen=False).data.copy()
    data[:, :, 8:] = 7
    wrong = organs(spleen=False).data.copy()
    wrong[:, :, 8:] = np.random.default_rng(0).integers(0, 2, wrong[:, :, 8:].shape)
    row = score(volume(data), volume(wrong), labels)["liver"]
    assert row["dice"] == row["nsd"] == 1
    assert row["hd_mm"] == 0
    assert row.counts.tp + row.counts.tn == (data != 7).sum()
    elsewhere = wrong.copy()
    elsewhere[2, 2, 2] = 0
    row = score(volume(data), volume(elsewhere), labels)["liver"]
    assert row["hd_mm"] > 0
    nowhere = score(volume(np.full(SHAPE, 7)), volume(wrong), labels)["liver"]
    assert nowhere["dice"] is None
    assert nowhere.counts.tn == 0


def test_values_may_be_negative_or_large_and_undeclared_ones_are_background():
    labels = read_labels({"background": 0, "odd": -3, "large": 4000})
    data = np.zeros(SHAPE, np.int16)
    data[1:4, 1:4, 1:4] = -3
    data[5:8, 5:8, 5:8] = 4000
    predicted = data.copy()
    predicted[8:, 8:, 8:] = 9
    assert [row["dice"] for row in score(volume(data), volume(predicted), labels).values()] == [1, 1]


def test_the_tolerance_is_the_largest_voxel_edge_or_what_is_asked():
    reference, predicted = organs(), organs(shift=1)
    assert score(reference, predicted)["liver"].tolerance_mm == 2
    assert score(reference, predicted, tolerance_mm=0.5)["liver"].tolerance_mm == 0.5
    rows = score(reference, predicted, tolerance_mm={"liver": 0.5})
    assert (rows["liver"].tolerance_mm, rows["spleen"].tolerance_mm) == (0.5, 2)
    assert score(reference, predicted)["liver"]["nsd"] == 1
    assert rows["liver"]["nsd"] < 1
    fine = [volume(v.data, (0.5, 0.4, 0.4)) for v in (reference, predicted)]
    assert score(*fine)["liver"].tolerance_mm == 1


def test_the_tolerance_of_micrometres_is_no_millimetre():
    small = [volume(v.data, (2e-4, 1e-4, 1e-4)) for v in (organs(), organs(liver=False))]
    assert score(*small)["spleen"].tolerance_mm == pytest.approx(2e-3)  # ten of the largest edges
    corners = np.zeros((2, 40, 40, 40), np.uint8)
    corners[0, 1:3, 1:3, 1:3], corners[1, -3:-1, -3:-1, -3:-1] = 1, 1
    assert score(*(volume(corner, (1e-4,) * 3) for corner in corners))["liver"]["nsd"] == 0


def test_one_slice_is_measured_in_its_plane():
    reference, predicted = (volume(v.data[4:5], (90.0, 0.5, 0.5)) for v in (organs(), organs(shift=1)))
    row = score(reference, predicted)["liver"]
    assert row["hd95_mm"] == 0.5
    assert row.tolerance_mm == 1
    missed = score(reference, volume(np.zeros((1, *SHAPE[1:]), np.uint8), (90.0, 0.5, 0.5)))["liver"]
    assert missed["hd95_mm"] == pytest.approx(np.hypot(14 * 0.5, 16 * 0.5))


def test_different_grids_are_refused_with_both_named():
    reference = organs()
    with pytest.raises(GeometryError, match=r"(?s)'one'.*10x14x16.*10x14x15"):
        score(reference, volume(reference.data[:, :, 1:]))
    with pytest.raises(GeometryError, match=r"2x1x1 mm.*\n.*2x1.1x1 mm"):
        score(reference, volume(reference.data, (2.0, 1.1, 1.0)))
    moved = LabelVolume(reference.data, reference.geometry.flipped([1]))
    with pytest.raises(GeometryError, match="another place or direction"):
        score(reference, moved)


def test_a_grid_one_voxel_away_is_another_however_small_its_voxels_are():
    reference = organs()
    for edge in (1.0, 5e-5):
        there = Geometry.from_spacing(reference.data.shape, (edge,) * 3)
        away = LabelVolume(reference.data, there.cropped((0, 0, 1), there.shape))
        assert score(LabelVolume(reference.data, there), LabelVolume(reference.data, there))["liver"]["dice"] == 1
        with pytest.raises(GeometryError, match="another place or direction"):
            score(LabelVolume(reference.data, there), away)


def test_rounded_headers_are_one_grid():
    affine = organs().geometry.affine
    affine[:3] += 4e-4
    near = LabelVolume(organs().data, Geometry.from_affine(SHAPE, affine))
    assert score(organs(), near)["liver"]["dice"] == 1


def test_a_metric_of_another_package_is_measured_too(monkeypatch):
    monkeypatch.setitem(METRICS, "n_slices", lambda reference, predicted, spacing_mm: int(reference.any((1, 2)).sum()))
    assert score(organs(), organs())["liver"]["n_slices"] == 6


def test_vessel_labels_score_as_the_challenge_says():
    folder = DATA / "metrics_vessels" / "test_assets" / "seg_metrics"
    if not folder.is_dir():
        pytest.skip("needs the shared vessel label maps")
    expected = {
        "3D/shape_8x8x8_3D_8Cubes": {1: 1.0, 2: 14 / 15, 4: 0.0, 6: 6 / 7, 8: 6 / 7},
        "3D/shape_2x2x2_3D_Fig50_label15_10": {10: 0.8, 15: 0.5},
        "2D/shape_5x5_2D_zigzag": {1: 8 / 17},
        "2D/shape_5x5_2D_label64_ring": {4: 8 / 13, 6: 20 / 27},
    }
    for stem, scores in expected.items():
        labels = read_labels({"background": 0} | {str(value): value for value in scores})
        pair = [read_label_volume(folder / f"{stem}_{side}.nii.gz") for side in ("gt", "pred")]
        for value, row in score(*pair, labels).items():
            assert row["dice"] == pytest.approx(scores[int(value)]), (stem, value)


# ---- a folder


@pytest.fixture
def folders(tmp_path):
    pairs = {"a": (organs(), organs(shift=1)), "b": (organs(spleen=False), organs()), "c": (organs(), organs())}
    for side in ("reference", "predicted"):
        (tmp_path / side).mkdir()
    for case, pair in pairs.items():
        for side, labels in zip(("reference", "predicted"), pair, strict=True):
            write_label_volume(labels, tmp_path / side / f"{case}.nii.gz")
    return tmp_path / "reference", tmp_path / "predicted"


@pytest.mark.parametrize("workers", [1, 3])
def test_a_folder_is_scored_case_by_case(folders, workers):
    seen = []
    report = evaluate_folder(*folders, ORGANS, engine=LocalEngine(workers), on_done=lambda outcome: seen.append(outcome.name))
    assert report.cases == ("a", "b", "c")
    assert sorted(seen) == ["a", "b", "c"]
    assert report.failures == ()
    assert report.summary("liver", "dice").mean == pytest.approx((0.8 + 1 + 1) / 3)


def test_what_cannot_be_scored_is_a_failure_and_the_rest_goes_on(folders):
    reference, predicted = folders
    (predicted / "a.nii.gz").unlink()
    damaged = (predicted / "b.nii.gz").read_bytes()
    (predicted / "b.nii.gz").write_bytes(damaged[: len(damaged) // 2])
    write_label_volume(organs(), predicted / "extra.nii.gz")
    report = evaluate_folder(reference, predicted, ORGANS)
    assert [failure.case for failure in report.failures] == ["a", "b"]
    assert "no prediction" in report.failures[0].reason
    assert "b.nii.gz" in report.failures[1].reason
    assert report.cases == ("c",)
    assert report.not_scored == ("extra",)
    assert "2 could not be scored" in report.table()


def test_another_grid_is_a_failure_of_its_case(folders):
    reference, predicted = folders
    write_label_volume(volume(organs().data[1:]), predicted / "c.nii.gz")
    report = evaluate_folder(reference, predicted, ORGANS)
    assert [failure.case for failure in report.failures] == ["c"]
    assert "grids" in report.failures[0].reason


@pytest.mark.parametrize("side", [0, 1])
def test_a_map_whose_axes_run_otherwise_is_scored_as_if_they_did_not(folders, side):
    straight = evaluate_folder(*folders, ORGANS)
    for path in folders[side].iterdir():
        labels = read_label_volume(path)
        turn = (2, 0, 1), (0, 1)
        write_label_volume(LabelVolume(orient(labels.data, *turn), labels.geometry.oriented(*turn)), path)
    assert evaluate_folder(*folders, ORGANS).table() == straight.table()


@pytest.mark.parametrize("turn", [None, ((2, 0, 1), (0, 1))])
def test_a_voxel_size_that_is_off_by_a_thousandth_is_scored_and_said(folders, turn):
    straight = evaluate_folder(*folders, ORGANS)
    for case in ("a", "c"):
        path = folders[1] / f"{case}.nii.gz"
        labels = read_label_volume(path)
        affine = labels.geometry.affine * 1.001
        affine[0, 3] += 0.2
        grid = Geometry.from_affine(SHAPE, affine)
        off = LabelVolume(orient(labels.data, *turn), grid.oriented(*turn)) if turn else LabelVolume(labels.data, grid)
        write_label_volume(off, path)
    report = evaluate_folder(*folders, ORGANS)
    assert [row["dice"] for row in report.rows] == [row["dice"] for row in straight.rows]
    assert report.notes == (
        "references and predictions up to 0.22 voxels apart by their headers, compared voxel by voxel: a, c",
    )


def test_only_the_cases_asked_for_are_scored(folders):
    reference, predicted = folders
    report = evaluate_folder({case: reference / f"{case}.nii.gz" for case in ("c", "z")}, predicted, ORGANS)
    assert report.cases == ("c",)
    assert [failure.case for failure in report.failures] == ["z"]


def test_a_folder_without_references_is_refused(folders, tmp_path):
    with pytest.raises(FileError, match="mha"):
        evaluate_folder(*folders, ORGANS, ending=".mha")
    with pytest.raises(FileError, match="nowhere"):
        evaluate_folder(tmp_path / "nowhere", folders[1], ORGANS)
