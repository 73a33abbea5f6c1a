"""What every loss in LOSSES promises, for labels and for regions."""

from functools import partial

import pytest
import torch

from autoseg.evaluation.reconstruction import _ssim_map
from autoseg.networks import Scores
from autoseg.training.losses import LOSSES, _ssim, region_targets, restoration_loss

REGIONS = ((1, 2), (2,))


@pytest.fixture(params=[(name, regions) for name in LOSSES for regions in ((), REGIONS)], ids=str)
def case(request):
    name, regions = request.param
    torch.manual_seed(0)
    return partial(LOSSES[name], regions=regions), 2 if regions else 3, regions


def codes():
    block = torch.zeros(2, 4, 6, 6, dtype=torch.int16)
    block[:, :, 1:4] = 1
    block[:, 1:3, 2:4] = 2
    return block


def perfect(regions):
    """Logits that are certain and right."""
    if regions:
        return 60.0 * region_targets(codes(), regions) - 30
    return 60.0 * torch.nn.functional.one_hot(codes().long(), 3).movedim(-1, 1)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_perfect_is_zero_and_less_than_wrong(case, batch_dice):
    loss, heads, regions = case
    right = loss(perfect(regions), codes(), batch_dice=batch_dice)
    wrong = loss(-perfect(regions), codes(), batch_dice=batch_dice)
    unsure = loss(torch.zeros(2, heads, 4, 6, 6), codes(), batch_dice=batch_dice)
    assert right.ndim == 0
    assert abs(right.item()) < 1e-4
    assert right < unsure < wrong


@pytest.mark.parametrize("value", [0, -1])
def test_finite_where_no_structure_is(case, value):
    loss, heads, _ = case
    logits = torch.randn(2, heads, 4, 6, 6, requires_grad=True)
    result = loss(logits, torch.full((2, 4, 6, 6), value, dtype=torch.int16))
    result.backward()
    assert result.isfinite()
    assert logits.grad.isfinite().all()
    if value == -1:
        assert result.item() == 0
        assert logits.grad.abs().max() == 0


def test_following_the_gradient_improves(case):
    loss, heads, _ = case
    logits = torch.randn(2, heads, 4, 6, 6, requires_grad=True)
    first = loss(logits, codes())
    first.backward()
    assert loss((logits - logits.grad).detach(), codes()) < first.detach()


@pytest.mark.parametrize("batch_dice", [False, True])
def test_ignored_voxels_have_no_effect(case, batch_dice):
    loss, heads, _ = case
    logits = torch.randn(2, heads, 4, 6, 6)
    target = codes()
    target[:, :2] = -1
    changed = logits.clone()
    changed[:, :, :2] = 5 * torch.randn(2, heads, 2, 6, 6)
    value = loss(logits, target, batch_dice=batch_dice)
    torch.testing.assert_close(loss(changed, target, batch_dice=batch_dice), value)
    torch.testing.assert_close(loss(logits[:, :, 2:], target[:, 2:], batch_dice=batch_dice), value)
    logits.requires_grad_(True)
    loss(logits, target, batch_dice=batch_dice).backward()
    assert logits.grad[:, :, :2].abs().max() == 0


def test_computed_in_float32_under_autocast(case):
    loss, heads, _ = case
    logits = torch.randn(2, heads, 4, 6, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(logits, codes())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(logits.float(), codes()))


def test_logits_that_are_still_to_be_computed_have_the_same_loss_and_gradients(case):
    loss, heads, _ = case
    made_of = [torch.randn(2, 5, 4, 6, 6), torch.randn(heads, 5, 1, 1, 1), torch.randn(heads)]
    target = codes()
    target[0, :, 5] = -1
    found = []
    for form in (lambda scores: scores, Scores.logits):
        tensors = [tensor.clone().requires_grad_() for tensor in made_of]
        value = loss(form(Scores(*tensors)), target, batch_dice=True)
        value.backward()
        found.append([value.detach(), *(tensor.grad for tensor in tensors)])
    for scores, logits in zip(*found, strict=True):
        torch.testing.assert_close(scores, logits)
    assert found[0][0] > 0


def test_inputs_stay_untouched(case):
    loss, heads, _ = case
    logits, target = torch.randn(2, heads, 4, 6, 6), codes()
    before = logits.clone()
    loss(logits, target)
    assert torch.equal(logits, before)
    assert torch.equal(target, codes())


# ---- restoration


def test_restoration_loss_is_the_error_and_dissimilarity_of_the_evaluation():
    torch.manual_seed(0)
    clean, restored = torch.rand(2, 1, 14, 13, 12), torch.rand(2, 1, 14, 13, 12)
    inner = (slice(5, -5),) * 3  # where no window ends at a face
    for sample, other in zip(clean, restored, strict=True):
        found = _ssim(other[None], sample[None])[0, 0][inner]
        expected = _ssim_map(other[0].numpy(), sample[0].numpy())[inner]
        torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)
    error = (clean - restored).abs().mean() + (1 - _ssim(restored, clean)).mean()
    torch.testing.assert_close(restoration_loss(restored, clean), error)
    assert restoration_loss(clean.bfloat16(), clean.bfloat16().float()) == pytest.approx(0, abs=1e-5)


def test_voxels_beyond_the_scan_teach_nothing_to_the_restoration():
    torch.manual_seed(0)
    clean, restored = torch.rand(1, 2, 8, 9, 10), torch.rand(1, 2, 8, 9, 10).requires_grad_()
    clean[..., :4] = torch.nan
    restoration_loss(restored, clean).backward()
    assert restored.grad.isfinite().all()
    assert (restored.grad[..., :4] == 0).all()
    assert (restored.grad[..., 4:] != 0).any()
    assert restoration_loss(restored, torch.full_like(clean, torch.nan)) == 0
