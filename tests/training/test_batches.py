"""Batches for restoration: the target is the image before it was degraded, and is known to end where the scan ends."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.data.labels import read_labels
from autoseg.evaluation.reconstruction import slice_axis
from autoseg.imaging.geometry import Geometry
from autoseg.preprocess.case import PreparedCase, find_locations
from autoseg.preprocess.normalize import outside_value
from autoseg.preprocess.store import open_case, store_case
from autoseg.training.augment import DEGRADATIONS, PRESETS, Setting, draw, mirrored_only, split, with_degradations
from autoseg.training.augment.intensity import apply_thick_slices, sample_thick_slices
from autoseg.training.batches import Share, make_batch, restored_patch
from autoseg.training.recipe import Recipe, restoration_weight

LABELS = read_labels({"background": 0, "blob": 1})
RECIPE = Recipe(batch_size=4, patch_curriculum=(), restoration_weight=0.1, restoration_every=1)
SETTING = Setting((20, 24, 16), centre=(0.5,), unit=(0.2,))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """One case smaller than the patch, of intensities well inside [0, 1]."""
    folder = tmp_path_factory.mktemp("case")
    codes = np.zeros((14, 24, 22), np.int16)
    codes[4:9, 8:15, 8:15] = 1
    image = np.float32(0.3) + np.random.default_rng(0).random((1, *codes.shape), np.float32) * np.float32(0.4)
    prepared = PreparedCase("a", image, codes, Geometry.from_spacing(codes.shape, (1, 1, 1)), find_locations(codes, seed=0))
    store_case(folder, prepared, "digest")
    return [open_case(folder)]


def test_without_restoration_there_is_no_lesson(cases, plan):
    plain = replace(RECIPE, restoration_weight=0.0)
    assert make_batch(cases, plan, plain, LABELS, 0, 0, 1.0).lesson is None


def test_every_third_batch_teaches_restoration(cases, plan):
    recipe = replace(RECIPE, restoration_every=3)
    batches = [make_batch(cases, plan, recipe, LABELS, 0, step, 1.0) for step in range(5)]
    assert [batch.lesson is not None for batch in batches] == [True, False, False, True, False]
    assert [len(batch.tensors) for batch in batches] == [5, 2, 2, 5, 2]


def test_the_segmentation_has_the_same_patches_with_and_without_restoration(cases, plan):
    plain = make_batch(cases, plan, replace(RECIPE, restoration_weight=0.0), LABELS, 0, 3, 1.0)
    both = make_batch(cases, plan, RECIPE, LABELS, 0, 3, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(plain.tensors, both.tensors, strict=False))


def test_patches_that_teach_restoration_are_small_and_fit_the_network():
    assert restored_patch((40, 56, 40), (8, 8, 8)) == (32, 32, 32)
    assert restored_patch((112, 160, 128), (16, 32, 32)) == (32, 32, 32)
    assert restored_patch((20, 320, 256), (5, 64, 64)) == (20, 64, 64)
    assert restored_patch((1, 256, 320), (1, 32, 64)) == (1, 128, 128)


def test_the_target_ends_where_the_scan_ends(cases, plan):
    small = restored_patch(plan.patch_size, plan.network.divisor)
    for name in ("none", "nnunet"):
        for step in range(4):
            recipe = replace(RECIPE, augmentation=name)
            _, codes, degraded, clean, slices = make_batch(cases, plan, recipe, LABELS, 0, step, 1.0).tensors
            assert degraded.shape == clean.shape == (4, 1, *small)
            assert slices.shape == (4, 3)
            assert set(slices.unique().tolist()) <= {1, 2, 3, 4}
            assert degraded.isfinite().all()
            assert set(codes.unique().tolist()) <= {0, 1}
            assert 0 <= clean.nan_to_num(0.5).min() <= clean.nan_to_num(0.5).max() <= 1
            beyond = clean.isnan().flatten(3).float().mean(-1)  # nothing is turned: whole slices are beyond
            assert set(beyond.flatten().tolist()) > {1}
            assert (beyond == 1).sum(dim=-1).min() >= small[0] - 14


def test_the_target_is_clean_and_some_inputs_are_not(cases, plan):
    plain = replace(RECIPE, augmentation="none")
    degraded = thick = 0
    for step in range(10):
        _, _, images, clean, slices = make_batch(cases, plan, plain, LABELS, 0, step, 1.0).tensors
        thick += int((slices > 1).sum())
        inside = clean.isfinite()
        assert set(np.unique(np.round(clean[inside].numpy(), 6))) <= set(np.unique(np.round(cases[0].image[:], 6)))
        degraded += sum(int((a - b)[i].abs().max() > 1e-6) for a, b, i in zip(images, clean, inside, strict=True))
    assert 0.7 * 40 <= degraded < 40
    assert 0.3 * 40 <= thick <= 0.7 * 40


@pytest.mark.parametrize("name", PRESETS)
def test_what_degrades_comes_last(name):
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = draw(rng, with_degradations(PRESETS[name]), SETTING)
        clean, after = split(drawn)
        assert clean.steps + after.steps == drawn.steps
        assert not {step for step, _ in clean.steps} & set(DEGRADATIONS)
        assert {step for step, _ in after.steps} <= set(DEGRADATIONS)
        assert after.source_size == SETTING.patch_size


def test_thick_slices_keep_ramps_and_blur_along_one_axis():
    image = torch.linspace(0, 1, 24)[:, None].expand(1, 20, 24, 16).clone()
    for axis in range(3):
        thick, _ = apply_thick_slices(image, None, axis=axis, factor=3, first=1, sigma=(0.0,), seed=0)
        inner = thick[:, 4:-4, 4:-4, 4:-4]
        torch.testing.assert_close(inner, image[:, 4:-4, 4:-4, 4:-4], atol=4e-3, rtol=0)
    noise = torch.randn(1, 20, 24, 16)
    thick, _ = apply_thick_slices(noise, None, axis=1, factor=4, first=0, sigma=(0.0,), seed=0)
    assert thick.std() < 0.7
    steps = [thick.diff(dim=axis + 1).abs().mean() for axis in range(3)]
    assert steps[1] < 0.5 * min(steps[0], steps[2])


def test_slices_are_thick_along_the_coarsest_axis_that_is_long_enough():
    rng = np.random.default_rng(0)
    for spacing_mm, axis in (((3.0, 1.0, 1.0), 0), ((1.0, 1.0, 1.0), 2), ((1.0, 1.0 + 1e-7, 1.0), 2), ((1.0, 2.0, 1.0), 1)):
        setting = replace(SETTING, spacing_mm=spacing_mm)
        assert {sample_thick_slices(rng, setting)["axis"] for _ in range(20)} == {axis}
        assert slice_axis(SETTING.patch_size, spacing_mm) == axis  # as what is learned is measured
    flat = replace(SETTING, patch_size=(1, 24, 16), spacing_mm=(9.0, 1.0, 1.0))
    assert {sample_thick_slices(rng, flat)["axis"] for _ in range(20)} == {2}
    assert sample_thick_slices(rng, replace(SETTING, patch_size=(1, 3, 3))) is None


def test_the_weight_rises_and_stays():
    recipe = Recipe(restoration_weight=0.2, restoration_warmup=0.1)
    assert [restoration_weight(recipe, f) for f in (0.0, 0.05, 0.1, 0.7)] == pytest.approx([0, 0.1, 0.2, 0.2])
    assert restoration_weight(replace(recipe, restoration_warmup=0.0), 0.01) == 0.2


def test_samples_of_the_final_phase_are_mirrored_and_no_more(cases, plan):
    stored = set(np.unique(cases[0].image[:]).tolist()) | set(outside_value(plan.normalization))
    recipe = replace(RECIPE, restoration_weight=0.0, foreground=0.0, augmentation="nnunet")
    changed, plain = (
        [make_batch(cases, plan, recipe, LABELS, 0, i, 1.0, how).images for i in range(5)] for how in (False, True)
    )
    assert not any(set(images.unique().tolist()) <= stored for images in changed)
    assert all(set(images.unique().tolist()) <= stored for images in plain)


@pytest.mark.parametrize("name", PRESETS)
def test_samples_of_the_final_phase_are_mirrored_where_others_are(name):
    rng = np.random.default_rng(0)
    drawn = {step for _ in range(20) for step, _ in draw(rng, mirrored_only(PRESETS[name]), SETTING).steps}
    assert drawn == (set() if name == "none" else {"mirror"})


def test_shares_of_a_divided_batch_are_the_batch_and_whole_batches_are_new_ones(cases, plan):
    """Three samples and their lessons, of which the last one is on foreground, on two devices."""
    recipe = replace(RECIPE, batch_size=3, divide_batch=True)
    whole = make_batch(cases, plan, recipe, LABELS, 5, 7, 1.0)
    shares = [make_batch(cases, plan, recipe, LABELS, Share(5, index, 2, divided=True), 7, 1.0) for index in (0, 1)]
    for tensor, first, second in zip(whole.tensors, shares[0].tensors, shares[1].tensors, strict=True):
        assert torch.equal(tensor.nan_to_num(), torch.stack((first[0], second[0], first[1])).nan_to_num())
    own = [make_batch(cases, plan, recipe, LABELS, Share(5, index, 2), 7, 1.0) for index in (0, 1)]
    assert torch.equal(own[0].images, whole.images)
    assert own[1].images.shape == whole.images.shape
    assert not torch.equal(own[1].images, whole.images)
