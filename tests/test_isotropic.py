"""Scans on cubic voxels: interpolated, and restored by a network."""

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from autoseg.cli import main
from autoseg.errors import AutosegError
from autoseg.imaging.files import read_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.outputs.isotropic import Isotropic
from autoseg.preprocess.case import prepare_volume, scanner_units
from planners.plan import ChannelNormalization, NetworkSpec, Plan, Resampling

SHAPE, SPACING_MM = (12, 30, 28), (3.0, 1.0, 1.0)


def plan(scheme, plan_mm=(1.5, 1.0, 1.0)):
    network = NetworkSpec("unet", 1, 2, (4,), ((1, 1, 1),), ((3, 3, 3),), (1,), ())
    how = ChannelNormalization("MRI", scheme, lower=-100.0, upper=900.0)
    return Plan(
        name="tiny", dataset="d", planner="fullres_3d", preset="classic", axis_order=(0, 1, 2), spacing_mm=plan_mm,
        median_shape=SHAPE, patch_size=(16, 16, 16), batch_size=1, batch_dice=False, normalization=(how,),
        resampling=Resampling(), mirror_axes=(), iterations=1, network=network, memory_elements=1,
    )  # fmt: skip


def smooth_scan(turned):
    z, y, x = np.meshgrid(*[np.linspace(0, np.pi, n) for n in SHAPE], indexing="ij")
    data = (500 + 300 * np.sin(z) * np.cos(2 * y) * np.sin(x + 0.3))[None].astype(np.float32)
    geometry = Geometry.from_spacing(SHAPE, SPACING_MM)
    if not turned:
        return Volume(data, geometry)
    return Volume(np.ascontiguousarray(np.flip(data.transpose(0, 2, 1, 3), 1)), geometry.transposed((1, 0, 2)).flipped((0,)))


def export(tmp_path, scan, *, restores, spacing_mm=0.0, scheme="robust", **planned):
    """Write the volumes of a scan whose network changes nothing; (record, geometry and data of each file)."""
    write_volume(scan, tmp_path / "a_0000.nii.gz")
    volume = read_volume([tmp_path / "a_0000.nii.gz"])
    planned = plan(scheme, **planned)
    written = write(tmp_path, volume, planned, (lambda data, slices: data) if restores else None, spacing_mm)
    return written.record["isotropic"], {path.name: (read_volume(path), nibabel.load(path)) for path in written.files}


def write(tmp_path, volume, planned, restore, spacing_mm=0.0):
    """What the output writes of the scan ``a`` for a model with that plan and restoration."""
    data, grid = prepare_volume(volume, planned)
    prepared = SimpleNamespace(data=data, grid=grid)
    found = SimpleNamespace(prepared=prepared, restore=restore, model=SimpleNamespace(plan=planned))
    case = SimpleNamespace(id="a", images=[tmp_path / "a_0000.nii.gz"])
    return Isotropic(spacing_mm).write(case, found, tmp_path)


def zoomed(scan, shape):
    """Another library's cubic interpolation onto the grid of cubes."""
    factor = [n / m for n, m in zip(shape, scan.geometry.shape, strict=True)]
    return ndimage.zoom(scan.data[0], factor, order=3, mode="nearest", grid_mode=True)


@pytest.mark.parametrize("turned", [False, True])
def test_both_volumes_cover_the_box_of_the_scan_with_cubes_and_say_what_they_are(tmp_path, turned):
    scan = smooth_scan(turned)
    record, files = export(tmp_path, scan, restores=True)
    assert set(files) == {"a_iso.nii.gz", "a_iso_cubic.nii.gz"}
    assert record["derived"]
    assert record["restored"] == "a_iso.nii.gz"
    for volume, image in files.values():
        np.testing.assert_allclose(volume.geometry.spacing_mm, 1.0)
        faces = [scan.geometry.to_world([np.subtract(end, 0.5)]) for end in ((0, 0, 0), scan.geometry.shape)]
        own = [volume.geometry.to_world([np.subtract(end, 0.5)]) for end in ((0, 0, 0), volume.geometry.shape)]
        np.testing.assert_allclose(own, faces, atol=1e-4)
        assert image.header["descrip"].tobytes().startswith(b"derived: ")


@pytest.mark.parametrize("turned", [False, True])
def test_the_network_is_told_how_thick_the_slices_are(tmp_path, turned):
    heard = []
    scan = smooth_scan(turned)
    write_volume(scan, tmp_path / "a_0000.nii.gz")
    for planned_mm, expected in (((1.0, 1.0, 1.0), [n / min(SPACING_MM) for n in SPACING_MM]), (SPACING_MM, [1.0] * 3)):
        restore = lambda data, slices: (heard.append(slices), data)[1]  # noqa: E731
        record = write(tmp_path, scan, plan("rescale", planned_mm), restore).record
        assert heard.pop() == pytest.approx(expected)
        assert bool(record["isotropic"]["note"]) == (planned_mm == SPACING_MM)  # nothing was learned of such slices


@pytest.mark.parametrize("turned", [False, True])
def test_a_network_that_changes_nothing_gives_the_interpolated_scan_in_its_own_units(tmp_path, turned):
    scan = smooth_scan(turned)
    _, files = export(tmp_path, scan, restores=True)
    cubic, restored = (files[name][0].data[0] for name in ("a_iso_cubic.nii.gz", "a_iso.nii.gz"))
    np.testing.assert_allclose(cubic, zoomed(scan, cubic.shape), atol=0.05)
    low, high = np.percentile(scan.data, (0.5, 99.5))
    # twice through splines of a smooth image, and clipped at both ends of the range; its coarse axis went the separate way
    assert np.abs(restored - cubic.clip(low, high))[3:-3].mean() < 0.04 * (high - low)
    assert restored.min() >= low - 0.1 * (high - low)
    assert restored.max() <= high + 0.1 * (high - low)


