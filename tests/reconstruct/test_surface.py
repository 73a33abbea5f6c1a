"""Surfaces against formulas: balls and ellipsoids on oblique grids of both hands."""

import numpy as np
import pytest
import trimesh
from scipy import ndimage
from scipy.special import ellipeinc, ellipkinc

from autoseg.errors import AutosegError
from autoseg.imaging.files import read_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.surface import isotropic_labels, surfaces_from_labels, surfaces_from_scores

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (5.0, 0.8, 0.8)]
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])  # a rotation


def ellipsoid(half_mm, spacing_mm, *, shift=(0.0, 0.0, 0.0), mirrored=False, turn=TURN):
    """(distance to the surface (Z, Y, X) float32, positive inside, exact for balls; Geometry; middle (3,) mm)."""
    half = np.array(half_mm, float)
    shape = [int(np.ceil(2 * (half.max() + 1) / s)) + 4 for s in spacing_mm]
    matrix = turn @ np.eye(3)[:, ::-1] if mirrored else turn
    affine = np.column_stack([matrix * spacing_mm, [40.0, -70.0, 900.0]])
    geometry = Geometry.from_affine(shape, affine)
    middle = geometry.to_world([[(n - 1) / 2 + s for n, s in zip(shape, shift, strict=True)]])[0]
    points = geometry.to_world(np.indices(shape).reshape(3, -1).T) - middle
    level, slope = np.linalg.norm(points / half, axis=1), np.linalg.norm(points / half**2, axis=1)
    distance = level * (1 - level) / np.maximum(slope, 1e-6)
    distance.setflags(write=False)
    return distance.reshape(shape).astype(np.float32), geometry, middle


def truth(half_mm):
    """(volume in mm3, area in mm2) of an ellipsoid with half axes a > b > c, or of a ball."""
    a, b, c = half_mm
    volume = 4 / 3 * np.pi * a * b * c
    if a == b == c:
        return volume, 4 * np.pi * a**2
    phi = np.arccos(c / a)
    modulus = a**2 * (b**2 - c**2) / (b**2 * (a**2 - c**2))
    inner = ellipeinc(phi, modulus) * np.sin(phi) ** 2 + ellipkinc(phi, modulus) * np.cos(phi) ** 2
    return volume, 2 * np.pi * c**2 + 2 * np.pi * a * b / np.sin(phi) * inner


def of_scores(distance, geometry, width_mm=1.0, **options):
    logits = np.stack([np.zeros_like(distance), distance / width_mm])
    logits.setflags(write=False)
    return surfaces_from_scores(logits, geometry, ["it"], **options)[0]


def of_labels(distance, geometry, **options):
    data = np.uint8(7) * (distance > 0)
    data.setflags(write=False)
    return surfaces_from_labels(LabelVolume(data, geometry), {"it": (7,)}, **options)[0]


def errors(mesh, half_mm):
    volume, area = truth(half_mm)
    return mesh.volume_mm3 / volume - 1, mesh.area_mm2 / area - 1


def check_closed(mesh):
    assert mesh.is_watertight
    assert mesh.euler_number == 2
    assert mesh.volume_mm3 > 0  # normals point outward


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("half", [(20, 20, 20), (6, 6, 6), (20, 14, 10)])
def test_surfaces_of_scores_have_volume_and_area_of_the_formula(half, spacing, mirrored):
    for width, shift in ((0.5, (0.5, 0, 0.2)), (2.0, (0.1, -0.3, 0.4))):
        distance, geometry, _ = ellipsoid(half, spacing, shift=shift, mirrored=mirrored)
        mesh = of_scores(distance, geometry, width)
        check_closed(mesh)
        assert np.abs(errors(mesh, half)).max() < 0.02


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("half", [(20, 20, 20), (20, 14, 10)])
def test_surfaces_of_label_maps_come_near_the_formula(half, spacing, mirrored):
    distance, geometry, _ = ellipsoid(half, spacing, shift=(0.3, 0.1, -0.2), mirrored=mirrored)
    mesh = of_labels(distance, geometry)
    check_closed(mesh)
    assert np.abs(errors(mesh, half)).max() < 0.03


