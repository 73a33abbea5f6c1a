"""Losses against formulas written out in numpy, and deep supervision."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.errors import AutosegError
from autoseg.networks import Scores
from autoseg.training.losses import (
    LOSSES,
    SLAB,
    cross_entropy,
    deep_supervision_loss,
    deep_supervision_weights,
    dice,
    dice_cross_entropy,
    region_targets,
)

REGIONS = ((1, 2), (2,), (3,))


@pytest.fixture
def sample():
    rng = np.random.default_rng(20240501)
    logits = rng.normal(size=(2, 4, 3, 5, 6)) * 2
    codes = rng.integers(-1, 4, size=(2, 3, 5, 6))
    return logits, codes


def soft_dice(probability, truth, batch_dice):
    """Probability and truth (B, K, voxels), float64, zero where ignored."""
    axes = (0, 2) if batch_dice else 2
    both = (probability * truth).sum(axes)
    return 1 - ((2 * both + 1e-5) / (probability.sum(axes) + truth.sum(axes) + 1e-5)).mean()


def by_hand(logits, codes, batch_dice, regions=()):
    """Cross-entropy and Dice loss, voxel lists per sample written out."""
    logits, codes = logits.reshape(2, logits.shape[1], -1), codes.reshape(2, -1)
    valid = codes >= 0
    if regions:
        probability = 1 / (1 + np.exp(-logits))
        truth = np.stack([np.isin(codes, region) for region in regions], axis=1).astype(float)
        entropy = -(truth * np.log(probability) + (1 - truth) * np.log(1 - probability))
        entropy = np.moveaxis(entropy, 1, -1)[valid].mean()
    else:
        probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        truth = np.stack([codes == k for k in range(logits.shape[1])], axis=1).astype(float)
        entropy = -np.log((probability * truth).sum(1)[valid]).mean()
        probability, truth = probability[:, 1:], truth[:, 1:]
    return entropy, soft_dice(probability * valid[:, None], truth * valid[:, None], batch_dice)


@pytest.mark.parametrize("regions", [(), REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_losses_equal_the_formula(sample, batch_dice, regions):
    logits, codes = sample
    logits = logits[:, : len(regions) or 4]
    entropy, overlap = by_hand(logits, codes, batch_dice, regions)
    tensors = torch.tensor(logits, dtype=torch.float32), torch.tensor(codes, dtype=torch.int16)
    options = {"batch_dice": batch_dice, "regions": regions}
    assert cross_entropy(*tensors, **options).item() == pytest.approx(entropy, rel=1e-5)
    assert dice(*tensors, **options).item() == pytest.approx(overlap, rel=1e-5)
    assert dice_cross_entropy(*tensors, **options).item() == pytest.approx(entropy + overlap, rel=1e-5)


@pytest.mark.parametrize("regions", [(), ((1, 2), (2,))], ids=["labels", "regions"])
def test_the_gradient_is_that_of_finite_differences(regions):
    torch.manual_seed(0)
    logits = torch.randn(1, 2 if regions else 3, 2, 2, 2, requires_grad=True)
    codes = torch.tensor([0, 1, 2, -1, 1, 0, 2, 1], dtype=torch.int16).reshape(1, 2, 2, 2)
    loss = partial(dice_cross_entropy, regions=regions)
    loss(logits, codes).backward()
    step = 1e-2
    for index in np.ndindex(*logits.shape):
        shift = torch.zeros_like(logits)
        shift[index] = step
        with torch.no_grad():
            slope = (loss(logits + shift, codes) - loss(logits - shift, codes)).item() / (2 * step)
        assert logits.grad[index].item() == pytest.approx(slope, abs=2e-4)


def test_many_voxels_are_summed_exactly():
    codes = torch.ones(1, 64, 256, 256, dtype=torch.int16)  # 4 million: a naive float32 sum drifts by 1e-4
    logits = torch.zeros(1, 2, 64, 256, 256)
    assert dice(logits, codes).item() == pytest.approx(1 - 2 * 0.5 / 1.5, abs=1e-6)


def test_regions_may_overlap_and_ignored_voxels_belong_to_none():
    codes = torch.tensor([-1, 0, 1, 2]).reshape(1, 1, 1, 4)
    targets = region_targets(codes, ((1, 2), (2,)))
    assert targets.shape == (1, 2, 1, 1, 4)
    assert targets.flatten(2)[0].tolist() == [[False, False, True, True], [False, False, False, True]]


def test_too_few_channels_are_refused():
    with pytest.raises(AutosegError, match="background"):
        dice(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 2, 2, 2))
    with pytest.raises(AutosegError, match="2 regions"):
        dice(torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 2, 2, 2), regions=((1,), (2,)))


@pytest.mark.parametrize(
    ("scales", "weights"),
    [(1, (1,)), (2, (1, 0)), (3, (2 / 3, 1 / 3, 0)), (5, (8 / 15, 4 / 15, 2 / 15, 1 / 15, 0))],
)
def test_weights_halve_and_the_coarsest_is_left_out(scales, weights):
    assert deep_supervision_weights(scales) == pytest.approx(weights)


@pytest.mark.thorough
def test_deep_supervision_is_the_weighted_sum():
    torch.manual_seed(0)
    codes = torch.randint(-1, 3, (2, 4, 8, 8), dtype=torch.int16)
    scales = [torch.randn(2, 3, *shape) for shape in ((4, 8, 8), (4, 4, 4), (2, 2, 2))]
    coarse = codes[:, :, 1::2, 1::2]
    expected = 2 / 3 * dice_cross_entropy(scales[0], codes) + 1 / 3 * dice_cross_entropy(scales[1], coarse)
    torch.testing.assert_close(deep_supervision_loss(dice_cross_entropy, scales, codes), expected)


def test_a_single_scale_counts_fully():
    codes = torch.zeros(1, 2, 2, 2, dtype=torch.int16)
    logits = torch.randn(1, 2, 2, 2, 2)
    torch.testing.assert_close(deep_supervision_loss(dice_cross_entropy, [logits], codes), dice_cross_entropy(logits, codes))


@pytest.mark.parametrize("shape", [(2, 3, 3), (3, 4, 2), (4, 2, 2)])
def test_coarse_targets_are_torchs_nearest_exact(shape):
    seen = []
    codes = torch.randint(0, 9, (1, 6, 12, 12))
    logits = [torch.zeros(1, 2, 6, 12, 12), torch.zeros(1, 2, *shape), torch.zeros(1, 2, 1, 1, 1)]
    deep_supervision_loss(lambda _, target: seen.append(target) or torch.zeros(()), logits, codes)
    expected = torch.nn.functional.interpolate(codes[None].double(), size=shape, mode="nearest-exact")[0]
    assert torch.equal(seen[0], codes)
    assert torch.equal(seen[1].double(), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("slab", [2**22, 1], ids=["at once", "in slabs"])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_gradient_of_labels_is_exact(monkeypatch, slab, batch_dice):
    monkeypatch.setattr("autoseg.training.losses.SLAB", slab)
    logits = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    codes = torch.randint(-1, 5, (2, 3, 2, 4), dtype=torch.int16, generator=torch.Generator().manual_seed(1))
    loss = partial(dice_cross_entropy, batch_dice=batch_dice)
    assert torch.autograd.gradcheck(lambda x: loss(x, codes), logits.requires_grad_())


def test_with_many_labels_nothing_of_their_size_is_kept_but_the_logits():
    logits = torch.randn(1, 140, 16, 64, 64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        loss = dice_cross_entropy(logits, torch.zeros(1, 16, 64, 64, dtype=torch.int16))
    loss.backward()
    assert sum(kept) < 1.2 * logits.numel()


def test_logits_in_half_precision_are_summed_in_float32_and_get_a_gradient_of_their_own_type():
    logits = torch.randn(1, 5, 4, 8, 8).bfloat16().requires_grad_()
    wide = logits.detach().float().requires_grad_()
    codes = torch.randint(-1, 5, (1, 4, 8, 8), dtype=torch.int16)
    loss, expected = dice_cross_entropy(logits, codes), dice_cross_entropy(wide, codes)
    loss.backward()
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.equal(logits.grad, wide.grad.bfloat16())


def scores_and_codes(dtype, heads=7):
    rng = torch.Generator().manual_seed(0)
    tensors = [torch.randn(size, dtype=dtype, generator=rng) for size in ((2, 3, 4, 5, 6), (heads, 3, 1, 1, 1), (heads,))]
    codes = torch.randint(-1, heads, (2, 4, 5, 6), dtype=torch.int16, generator=rng)
    return Scores(*(tensor.requires_grad_() for tensor in tensors)), codes


@pytest.mark.thorough
@pytest.mark.parametrize("slab", [2**22, 500, 1], ids=["at once", "in slabs", "slice by slice"])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("regions", [(), tuple((code, 6) for code in range(7))], ids=["labels", "regions"])
def test_scores_have_the_loss_and_the_gradients_of_their_logits(monkeypatch, slab, batch_dice, regions):
    monkeypatch.setattr("autoseg.training.losses.SLAB", slab)
    scores, codes = scores_and_codes(torch.float32 if regions else torch.float64)
    inputs = (scores.features, scores.weight, scores.bias)
    loss = partial(dice_cross_entropy, batch_dice=batch_dice, regions=regions)
    logits = torch.nn.functional.conv3d(*inputs)
    values = loss(scores, codes), loss(logits, codes)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(torch.autograd.grad(values[0], inputs), torch.autograd.grad(values[1], inputs))
    with torch.no_grad():
        torch.testing.assert_close(loss(scores, codes), values[1])


def test_the_gradients_of_scores_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr("autoseg.training.losses.SLAB", 500)
    scores, codes = scores_and_codes(torch.float64)
    inputs = (scores.features, scores.weight, scores.bias)
    assert torch.autograd.gradcheck(lambda *tensors: dice_cross_entropy(Scores(*tensors), codes), inputs, fast_mode=True)


def test_scores_in_half_precision_are_as_good_as_logits_in_half_precision(monkeypatch):
    monkeypatch.setattr("autoseg.training.losses.SLAB", 500)
    scores, codes = scores_and_codes(torch.float32)
    inputs = (scores.features, scores.weight, scores.bias)
    with torch.autocast("cpu", torch.bfloat16):
        half = replace(scores, features=scores.features.bfloat16())
        logits = torch.nn.functional.conv3d(*inputs)
        assert logits.dtype == half.logits().dtype == torch.bfloat16
        values = dice_cross_entropy(half, codes), dice_cross_entropy(logits, codes)
    assert values[0].dtype == torch.float32
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-3)
    for found, expected in zip(*(torch.autograd.grad(value, inputs) for value in values), strict=True):
        assert (found - expected).norm() < 0.02 * expected.norm()


def test_logits_of_scores_are_never_in_memory_together():
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            tensors = [result] if isinstance(result, torch.Tensor) else result if isinstance(result, (tuple, list)) else []
            self.elements = max([self.elements, *(t.numel() for t in tensors if isinstance(t, torch.Tensor))])
            return result

    features = torch.randn(2, 4, 16, 48, 48, requires_grad=True)
    scores = Scores(features, torch.randn(140, 4, 1, 1, 1, requires_grad=True), torch.zeros(140))
    with Largest() as largest:
        dice_cross_entropy(scores, torch.zeros(2, 16, 48, 48, dtype=torch.int16)).backward()
    assert features.numel() < largest.elements < 1.1 * SLAB < scores.shape.numel() / 2


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_parts_of_a_divided_batch_have_the_loss_and_the_gradients_of_the_whole(name, batch_dice):
    """With voxels to be ignored, of which one part has more than the other: the mean of both parts would be another number."""
    torch.manual_seed(0)
    logits, codes = torch.randn(3, 3, 4, 6, 6, requires_grad=True), torch.randint(0, 3, (3, 4, 6, 6))
    codes[2, :3] = -1
    loss = LOSSES[name]
    parts, sums = (slice(0, 2), slice(2, 3)), []

    def kept(total):
        sums[-1].append(total.detach())
        return total

    for part in parts:  # what each part hands in
        sums.append([])
        loss(logits[part], codes[part], batch_dice=batch_dice, whole=kept)
    given = iter([sum(pair) for pair in zip(*sums, strict=True)] * 2)

    def whole(own):
        return own + (next(given) - own).detach()

    values = [loss(logits[part], codes[part], batch_dice=batch_dice, whole=whole) for part in parts]
    expected = loss(logits, codes, batch_dice=batch_dice)
    torch.testing.assert_close(torch.stack(values), torch.stack((expected, expected)))
    (of_parts,), (of_whole,) = (torch.autograd.grad(value, logits) for value in (sum(values), expected))
    torch.testing.assert_close(of_parts, of_whole)