def test_where_the_network_has_the_scans_own_grid_nothing_is_moved_or_scaled(tmp_path):
    scan = smooth_scan(False)
    write_volume(scan, tmp_path / "a_0000.nii.gz")
    planned = plan("rescale", SPACING_MM)
    assert prepare_volume(scan, planned)[1].shape == SHAPE
    write(tmp_path, scan, planned, lambda data, slices: data)
    restored = read_volume(tmp_path / "a_iso.nii.gz").data[0]
    np.testing.assert_allclose(restored, zoomed(scan, restored.shape), atol=0.05)  # of a range of 600


@pytest.fixture(scope="module")
def heart(pytestconfig):
    """(scan, label map) of a heart in slices of 10 mm, six to seven times as thick as the pixels are wide."""
    folder = pytestconfig.rootpath / "../shared/data/Dataset027_ACDC"
    if not folder.is_dir():
        pytest.skip("the hearts in thick slices are not here")
    return folder / "imagesTr" / "patient001_frame01_0000.nii.gz", folder / "labelsTr" / "patient001_frame01.nii.gz"


@pytest.mark.filterwarnings("ignore")  # that library remarks on the scan's two voxel sizes
@pytest.mark.parametrize("turned", [False, True])
def test_thick_slices_become_what_another_library_makes_of_them_at_the_same_place(tmp_path, heart, turned):
    scan = read_volume(heart[0])
    if turned:
        geometry = scan.geometry.transposed((1, 0, 2)).flipped((0, 2))
        scan = Volume(np.ascontiguousarray(np.flip(scan.data.transpose(0, 2, 1, 3), (1, 3))), geometry)
    record, _ = export(tmp_path, scan, restores=True, scheme="rescale", plan_mm=(10.0, 1.5, 1.5))
    assert record["spacing_mm"] == pytest.approx([min(scan.geometry.spacing_mm)] * 3, rel=0.01)
    original, cubic, restored = (
        SimpleITK.ReadImage(str(tmp_path / f"a{suffix}.nii.gz"), SimpleITK.sitkFloat32)
        for suffix in ("_0000", "_iso_cubic", "_iso")
    )
    expected = SimpleITK.Resample(original, cubic, SimpleITK.Transform(), SimpleITK.sitkBSpline3, -1.0)
    expected, cubic, restored = (SimpleITK.GetArrayFromImage(image) for image in (expected, cubic, restored))
    assert (expected == -1).mean() < 1e-3  # both cover the same box
    middle = tuple(slice(n // 3, n - n // 3) for n in cubic.shape)  # it mirrors beyond the border, where here the edge goes on
    width = float(np.ptp(expected))
    assert np.abs(cubic - expected)[middle].max() < 2e-3 * width
    assert np.abs(cubic - expected).mean() < 5e-3 * width
    assert np.abs(restored - cubic)[middle].mean() < 5e-3 * width  # through the grid of a network that changes nothing


def test_labels_of_thick_slices_lie_where_another_library_puts_them(tmp_path, heart):
    assert main(["reconstruct", "-i", str(heart[1]), "-o", str(tmp_path), "--isotropic", "--surfaces", "none", "--quiet"]) == 0
    original = SimpleITK.ReadImage(str(heart[1]))
    cubic = SimpleITK.ReadImage(str(tmp_path / "patient001_frame01_iso.nii.gz"))
    for value in (1, 2, 3):
        mask = SimpleITK.Cast(original == value, SimpleITK.sitkFloat32)
        linear = SimpleITK.GetArrayFromImage(SimpleITK.Resample(mask, cubic, SimpleITK.Transform(), SimpleITK.sitkLinear)) > 0.5
        found = SimpleITK.GetArrayFromImage(cubic) == value
        assert 2 * (linear & found).sum() / (linear.sum() + found.sum()) > 0.88  # which leaves terraces and gaps
        volume = SimpleITK.GetArrayFromImage(mask).sum() * np.prod(original.GetSpacing())
        assert found.sum() * np.prod(cubic.GetSpacing()) == pytest.approx(volume, rel=0.03)


def test_a_model_that_does_not_restore_gives_the_interpolated_volume_alone_and_says_so(tmp_path):
    record, files = export(tmp_path, smooth_scan(False), restores=False, spacing_mm=2.0)
    assert set(files) == {"a_iso_cubic.nii.gz"}
    assert record["restored"] is None
    assert "does not restore" in record["note"]
    np.testing.assert_allclose(files["a_iso_cubic.nii.gz"][0].geometry.spacing_mm, 2.0)


@pytest.mark.parametrize("scheme", ["ct", "robust", "rescale"])
def test_scanner_units_undo_the_scaling(scheme):
    scan = smooth_scan(False)
    scaled, _ = prepare_volume(scan, plan(scheme))
    values = scanner_units(np.array([0.0, 0.25, 1.0], np.float32).reshape(1, 1, 1, 3), scan, plan(scheme)).ravel()
    low, high = {
        "ct": (-100.0, 900.0),
        "robust": np.percentile(scan.data, (0.5, 99.5)),
        "rescale": (scan.data.min(), scan.data.max()),
    }[scheme]
    np.testing.assert_allclose(values, [low, low + 0.25 * (high - low), high], rtol=1e-5)
    assert scaled.max() <= 1.1


def test_other_scales_cannot_be_undone():
    with pytest.raises(AutosegError, match="zscore does not bring intensities to"):
        scanner_units(np.zeros((1, 1, 1, 1), np.float32), smooth_scan(False), plan("zscore"))