@pytest.mark.thorough
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("half", [(20, 20, 20), (6, 6, 6), (20, 14, 10)])
def test_surfaces_of_label_maps_err_by_the_luck_of_counting_and_little_else(half, spacing):
    """Thick slices count a small ball up to 6 % wrong, but right in the mean; the mesh keeps to the count."""
    found = []
    for shift in np.random.default_rng(1).uniform(-0.5, 0.5, (16, 3)):
        distance, geometry, _ = ellipsoid(half, spacing, shift=shift)
        mesh = of_labels(distance, geometry)
        check_closed(mesh)
        counted = np.count_nonzero(distance > 0) * np.prod(spacing)
        assert mesh.volume_mm3 == pytest.approx(counted, rel=0.005)
        volume, area = errors(mesh, half)
        found.append([volume, (1 + area) / (1 + volume) ** (2 / 3) - 1])
    assert np.abs(np.mean(found, axis=0)).max() < 0.02
    assert np.abs(found)[:, 1].max() < 0.025


@pytest.mark.parametrize("mirrored", [False, True])
def test_partial_volumes_are_read_between_the_voxels(mirrored):
    distance, geometry, _ = ellipsoid((20, 20, 20), SPACINGS[1], shift=(0.3, 0.1, 0.2), mirrored=mirrored)
    share = np.clip(0.5 + distance / 3.0, 0.01, 0.99)  # of a voxel that the ball fills, about
    mesh = of_scores(np.log(share / (1 - share)), geometry)
    check_closed(mesh)
    assert np.abs(errors(mesh, (20, 20, 20))).max() < 0.02


@pytest.mark.parametrize("spacing", SPACINGS)
def test_scores_that_level_off_lose_nothing_beside_the_faces_of_their_box(spacing):
    distance, geometry, middle = ellipsoid((20, 20, 20), spacing, shift=(0.3, 0.1, 0.2), turn=np.eye(3))
    mesh = of_scores(20 * np.tanh(distance), geometry)
    check_closed(mesh)
    volume, area = errors(mesh, (20, 20, 20))
    assert abs(volume) < 0.005
    thick = spacing[0] == 5  # whose slices become terraces
    assert abs(area) < (0.04 if thick else 0.02)
    points = mesh.vertices_mm - middle
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], [[-20] * 3, [20] * 3], atol=1.0 if thick else 0.5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("radius", "spacing", "most"), [(20, SPACINGS[0], 0.005), (20, SPACINGS[2], 0.02), (6, SPACINGS[0], 0.02)]
)
def test_voxels_that_are_partly_inside_are_read_so(radius, spacing, most):
    steps = np.array([round(4 * mm) for mm in spacing])
    for shift in ((0.1, 0.2, 0.3), (0.5, -0.4, 0.0)):
        distance, geometry, middle = ellipsoid((radius,) * 3, spacing, shift=shift)
        index = (np.indices(steps * distance.shape).reshape(3, -1).T + 0.5) / steps - 0.5
        inside = np.linalg.norm(geometry.to_world(index) - middle, axis=1) < radius
        parts = [part for n, k in zip(distance.shape, steps, strict=True) for part in (n, k)]
        share = inside.reshape(parts).mean(axis=(1, 3, 5)).clip(0.005, 0.995)
        mesh = of_scores(np.log(share / (1 - share)), geometry)
        check_closed(mesh)
        assert np.abs(errors(mesh, (radius,) * 3)).max() < most


