"""Errors and similarities of volumes, against scikit-image and by hand."""

from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from autoseg.data.labels import read_labels
from autoseg.evaluation import evaluate_case, evaluate_folder, summarise
from autoseg.evaluation.overlap import count_voxels
from autoseg.evaluation.reconstruction import (
    DEGRADATIONS,
    brier,
    compare_intensities,
    degrade,
    mask_mse,
    mask_ssim,
    mse,
    psnr,
    slice_axis,
    ssim,
    ssim_window,
)
from autoseg.imaging.files import read_volume, write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume

SCANS = sorted((Path(__file__).parents[3] / "shared" / "data" / "Dataset004_Hippocampus" / "imagesTr").glob("*.nii.gz"))
ISOTROPIC = (1.0, 1.0, 1.0)
LABELS = read_labels({"background": 0, "head": 1, "tail": 2})


def peer_ssim(first, second, **options):
    return structural_similarity(
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, **options
    )


def two_volumes(shape, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.random(shape)
    second = np.clip(first + rng.normal(0, 0.2, shape), 0, 1)
    for array in (first, second):
        array.setflags(write=False)
    return first, second


def body(shape=(30, 36, 33), seed=0):
    """A smooth volume in [0, 1] with edges."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    ball = sum(a**2 for a in axes) < 0.6
    waves = 0.5 + 0.3 * np.sin(7 * axes[0] + seed) * np.cos(5 * axes[1]) + 0.2 * np.sin(9 * axes[2])
    return np.clip(waves * ball, 0, 1).astype(np.float32)


# ---- SSIM


@pytest.mark.parametrize("shape", [(11, 11, 11), (11, 25, 40), (31, 12, 17), (20, 21, 22)])
def test_ssim_is_that_of_scikit_image(shape):
    first, second = two_volumes(shape)
    assert ssim(first, second) == pytest.approx(peer_ssim(first, second), abs=1e-9)
    _, everywhere = peer_ssim(first, second, full=True)
    roi = first > 0.7
    assert ssim(first, second, roi) == pytest.approx(everywhere[roi].mean(), abs=1e-9)


def test_ssim_of_a_slice_is_that_of_the_plane():
    first, second = two_volumes((1, 40, 23))
    assert ssim(first, second) == pytest.approx(peer_ssim(first[0], second[0]), abs=1e-9)


def test_windows_shrink_to_what_fits_and_say_so():
    assert ssim_window((1, 2, 11)) == (1, 1, 11)
    assert ssim_window((6, 9, 300)) == (5, 9, 11)
    first, second = two_volumes((6, 9, 30))
    assert -1 < ssim(first, second) < ssim(first, first) == 1


def test_ssim_of_masks_is_that_of_the_whole_volumes():
    shape = (30, 41, 36)
    reference, predicted = np.zeros((2, *shape), bool)
    reference[8:16, 10:22, 9:20] = True
    predicted[9:17, 11:24, 9:21] = True
    box = tuple(slice(a, b) for a, b in ((7, 18), (9, 25), (8, 22)))
    whole, roi = mask_ssim(reference[box], predicted[box], lower=(7, 9, 8), shape=shape)
    expected, everywhere = peer_ssim(reference.astype(float), predicted.astype(float), full=True)
    assert whole == pytest.approx(expected, abs=1e-9)
    assert roi == pytest.approx(everywhere[3:21, 5:27, 4:25].mean(), abs=1e-9)
    assert roi < whole < 1


def test_ssim_of_masks_at_the_border_of_the_image():
    shape = (14, 20, 26)
    reference, predicted = np.zeros((2, *shape), bool)
    reference[:6, 15:, 3:9] = True
    predicted[:7, 14:, 2:9] = True
    box = (slice(0, 8), slice(13, 20), slice(1, 10))
    whole, _ = mask_ssim(reference[box], predicted[box], lower=(0, 13, 1), shape=shape)
    assert whole == pytest.approx(peer_ssim(reference.astype(float), predicted.astype(float)), abs=1e-9)


def test_a_missed_structure_is_dissimilar_where_it_was():
    reference, nothing = np.zeros((2, 20, 20, 20), bool)
    reference[5:15, 5:15, 5:15] = True
    whole, roi = mask_ssim(reference, nothing, lower=(0, 0, 0), shape=reference.shape)
    assert roi < 0.95
    assert whole < 0.9
    assert mask_ssim(nothing, nothing, lower=(0, 0, 0), shape=nothing.shape) == (None, None)


# ---- errors


def test_the_error_of_equal_masks_follows_from_share_and_dice():
    reference, predicted = np.zeros((2, 20, 20, 20), bool)
    reference[4:14, 5:15, 5:15] = True
    predicted[5:15, 5:15, 5:15] = True
    share, dice = 1000 / 8000, 0.9
    assert mask_mse(count_voxels(reference, predicted)) == pytest.approx(2 * share * (1 - dice))
    assert mask_mse(count_voxels(reference & False, predicted & False)) is None


def test_errors_by_hand():
    first, second = np.zeros((2, 1, 2, 2))
    second[0, 0] = (0.5, 0.1)
    assert mse(first, second) == pytest.approx((0.25 + 0.01) / 4)
    assert mse(first, second, second == 0.5) == 0.25
    assert mse(first, second, second > 1) is None
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(0.0) is None
    assert brier(second, first, ignored=second == 0.5) == pytest.approx(0.01 / 3)


# ---- a report has them


def volume(data):
    return LabelVolume(data, Geometry.from_spacing(data.shape, ISOTROPIC))


def one_case():
    reference, predicted = np.zeros((2, 16, 18, 20), np.uint8)
    reference[2:8, 3:9, 4:12] = 1
    reference[9:13, 3:9, 4:12] = 2
    predicted[2:8, 3:9, 4:12] = 2  # all of the head taken for tail
    predicted[9:13, 3:9, 4:12] = 2
    return reference, predicted


def test_structures_taken_for_each_other_are_no_error_of_their_union():
    reference, predicted = one_case()
    head, tail = evaluate_case(reference=volume(reference), predicted=volume(predicted), labels=LABELS)
    size = reference.size
    assert head["mse_mask"] == pytest.approx(288 / size)
    assert head["foreground_share"] == pytest.approx(288 / size)
    assert head["mse_mask_fg"] == tail["mse_mask_fg"] == 0
    assert tail["foreground_share_fg"] == pytest.approx((288 + 192) / size)


def test_ignored_voxels_are_in_no_mask_error():
    labels = read_labels({"background": 0, "head": 1, "ignore": 9})
    reference = np.zeros((12, 12, 12), np.uint8)
    reference[2:6, 2:6, 2:6] = 1
    predicted = reference.copy()
    reference[8:] = 9
    predicted[8:] = 1
    (row,) = evaluate_case(reference=volume(reference), predicted=volume(predicted), labels=labels)
    assert (row["mse_mask"], row["mse_mask_fg"], row["ssim_mask"]) == (0, 0, 1)
    assert row["foreground_share"] == row["foreground_share_fg"] == pytest.approx(64 / (8 * 144))


def test_probabilities_in_the_folder_add_a_brier_score(tmp_path):
    reference, predicted = one_case()
    for name, data in (("reference", reference), ("predicted", predicted)):
        (tmp_path / name).mkdir()
        for case in "ab":
            write_label_volume(volume(data), tmp_path / name / f"{case}.nii.gz")
    report = evaluate_folder(tmp_path / "reference", tmp_path / "predicted", LABELS)
    assert "brier" not in report.metrics
    chances = np.stack([reference == 0, 0.5 * (reference == 1), 1.0 * (reference == 2)]).astype(np.float16)
    np.savez_compressed(tmp_path / "predicted" / "a_probabilities.npz", probabilities=chances)
    report = evaluate_folder(tmp_path / "reference", tmp_path / "predicted", LABELS)
    rows = {(row.case, row.structure): row for row in report.rows}
    assert rows["a", "head"]["brier"] == pytest.approx(0.25 * 288 / reference.size)
    assert rows["a", "tail"]["brier"] == 0
    assert rows["b", "tail"]["brier"] is None
    assert rows["b", "tail"].reason("brier") == "no probabilities"
    assert "Brier score: MSE of the probabilities" in report.table()
    np.savez_compressed(tmp_path / "predicted" / "b_probabilities.npz", probabilities=chances[:2])
    report = evaluate_folder(tmp_path / "reference", tmp_path / "predicted", LABELS)
    assert [failure.case for failure in report.failures] == ["b"]
    assert "b_probabilities.npz: expected an array of (3, 16, 18, 20)" in report.failures[0].reason


def test_the_table_of_masks_stands_apart():
    reference, predicted = one_case()
    table = summarise(evaluate_case(reference=volume(reference), predicted=volume(predicted), labels=LABELS), LABELS).table()
    first, second = table.split("The masks as volumes")[0].split("Means over cases")
    assert "MSE of masks" not in first
    assert "| structure | cases | fraction of the image | MSE of masks | SSIM of masks | SSIM around it |" in second
    assert "MSE 0.00000 at a fraction of 0.08333." in table


# ---- restored intensities


def test_degradations_depend_on_the_case_alone():
    clean = body()
    for kind in DEGRADATIONS:
        once, again = (degrade(kind, clean, ISOTROPIC, "case_1") for _ in range(2))
        assert np.array_equal(once, again)
        assert once.shape == clean.shape
        assert once.dtype == np.float32
        if kind != "blur":
            assert not np.array_equal(once, degrade(kind, clean, ISOTROPIC, "case_2"))


def test_degradations_are_as_strong_as_they_say():
    clean = body()
    assert np.std(degrade("noise", clean, ISOTROPIC, "a") - clean) == pytest.approx(0.05, rel=0.03)
    point = np.zeros((21, 21, 21), np.float32)
    point[10, 10, 10] = 1
    blurred = degrade("blur", point, ISOTROPIC, "a")
    index = np.arange(21) - 10
    for axis in range(3):
        profile = blurred.sum(axis=tuple(a for a in range(3) if a != axis))
        assert (profile * index**2).sum() == pytest.approx(1, rel=0.01)


def test_thick_slices_are_means_of_three_along_the_coarsest_axis():
    spacing = (1.0, 2.0, 1.0)
    assert slice_axis((30, 36, 33), spacing) == 1
    assert slice_axis((30, 36, 33), ISOTROPIC) == 2
    assert slice_axis((30, 5, 33), spacing) == 2
    assert slice_axis((1, 5, 5), ISOTROPIC) is None
    assert degrade("thick_slices", np.zeros((1, 5, 5), np.float32), ISOTROPIC, "a") is None
    clean = np.broadcast_to(np.linspace(0.2, 0.8, 36, dtype=np.float32)[:, None], (30, 36, 33)).copy()
    thick = degrade("thick_slices", clean, spacing, "a")
    centres = thick[:, 1::3]  # a cubic spline goes through its samples: the slice means of a ramp, and their noise
    assert np.std(centres - clean[:, 1::3]) == pytest.approx(0.02, rel=0.05)
    assert abs((thick - clean).mean()) < 1e-3
    lengths = np.ones((30, 35, 33), np.float32)  # a last slice of fewer voxels
    assert degrade("thick_slices", lengths, spacing, "a").mean() == pytest.approx(1, abs=2e-3)


def test_skill_is_what_is_gained_over_the_bar():
    clean = body()
    degraded = degrade("noise", clean, ISOTROPIC, "a")
    roi = clean > 0.5
    nothing = compare_intensities(clean[None], degraded[None], degraded[None], roi)
    assert nothing["skill"] == nothing["skill_roi"] == 0
    assert nothing["mse"] == nothing["bar_mse"] <= 0.0025
    half = np.clip(degraded, 0, 1) / 2 + clean / 2
    better = compare_intensities(clean[None], half[None], degraded[None], roi)
    assert better["skill"] == pytest.approx(0.75, abs=1e-6)
    assert better["psnr"] == pytest.approx(better["bar_psnr"] + 10 * np.log10(4), abs=1e-4)
    assert better["ssim"] > better["bar_ssim"]
    perfect = compare_intensities(clean[None], clean[None], degraded[None], np.zeros(clean.shape, bool))
    assert (perfect["skill"], perfect["psnr"], perfect["ssim"], perfect["skill_roi"]) == (1, None, 1, None)


def test_the_bar_on_real_scans():
    """Known from an independent measurement: noise of 0.05 leaves hippocampi an MSE of .0024 and an SSIM of .921."""
    if not SCANS:
        pytest.skip("no hippocampus scans beside the repository")
    found = {kind: [] for kind in DEGRADATIONS}
    for path in SCANS[:6]:
        data = read_volume(path).data[0]
        low, high = np.percentile(data, (0.5, 99.5))
        clean = np.clip((data - low) / (high - low), 0, 1)
        for kind, values in found.items():
            degraded = np.clip(degrade(kind, clean, ISOTROPIC, path.name), 0, 1)
            values.append((mse(clean, degraded), ssim(clean, degraded)))
    means = {kind: np.mean(values, axis=0) for kind, values in found.items()}
    assert means["noise"] == pytest.approx([0.0024, 0.921], abs=0.01)
    assert means["thick_slices"] == pytest.approx([0.0059, 0.85], abs=0.02)
    assert means["blur"] == pytest.approx([0.0075, 0.76], abs=0.03)
