"""Transforms against slow formulas, scipy and batchgenerators at equal parameters."""

import itertools
import math

import numpy as np
import pytest
import torch
from batchgenerators.augmentations import color_augmentations
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.training.augment import (
    PRESETS,
    Setting,
    apply,
    draw,
    initial_patch_size,
    intensity,
    rotation_limit,
    spatial,
)
from tests.helpers.examples import examples


@pytest.fixture
def image():
    rng = np.random.default_rng(3)
    return torch.tensor(rng.normal(2.0, 3.0, size=(2, 8, 12, 10)), dtype=torch.float32)


def codes_of(shape, seed=0, labels=4):
    """Smooth random blobs with codes -1 .. labels - 2."""
    noise = np.random.default_rng(seed).normal(size=(labels, *shape))
    blobs = np.stack([ndimage.gaussian_filter(n, 1.5) for n in noise])
    return torch.tensor(blobs.argmax(0) - 1, dtype=torch.int16)


def by_scipy(array, matrix, patch, source, order=1):
    """The affine in scipy's words; array (z, y, x)."""
    full = np.eye(3)
    full[-len(matrix) :, -len(matrix) :] = matrix
    offset = (np.array(source) - 1) / 2 - full @ ((np.array(patch) - 1) / 2)
    return ndimage.affine_transform(array, full, offset, output_shape=patch, order=order, mode="nearest")


AFFINES = [((10, 12, 14), {}), ((4, 20, 24), {}), ((1, 20, 24), {}), ((9, 9, 9), {"rotation_probability": 0.0})]


@pytest.mark.parametrize(("patch", "options"), AFFINES, ids=str)
def test_affine_is_linear_sampling(patch, options):
    setting = Setting(patch)
    options = {"rotation_probability": 1.0, "scaling_probability": 1.0, **options}
    for seed in range(4):
        drawn = spatial.sample_affine(np.random.default_rng(seed), setting, **options)
        source = drawn["source_size"]
        volume = torch.tensor(np.random.default_rng(seed).normal(size=source), dtype=torch.float32)
        moved, _ = spatial.apply_affine(volume[None], codes_of(source), **drawn)
        expected = by_scipy(volume.double().numpy(), drawn["matrix"], patch, source)
        np.testing.assert_allclose(moved[0].numpy(), expected, atol=2e-4)


@pytest.mark.parametrize(("patch", "options"), AFFINES, ids=str)
def test_codes_are_the_arg_max_of_linearly_sampled_labels(patch, options):
    setting = Setting(patch)
    options = {"rotation_probability": 1.0, "scaling_probability": 1.0, **options}
    for seed in range(4):
        drawn = spatial.sample_affine(np.random.default_rng(seed), setting, **options)
        source = drawn["source_size"]
        codes = codes_of(source, seed)
        _, moved = spatial.apply_affine(torch.zeros(1, *source), codes, **drawn)
        maps = [by_scipy((codes.numpy() == c).astype(float), drawn["matrix"], patch, source) for c in range(-1, 3)]
        ranked = np.sort(maps, axis=0)
        certain = ranked[-1] - ranked[-2] > 1e-3
        assert certain.mean() > 0.9
        np.testing.assert_array_equal(moved.numpy()[certain], (np.argmax(maps, 0) - 1)[certain])


@examples(60)
@given(
    patch=st.tuples(*[st.integers(1, 40)] * 3),
    seed=st.integers(0, 10**6),
)
def test_the_source_box_holds_every_voxel_of_the_patch_and_little_more(patch, seed):
    setting = Setting(patch)
    drawn = spatial.sample_affine(np.random.default_rng(seed), setting, rotation_probability=1, scaling_probability=0.5)
    matrix, source = np.array(drawn["matrix"]), np.array(drawn["source_size"])
    axes = len(matrix)
    assert tuple(source[:-axes]) == patch[:-axes]
    corners = np.array(list(itertools.product(*[(-(e - 1) / 2, (e - 1) / 2) for e in patch[-axes:]])))
    reach = np.abs(matrix @ corners.T).max(axis=1)
    half = (source[-axes:] - 1) / 2
    assert (reach <= half + 1e-6).all()
    assert (half < reach + 1 + 1e-6).all()
    assert ((source - patch) % 2 == 0).all()