@pytest.mark.parametrize("make", [of_scores, of_labels])
def test_the_surface_lies_around_the_middle_in_patient_millimetres(make):
    distance, geometry, middle = ellipsoid((12, 12, 12), (3.0, 0.8, 0.8), shift=(0.2, 0.1, 0.3), mirrored=True)
    mesh = make(distance, geometry)
    np.testing.assert_allclose(mesh.vertices_mm.mean(axis=0), middle, atol=0.25)
    radii = np.linalg.norm(mesh.vertices_mm - middle, axis=1)
    assert abs(radii.mean() - 12) < 0.1
    assert radii.min() > (11.7 if make is of_scores else 10.5)
    outward = mesh.moved_outward(1.0)
    assert np.linalg.norm(outward.vertices_mm - middle, axis=1).mean() == pytest.approx(radii.mean() + 1, abs=0.02)


@pytest.mark.parametrize("make", [of_scores, of_labels])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_what_the_border_cuts_is_closed_at_the_outer_faces(make, spacing):
    distance, geometry, _ = ellipsoid((20, 20, 20), spacing, turn=np.eye(3))
    half = distance.shape[0] // 2
    mesh = make(distance[half:], geometry.cropped((half, 0, 0), (distance.shape[0] - half, *distance.shape[1:])))
    check_closed(mesh)
    face = geometry.to_world([[half - 0.5, 0, 0]])[0]
    assert mesh.vertices_mm[:, 0].min() == pytest.approx(face[0], abs=0.6)
    assert mesh.volume_mm3 == pytest.approx(np.count_nonzero(distance[half:] > 0) * np.prod(spacing), rel=0.03)


