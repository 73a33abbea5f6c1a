import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from autoseg.evaluation.surfaces import hausdorff, mean_surface_distance, measure_surfaces, surface_dice, surfel_areas
from autoseg.imaging.files import read_label_volume
from tests.helpers.examples import examples

DATA = Path(__file__).parents[3] / "shared" / "data"
SPACINGS = st.tuples(*[st.floats(0.3, 6)] * 3)


def ball(shape, centre, radius_mm, spacing_mm=(1, 1, 1)):
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing_mm, strict=True)) <= radius_mm**2


def masks(shape=(5, 6, 7)):
    return hnp.arrays(bool, shape, elements=st.booleans())


# ---- areas of a cell


def corner_masks():
    for code in range(256):
        yield code, np.array([code >> bit & 1 for bit in range(8)], bool).reshape(2, 2, 2)


def code_of(mask):
    return int((mask.reshape(-1) << np.arange(8)).sum())


def test_a_corner_cuts_a_triangle_and_a_half_cell_a_rectangle():
    spacing = (2.0, 3.0, 5.0)
    areas = surfel_areas(spacing)
    a, b, c = np.diag(spacing) / 2
    assert areas[1] == pytest.approx(np.linalg.norm(np.cross(b - a, c - a)) / 2)
    low_z = np.zeros((2, 2, 2), bool)
    low_z[0] = True
    assert areas[code_of(low_z)] == pytest.approx(3 * 5)


def test_areas_do_not_prefer_a_side_or_a_direction():
    areas = surfel_areas((1.0, 1.7, 2.9))
    assert areas[0] == areas[255] == 0
    assert (areas[1:255] > 0).all()
    for code, mask in corner_masks():
        assert areas[code] == pytest.approx(areas[255 - code])
        for axis in range(3):
            assert areas[code] == pytest.approx(areas[code_of(np.flip(mask, axis))])


def test_areas_follow_their_axes():
    for order in itertools.permutations(range(3)):
        spacing = np.array([1.0, 1.7, 2.9])
        turned = surfel_areas(tuple(spacing[list(order)]))
        for code, mask in corner_masks():
            assert turned[code_of(mask.transpose(order))] == pytest.approx(surfel_areas(tuple(spacing))[code])


def test_the_area_of_a_large_ball_is_near_the_analytic_one():
    radius, spacing = 20.0, (1.25, 1.0, 0.8)
    mask = ball((41, 51, 61), (20, 25, 30), radius, spacing)
    found = measure_surfaces(mask, mask, spacing)
    # cells of a voxel surface: a few percent too large (Lindblad 2005 finds up to 8 % for plain marching cubes)
    assert 1.0 < found.reference_areas.sum() / (4 * np.pi * radius**2) < 1.10


# ---- distances


def test_balls_with_one_centre_are_as_far_apart_as_their_radii():
    spacing = (1.0, 0.75, 0.75)
    shape, centre = (51, 65, 65), (25, 32, 32)
    found = measure_surfaces(ball(shape, centre, 14, spacing), ball(shape, centre, 20, spacing), spacing)
    # points of a voxel surface scatter by half a voxel, and the nearest ones are taken: never much too far, half a
    # millimetre too near
    assert 5.25 < mean_surface_distance(found) < 6.05
    assert hausdorff(found, 95) == pytest.approx(6, abs=0.5)
    assert surface_dice(found, 4.5) == 0
    assert surface_dice(found, 6.5) == 1


def test_a_moved_box_is_as_far_as_it_was_moved():
    mask = np.zeros((20, 20, 20), bool)
    mask[4:10, 4:10, 4:10] = True
    found = measure_surfaces(mask, np.roll(mask, 3, axis=0), (2.0, 1.0, 1.0))
    assert hausdorff(found) == pytest.approx(6)
    found = measure_surfaces(mask, np.roll(mask, (3, 4), axis=(1, 2)), (2.0, 1.0, 1.0))
    assert hausdorff(found) == pytest.approx(5)


def test_one_voxel_off_is_within_a_tolerance_of_one_voxel():
    mask = np.zeros((40, 8, 8), bool)
    for start in range(20, 30):
        mask[:] = False
        mask[start : start + 5, 2:6, 2:6] = True
        found = measure_surfaces(mask, np.roll(mask, 1, axis=0), (0.7, 0.7, 0.7))
        assert surface_dice(found, 0.7) == 1