def test_a_scale_above_one_makes_objects_smaller():
    source = (20, 20, 20)
    codes = torch.zeros(source, dtype=torch.int16)
    codes[5:15, 5:15, 5:15] = 1
    matrix = tuple(map(tuple, (1.25 * np.eye(3)).tolist()))
    _, moved = spatial.apply_affine(codes[None].float(), codes, matrix, (16, 16, 16), source)
    assert (moved == 1).sum() == 8**3


def test_a_quarter_turn_is_numpys():
    codes = codes_of((4, 8, 8))
    image, moved = spatial.apply_affine(codes[None].float(), codes, ((0.0, -1.0), (1.0, 0.0)), (4, 8, 8), (4, 8, 8))
    turned = torch.rot90(codes, -1, (1, 2))
    assert torch.equal(moved, turned)
    torch.testing.assert_close(image[0], turned.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("patch", "degrees", "flat"),
    [
        ((128, 128, 128), 30, False),
        ((40, 56, 40), 30, False),
        ((20, 320, 256), 180, True),
        ((80, 192, 160), 30, False),
        ((1, 256, 224), 180, True),
        ((1, 320, 192), 15, True),
    ],
)
def test_flat_patches_turn_in_plane_only(patch, degrees, flat):
    assert rotation_limit(patch) == degrees
    assert Setting(patch).in_plane == flat
    drawn = spatial.sample_affine(np.random.default_rng(0), Setting(patch), rotation_probability=1.0)
    assert len(drawn["matrix"]) == (2 if flat else 3)


def test_initial_patch_size_is_nnunets():
    assert initial_patch_size((128, 128, 128), rotation_degrees=30) == (205, 205, 205)
    assert initial_patch_size((1, 100, 100), rotation_degrees=0) == (1, 117, 117)
    assert initial_patch_size((20, 100, 100), rotation_degrees=0, smallest_scale=1) == (20, 100, 100)


@examples(40)
@given(axes=st.lists(st.sampled_from([0, 1, 2]), unique=True))
def test_mirrors_are_exact(axes):
    codes = codes_of((3, 4, 5))
    image, moved = spatial.apply_mirror(codes[None].float(), codes, tuple(axes))
    expected = np.flip(codes.numpy(), axes)
    np.testing.assert_array_equal(moved.numpy(), expected)
    np.testing.assert_array_equal(image[0].numpy(), expected)


def test_only_allowed_axes_are_mirrored():
    rng = np.random.default_rng(0)
    drawn = [spatial.sample_mirror(rng, Setting((8, 8, 8), mirror_axes=(1,))) for _ in range(50)]
    assert {d["axes"] for d in drawn if d} == {(1,)}
    assert spatial.sample_mirror(rng, Setting((8, 8, 8), mirror_axes=())) is None


def test_brightness_equals_batchgenerators(image):
    expected = color_augmentations.augment_brightness_multiplicative(image.numpy().copy(), (1.2, 1.2))
    result, _ = intensity.apply_brightness(image, None, (1.2, 1.2), (0.0, 0.0))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5)