@pytest.mark.parametrize("shape", [(1, 30, 30), (30, 1, 30), (1, 1, 30), (1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (1.0, 1.0, 1.0)])
def test_flat_images_give_slabs(shape, spacing):
    data = np.ones(shape, np.uint8)
    labels = LabelVolume(data, Geometry.from_spacing(shape, spacing))
    (mesh,) = surfaces_from_labels(labels, {"it": (1,)})
    check_closed(mesh)
    if max(shape) == 30:
        assert mesh.volume_mm3 == pytest.approx(data.size * np.prod(spacing), rel=0.1)
    logits = np.stack([-2.0 * data, 2.0 * data]).astype(np.float32)
    check_closed(surfaces_from_scores(logits, labels.geometry, ["it"])[0])


def test_structures_without_voxels_have_no_surface():
    labels = LabelVolume(np.zeros((4, 5, 6), np.int16), Geometry.from_spacing((4, 5, 6), (1, 1, 1)))
    assert surfaces_from_labels(labels, {"a": (1,), "b": (-3,), "c": (70000,)}) == [None, None, None]
    logits = np.stack([np.ones((4, 5, 6)), np.zeros((4, 5, 6))])
    assert surfaces_from_scores(logits, labels.geometry, ["a"]) == [None]
    assert surfaces_from_scores(-logits, labels.geometry, ["a", "b"], has_regions=True) == [None, None]


def test_thin_and_tiny_structures_are_not_lost():
    data = np.zeros((20, 20, 20), np.uint8)
    data[10, 10, 10] = 1
    data[3, 3:17, 3:17] = 2  # a sheet
    data[6, 6, 2:18] = 3  # a thread
    for spacing in ((1, 1, 1), (3, 1, 1)):
        labels = LabelVolume(data, Geometry.from_spacing(data.shape, spacing))
        for value, mesh in zip((1, 2, 3), surfaces_from_labels(labels, {f"{v}": (v,) for v in (1, 2, 3)}), strict=True):
            check_closed(mesh)
            assert mesh.volume_mm3 == pytest.approx(np.count_nonzero(data == value) * np.prod(spacing), rel=0.005)


THIN = [((1, 3, 3), (1.0, 0.3, 0.3)), ((1, 3, 3), (10.0, 1.0, 1.0)), ((1, 3, 1), (0.5, 3.0, 5.0)), ((1, 1, 1), (5.0, 1.0, 1.0))]
DRAWN = np.random.default_rng(3)
THIN += [((1, *DRAWN.integers(1, 9, 2)), (DRAWN.uniform(0.3, 5), *[DRAWN.uniform(0.3, 1)] * 2)) for _ in range(24)]


@pytest.mark.parametrize(("size", "spacing"), THIN)
def test_one_slice_encloses_its_voxels(size, spacing):
    data = np.pad(np.ones(size, np.uint8), 2)
    data.setflags(write=False)
    (mesh,) = surfaces_from_labels(LabelVolume(data, Geometry.from_spacing(data.shape, spacing)), {"it": (1,)})
    check_closed(mesh)
    assert mesh.volume_mm3 == pytest.approx(np.prod(size) * np.prod(spacing), rel=0.005)
    extent = np.ptp(mesh.vertices_mm, axis=0)[::-1] / (np.array(size) * spacing)
    assert extent.min() > 0.9
    assert extent.max() < 1.9  # a voxel is rounded: its tips reach beyond its faces
    assert mesh.note == ""


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8)])
def test_a_thin_piece_of_a_thick_structure_is_not_lost(spacing):
    z, y, x = np.meshgrid(*[(np.arange(int(60 / s)) + 0.5) * s for s in spacing], indexing="ij")
    data = ((z - 30) ** 2 + (y - 16) ** 2 + (x - 30) ** 2 < 144).astype(np.uint8)
    data[data.shape[0] // 2, 42:50, 26:34] = 1
    data.setflags(write=False)
    (mesh,) = surfaces_from_labels(LabelVolume(data, Geometry.from_spacing(data.shape, spacing)), {"it": (1,)})
    assert mesh.is_watertight
    assert mesh.euler_number == 4
    pieces = trimesh.Trimesh(mesh.vertices_mm, mesh.faces, process=False).split()
    assert min(piece.volume for piece in pieces) == pytest.approx(64 * np.prod(spacing), rel=0.2)
    assert mesh.volume_mm3 == pytest.approx(data.sum() * np.prod(spacing), rel=0.005)


def test_surfaces_that_miss_the_volume_of_their_voxels_say_so():
    logit = np.full((9, 9, 9), -1.0, np.float32)
    logit[4, 4, 4] = 1.0
    geometry = Geometry.from_spacing(logit.shape, (1, 1, 1))
    (mesh,) = surfaces_from_scores(np.stack([0 * logit, logit]), geometry, ["it"])
    check_closed(mesh)
    assert mesh.volume_mm3 < 0.95
    assert mesh.note == f"the surface encloses {mesh.volume_mm3:.0%} of the volume of the voxels"


def test_neighbours_share_their_border_and_negative_values_count():
    half = np.linspace(-10, 10, 21)
    x = np.broadcast_to(half, (21, 21, 21))
    data = np.where(x > 0.2, 5, -4).astype(np.int16)
    data[[0, -1]] = data[:, [0, -1]] = 0
    labels = LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1)))
    left, right = surfaces_from_labels(labels, {"left": (-4,), "right": (5,)})
    assert left.vertices_mm[:, 0].max() == pytest.approx(right.vertices_mm[:, 0].min(), abs=0.3)
    logits = np.stack([np.full(x.shape, -5.0), -x + 0.5, x - 0.5]).astype(np.float32)
    left, right = surfaces_from_scores(logits, labels.geometry, ["left", "right"])
    assert left.vertices_mm[:, 0].max() == pytest.approx(10.5, abs=0.1)
    assert right.vertices_mm[:, 0].min() == pytest.approx(10.5, abs=0.1)


@pytest.mark.parametrize("make", ["scores", "labels"])
def test_splines_that_swing_make_neither_islands_nor_holes(make):
    logit = np.full((12, 24, 24), -0.01, np.float32)
    logit[1:4, 4:20, 4:20] = 9.0  # then all but a tie
    logit[4:7, 4:20, 4:20] = 0.01
    geometry = Geometry.from_spacing(logit.shape, (4.0, 1.0, 1.0))
    if make == "scores":
        (mesh,) = surfaces_from_scores(np.stack([0 * logit, logit]), geometry, ["it"])
    else:
        (mesh,) = surfaces_from_labels(LabelVolume((logit > 0).astype(np.uint8), geometry), {"it": (1,)})
    check_closed(mesh)
    assert mesh.vertices_mm[:, 2].max() < 4 * 7
    assert mesh.vertices_mm[:, 2].min() > -0.5