def test_the_worse_direction_counts():
    reference = ball((30, 30, 30), (10, 10, 10), 5)
    predicted = reference.copy()
    predicted[24:28, 24:28, 24:28] = True
    forward = measure_surfaces(reference, predicted, (1, 1, 1))
    assert forward.from_reference_mm.max() == 0
    assert hausdorff(forward, 95) > 15
    assert hausdorff(measure_surfaces(predicted, reference, (1, 1, 1)), 95) == hausdorff(forward, 95)


def test_a_false_piece_counts_by_its_share_of_the_predicted_surface_alone():
    """MedPy 0.5.2, which pools both directions, says 0 here, and surface-distance 0.1 says 32 mm."""
    reference = np.zeros((30, 30, 90), bool)
    reference[5:25, 5:25, 10:30] = True
    predicted = reference.copy()
    predicted[12:18, 12:18, 60:66] = True
    found = measure_surfaces(reference, predicted, (1.0, 1.0, 1.0))
    assert hausdorff(found, 95) == pytest.approx(32)
    assert hausdorff(found, 90) == 0


def test_a_mask_at_the_border_has_a_surface_there():
    mask = np.ones((4, 5, 6), bool)
    found = measure_surfaces(mask, mask, (1, 1, 1))
    inner = np.zeros((8, 9, 10), bool)
    inner[2:6, 2:7, 2:8] = True
    assert found.reference_areas.sum() == measure_surfaces(inner, inner, (1, 1, 1)).reference_areas.sum()


def test_cells_that_touch_ignored_voxels_hold_no_surface():
    reference = np.zeros((12, 12, 12), bool)
    reference[3:9, 3:9, 3:9] = True
    predicted = reference.copy()
    ignored = np.zeros_like(reference)
    ignored[:, :, 6:] = True
    predicted[3:9, 3:9, 2] = True
    found = measure_surfaces(reference & ~ignored, predicted & ~ignored, (1, 1, 1), ignored=ignored)
    plain = measure_surfaces(reference, predicted, (1, 1, 1))
    assert found.reference_areas.sum() < plain.reference_areas.sum() / 2 + 1e-9
    assert hausdorff(found) == hausdorff(plain) == 1
    assert measure_surfaces(reference, predicted, (1, 1, 1), ignored=np.ones_like(ignored)) is None


@examples(40)
@given(masks(), masks(), SPACINGS)
def test_distances_equal_those_of_all_pairs(reference, predicted, spacing):
    found = measure_surfaces(reference, predicted, spacing)
    if not (reference.any() and predicted.any()):
        assert found is None
        return
    points = []
    for mask in (reference, predicted):
        padded = np.pad(mask, 1)
        cells = itertools.product(*(range(n - 1) for n in padded.shape))
        points.append([c for c in cells if 0 < padded[tuple(slice(i, i + 2) for i in c)].sum() < 8])
    far = cdist(*(np.array(p) * spacing for p in points))
    assert np.sort(found.from_reference_mm) == pytest.approx(np.sort(far.min(1)))
    assert np.sort(found.from_predicted_mm) == pytest.approx(np.sort(far.min(0)))
    assert hausdorff(found) == pytest.approx(max(far.min(1).max(), far.min(0).max()))


@examples(40)
@given(masks(), masks(), SPACINGS, st.floats(0, 100))
def test_swapping_and_flipping_change_nothing(reference, predicted, spacing, percent):
    found = measure_surfaces(reference, predicted, spacing)
    if found is None:
        return
    other = measure_surfaces(predicted[:, ::-1, ::-1], reference[:, ::-1, ::-1], spacing)
    assert mean_surface_distance(found) == pytest.approx(mean_surface_distance(other))
    assert surface_dice(found, 1) == pytest.approx(surface_dice(other, 1))
    assert 0 <= mean_surface_distance(found) <= hausdorff(found) + 1e-9
    assert hausdorff(found, percent) <= hausdorff(found)


# ---- the other implementation