def test_contrast_equals_batchgenerators(image):
    for factor in (0.8, 1.25):
        expected = color_augmentations.augment_contrast(image.numpy().copy(), lambda f=factor: f)
        result, _ = intensity.apply_contrast(image, None, (factor, factor))
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("gamma", [0.7, 1.4])
def test_gamma_equals_batchgenerators(image, gamma, invert, monkeypatch):
    low, high = (gamma, gamma) if gamma > 1 else (gamma, gamma + 1e-12)
    monkeypatch.setattr(np.random, "uniform", lambda *_: gamma)
    expected = color_augmentations.augment_gamma(
        image.numpy().copy(), (low, high), invert_image=invert, per_channel=True, retain_stats=True
    )
    result, _ = intensity.apply_gamma(image, None, (gamma, gamma), invert)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_gamma_keeps_mean_and_deviation(image):
    result, _ = intensity.apply_gamma(image, None, (0.8, 1.4), False)
    torch.testing.assert_close(result.mean((1, 2, 3)), image.mean((1, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result.std((1, 2, 3)), image.std((1, 2, 3)), rtol=1e-4, atol=1e-4)


def test_blur_is_a_gaussian(image):
    result, _ = intensity.apply_blur(image, None, {1: (0.5, 0.8, 1.0)})
    expected = image[1].double().numpy()
    for axis, sigma in enumerate((0.5, 0.8, 1.0)):
        radius = math.ceil(3 * sigma)
        expected = ndimage.gaussian_filter1d(expected, sigma, axis, mode="nearest", radius=radius)
    np.testing.assert_allclose(result[1].numpy(), expected, atol=1e-5)
    assert torch.equal(result[0], image[0])


def test_low_resolution_at_half_repeats_neighbours_linearly():
    ramp = torch.arange(8.0).reshape(1, 1, 1, 8).expand(1, 4, 4, 8)
    result, _ = intensity.apply_low_resolution(ramp, None, {0: 0.5}, False)
    expected = torch.tensor([1, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7])  # samples 1, 3, 5, 7 at centres 0.5, 2.5, 4.5, 6.5
    torch.testing.assert_close(result[0, 0, 0], expected)


def test_low_resolution_of_flat_patches_keeps_slices_apart():
    image = torch.randn(4, 16, 16).reshape(1, 4, 16, 16)
    other = image.clone()
    other[0, 2] = 0
    first, _ = intensity.apply_low_resolution(image, None, {0: 0.5}, True)
    second, _ = intensity.apply_low_resolution(other, None, {0: 0.5}, True)
    assert torch.equal(first[0, [0, 1, 3]], second[0, [0, 1, 3]])


def test_noise_has_its_deviation(image):
    big = torch.zeros(2, 40, 40, 40)
    result, _ = intensity.apply_noise(big, None, (0.1, 0.4), seed=1)
    torch.testing.assert_close(result.std((1, 2, 3)), torch.tensor([0.1, 0.4]), rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["noise", "brightness", "contrast", "gamma", "blur", "low_resolution"])
def test_strength_follows_centre_and_unit(image, name):
    """Augmenting stored intensities, then scaling, is the same as scaling, then augmenting."""
    centre, unit = (5.0, -2.0), (4.0, 0.5)
    stored = image * torch.tensor(unit).reshape(2, 1, 1, 1) + torch.tensor(centre).reshape(2, 1, 1, 1)
    sample, change = getattr(intensity, f"sample_{name}"), getattr(intensity, f"apply_{name}")
    parameters = [sample(np.random.default_rng(0), Setting((8, 12, 10), c, u)) for c, u in (((0, 0), (1, 1)), (centre, unit))]
    scaled, _ = change(image, None, **parameters[0])
    raw, _ = change(stored, None, **parameters[1])
    back = (raw - torch.tensor(centre).reshape(2, 1, 1, 1)) / torch.tensor(unit).reshape(2, 1, 1, 1)
    torch.testing.assert_close(back, scaled, rtol=1e-3, atol=1e-3)


def test_nnunet_preset_draws_as_often_as_nnunet():
    setting = Setting((16, 16, 16))
    rng = np.random.default_rng(0)
    draws = [draw(rng, PRESETS["nnunet"], setting) for _ in range(4000)]
    share = {
        name: np.mean([any(n == name for n, _ in d.steps) for d in draws])
        for name in ("affine", "noise", "blur", "brightness", "contrast", "low_resolution", "gamma", "mirror")
    }
    expected = {
        "affine": 1 - 0.8**2,
        "noise": 0.1,
        "blur": 0.2 * 0.5,  # one channel, chosen half of the time
        "brightness": 0.15,
        "contrast": 0.15,
        "low_resolution": 0.25 * 0.5,
        "gamma": 1 - 0.9 * 0.7,
        "mirror": 1 - 0.5**3,
    }
    for name, probability in expected.items():  # four standard errors of 4000 draws: at most 0.032
        assert share[name] == pytest.approx(probability, abs=0.032), name


def test_only_samples_with_an_affine_read_another_box():
    setting = Setting((40, 56, 40))
    rng = np.random.default_rng(1)
    for _ in range(200):
        drawn = draw(rng, PRESETS["nnunet"], setting)
        assert (drawn.source_size == setting.patch_size) or any(name == "affine" for name, _ in drawn.steps)


def test_factors_lie_below_and_above_one_equally_often():
    rng = np.random.default_rng(0)
    setting = Setting((8, 8, 8))
    gammas = np.array([intensity.sample_gamma(rng, setting)["gamma"][0] for _ in range(2000)])
    assert gammas.min() >= 0.7
    assert gammas.max() <= 1.5
    assert np.mean(gammas < 1) == pytest.approx(0.5, abs=0.05)


def test_a_box_of_another_size_is_refused():
    drawn = draw(np.random.default_rng(0), PRESETS["none"], Setting((4, 4, 4)))
    with pytest.raises(ValueError, match=r"\(4, 4, 4\).*\(4, 4, 5\)"):
        apply(torch.zeros(1, 4, 4, 5), torch.zeros(4, 4, 5, dtype=torch.int16), drawn)