def test_regions_overlap_and_groups_of_values_join():
    distance, geometry, _ = ellipsoid((12, 12, 12), (1, 1, 1))
    logits = np.stack([distance, distance - 4])
    whole, core = surfaces_from_scores(logits, geometry, ["whole", "core"], has_regions=True)
    assert np.abs(errors(whole, (12, 12, 12))).max() < 0.02
    assert np.abs(errors(core, (8, 8, 8))).max() < 0.02
    labels = LabelVolume((distance > 0).astype(np.uint8) + (distance > 4), geometry)
    whole, core = surfaces_from_labels(labels, {"whole": (1, 2), "core": (2,)})
    assert np.abs(errors(whole, (12, 12, 12))).max() < 0.03
    assert np.abs(errors(core, (8, 8, 8))).max() < 0.03


def test_decimation_takes_triangles_and_little_else():
    distance, geometry, _ = ellipsoid((20, 20, 20), (3.0, 0.8, 0.8))
    full, fewer = of_scores(distance, geometry), of_scores(distance, geometry, decimate=0.8)
    check_closed(fewer)
    assert len(fewer.faces) < 0.25 * len(full.faces)
    assert np.abs(errors(fewer, (20, 20, 20))).max() < 0.02
    thin = np.zeros((1, 30, 30), np.uint8)
    thin[0, 8:20, 8:20] = np.hypot(*(np.indices((12, 12)) - 5.5)) < 6
    slab = LabelVolume(thin, Geometry.from_spacing(thin.shape, (1, 1, 1)))
    (mesh,) = surfaces_from_labels(slab, {"it": (1,)}, decimate=0.97)
    assert mesh.volume_mm3 == pytest.approx(thin.sum(), rel=0.03)
    with pytest.raises(AutosegError, match="fraction of triangles"):
        of_scores(distance, geometry, decimate=1.0)


@pytest.mark.thorough
def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    data = rng.integers(0, 4, (12, 12, 12)).astype(np.uint8).repeat(3, 0).repeat(3, 1).repeat(3, 2)
    labels = LabelVolume(data, Geometry.from_spacing(data.shape, (1, 1, 1)))
    groups = {name: (value,) for value, name in enumerate("abc", 1)}
    one, many = (surfaces_from_labels(labels, groups, workers=workers) for workers in (1, 3))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a.vertices_mm, b.vertices_mm)
        assert a.is_watertight