def assert_equals_the_other_tool(reference, predicted, spacing):
    tool = pytest.importorskip("surface_distance")
    flat = [axis for axis, n in enumerate(reference.shape) if n == 1]
    theirs = tool.compute_surface_distances(
        reference.squeeze(tuple(flat)), predicted.squeeze(tuple(flat)), np.delete(spacing, flat)
    )
    ours = measure_surfaces(reference, predicted, spacing)
    assert ours.reference_areas.sum() == pytest.approx(theirs["surfel_areas_gt"].sum())
    for percent in (50, 95, 100):
        assert hausdorff(ours, percent) == pytest.approx(tool.compute_robust_hausdorff(theirs, percent))
    for tolerance in (0.61, 1.01, 2.53):  # no distances of a grid, which rounding puts on either side
        expected = tool.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert surface_dice(ours, tolerance) == pytest.approx(expected)
    areas = [ours.reference_areas, ours.predicted_areas]
    expected = np.average(tool.compute_average_surface_distance(theirs), weights=[a.sum() for a in areas])
    assert mean_surface_distance(ours) == pytest.approx(expected)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.1, 0.7, 0.9), (0.5, 2.0, 1.3)])
@pytest.mark.parametrize("density", [0.02, 0.3, 0.7])
def test_noise_scores_as_in_surface_distance(spacing, density):
    rng = np.random.default_rng(4)
    assert_equals_the_other_tool(*(rng.random((12, 14, 16)) < density for _ in range(2)), spacing)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.8])
def test_flat_noise_scores_as_in_surface_distance(density):
    rng = np.random.default_rng(5)
    assert_equals_the_other_tool(*(rng.random((1, 30, 25)) < density for _ in range(2)), (5.0, 0.7, 0.9))


@pytest.mark.parametrize("case", ["hippocampus_003", "hippocampus_035", "hippocampus_089"])
def test_a_hippocampus_scores_as_in_surface_distance(case):
    path = DATA / "Dataset004_Hippocampus" / "labelsTr" / f"{case}.nii.gz"
    if not path.is_file():
        pytest.skip("needs the shared Hippocampus labels")
    labels = read_label_volume(path)
    for value in (1, 2):
        mask = labels.data == value
        moved = np.roll(mask, (1, -2), axis=(0, 2)) | (np.roll(mask, 3, axis=1) & mask)
        assert_equals_the_other_tool(mask, moved, labels.geometry.spacing_mm)


def test_vessels_score_as_in_surface_distance():
    folder = DATA / "metrics_vessels" / "test_assets" / "seg_metrics"
    if not folder.is_dir():
        pytest.skip("needs the shared vessel label maps")
    pairs = [("3D/shape_11x11x5_3D_Fig54_label1-5", v) for v in range(1, 6)]
    pairs += [("2D/shape_14x14_Fig63_bin", 1), ("2D/shape_11x11_2D_Fig10_bin", 1), ("3D/shape_8x8x8_3D_8Cubes", 6)]
    for stem, value in pairs:
        reference, predicted = (read_label_volume(folder / f"{stem}_{side}.nii.gz") for side in ("gt", "pred"))
        assert_equals_the_other_tool(reference.data == value, predicted.data == value, reference.geometry.spacing_mm)


# ---- one slice


def test_a_flat_square_has_the_contour_of_a_square():
    for axis in range(3):
        mask = np.zeros((12, 12), bool)
        mask[3:9, 3:9] = True
        spacing = np.insert([0.5, 0.5], axis, 7.0)
        found = measure_surfaces(np.expand_dims(mask, axis), np.expand_dims(np.roll(mask, 2, 0), axis), spacing)
        # six voxels of 0.5 mm a side, corners cut: 4 * (2.5 + sqrt(2) / 4)
        assert found.reference_areas.sum() == pytest.approx(4 * (2.5 + np.sqrt(2) / 4))
        assert hausdorff(found) == pytest.approx(1.0)


def test_a_single_row_of_voxels_is_measured_too():
    mask = np.zeros((1, 1, 20), bool)
    mask[..., 4:8] = True
    assert hausdorff(measure_surfaces(mask, np.roll(mask, 3, axis=2), (5, 5, 2))) == pytest.approx(6)