def test_cubic_voxels_keep_the_box_the_labels_and_their_volumes():
    distance, geometry, _ = ellipsoid((20, 14, 10), (5.0, 0.8, 0.8), mirrored=True)
    data = np.where(distance > 0, np.where(np.arange(distance.shape[2]) < distance.shape[2] // 2, 3, -7), 0).astype(np.int16)
    labels = LabelVolume(data, geometry)
    cubic = isotropic_labels(labels)
    np.testing.assert_allclose(cubic.geometry.spacing_mm, 0.8, rtol=0.02)
    np.testing.assert_allclose(cubic.geometry.to_world([[-0.5] * 3]), geometry.to_world([[-0.5] * 3]))
    size = abs(np.linalg.det(cubic.geometry.affine))
    for value in (3, -7):
        assert np.count_nonzero(cubic.data == value) * size == pytest.approx(np.count_nonzero(data == value) * 3.2, rel=0.05)
    assert set(np.unique(cubic.data)) == {-7, 0, 3}
    assert isotropic_labels(labels, 3.0).geometry.spacing_mm == pytest.approx((3, 3, 3), rel=0.1)
    same = isotropic_labels(LabelVolume(data[:, :40, :40], Geometry.from_spacing((len(data), 40, 40), (1, 1, 1))))
    np.testing.assert_array_equal(same.data, data[:, :40, :40])


def test_labels_that_touch_leave_no_gap_between_thick_slices():
    distance, geometry, middle = ellipsoid((16, 16, 16), (6.0, 0.8, 0.8), shift=(0.3, 0.1, 0.2))
    labels = LabelVolume(np.select([distance > 5, distance > 0], [1, 2], 0).astype(np.uint8), geometry)
    cubic = isotropic_labels(labels)
    points = cubic.geometry.to_world(np.indices(cubic.data.shape).reshape(3, -1).T)
    depth = 16 - np.linalg.norm(points - middle, axis=1).reshape(cubic.data.shape)
    assert (cubic.data[depth > 4] > 0).all()  # of the inner ball and its shell alike
    assert not (cubic.data[depth < 2.5] == 1).any()  # nothing of the inner ball near the surface of its shell
    size = abs(np.linalg.det(cubic.geometry.affine)) / abs(np.linalg.det(geometry.affine))
    counts = [(np.count_nonzero(cubic.data == value) * size, np.count_nonzero(labels.data == value)) for value in (1, 2)]
    inner, shell = (found / counted for found, counted in counts)
    assert 0.91 < inner < 1  # four slices go through it, and its poles are cut flat between the last of them and the next
    assert shell == pytest.approx(1, rel=0.01)
    assert sum(found for found, _ in counts) == pytest.approx(sum(counted for _, counted in counts), rel=0.035)


@pytest.mark.thorough
@pytest.mark.parametrize("case", ["case_00007"])
def test_expert_kidneys_give_closed_surfaces(case, request):
    path = request.config.rootpath / f"../shared/data/surfaces/kidney_masks/labels/{case}.nii.gz"
    if not path.is_file():
        pytest.skip("the expert masks of kidneys are not here")
    labels = read_label_volume(path)
    for value, mesh in zip((1, 2), surfaces_from_labels(labels, {"kidney": (1,), "tumour": (2,)}, workers=2), strict=True):
        assert mesh.is_watertight
        counted = np.count_nonzero(labels.data == value) * abs(np.linalg.det(labels.geometry.affine))
        assert mesh.volume_mm3 == pytest.approx(counted, rel=0.005)


@pytest.mark.parametrize("spacing", SPACINGS[1:])
def test_neighbours_in_thick_slices_leave_no_islands_in_each_other(spacing):
    distance, geometry, _ = ellipsoid((20, 20, 20), spacing, shift=(0.3, 0.1, -0.2))
    data = (distance > 0).astype(np.uint8)
    data[:, :, data.shape[2] // 2 :] *= 2
    cubic = isotropic_labels(LabelVolume(data, geometry))
    assert [ndimage.label(cubic.data == value)[1] for value in (1, 2)] == [1, 1]


def test_single_voxels_between_thick_slices_keep_their_volume_and_leave_the_others_theirs():
    distance, geometry, _ = ellipsoid((16, 16, 16), (6.0, 0.8, 0.8), shift=(0.3, 0.1, 0.2))
    alone = (distance > 0).astype(np.uint8)
    data = np.pad(alone, ((1, 1), (2, 2), (2, 2)))
    z, y = (n // 2 for n in data.shape[:2])
    lesions = {2: (1, 1, 1), 3: (z, y, data.shape[2] // 2), 4: (z, y, int(np.flatnonzero(data[z, y])[-1]) + 1)}
    grid = geometry.cropped((-1, -2, -2), data.shape)
    single = isotropic_labels(LabelVolume(data, grid)).data
    for value, place in lesions.items():  # far away, within the other structure, and beside it
        data[place] = value
    cubic = isotropic_labels(LabelVolume(data, grid)).data
    size = len(cubic) / len(data)  # cubic voxels of one thick voxel
    for value in lesions:
        assert np.count_nonzero(cubic == value) == pytest.approx(size, abs=2), value
    assert np.count_nonzero((cubic == 1) != (single == 1)) <= 4 * size  # where they touch, of about 7000
