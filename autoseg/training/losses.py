"""Losses of segmentation: soft Dice, cross-entropy, and their sum; and the loss of restoration.

Every loss in ``LOSSES`` is a function ``loss(logits, codes, *, batch_dice=False, regions=(), unlabelled=None, whole=None)``
that returns a float32 scalar, 0 for a perfect prediction. ``logits`` are (B, K, Z, Y, X); ``codes`` (B, Z, Y, X) integers,
negative for voxels to ignore: neither label nor logits of these count. Without ``regions`` the K channels are codes (softmax,
background first). With ``regions`` (for each channel the codes that belong to it) they are independent (sigmoid).
``functools.partial`` fixes the keywords for a training run. ``unlabelled`` is passed with each batch if cases lack
annotations.

The soft Dice of a class is ``(2 I + s) / (P + T + s)`` with s = 1e-5, where I, P and T are the sums over voxels of
prediction x truth, prediction, and truth: per sample, or over the whole batch with ``batch_dice``. The loss is one
minus its mean over classes without background (Drozdzal et al. 2016; Isensee et al. 2021).

``unlabelled`` (B, structures) marks the structures that are not annotated in a sample. Background in its labels then means
*background or one of these*. With softmax the probability of this merged class is their sum, and its loss is the marginal
likelihood (Shi et al. 2021): it does not change when probability moves between background and an unlabelled structure, so
it favours neither. An unlabelled region is left out: its channel has no gradient. In both cases the Dice of an unlabelled
structure is left out of the mean.

Losses are computed from sums over voxels. So ``logits`` may be ``Scores``: they are computed slab by slab, again in the
backward pass, and are never in memory all at once. A batch may also be divided over several processes: each passes its part,
and ``whole``, a function that turns sums over the part into sums over the whole batch (``ranks.Ranks.whole``). All processes
then have the loss of the whole batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, reduce
from typing import Any, cast

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from autoseg.errors import TrainingError
from autoseg.networks import Scores
from autoseg.registry import Registry

__all__ = [
    "LOSSES",
    "can_be_divided",
    "cross_entropy",
    "deep_supervision_loss",
    "deep_supervision_weights",
    "dice",
    "dice_cross_entropy",
    "in_slabs",
    "refuse_deaf_loss",
    "region_targets",
    "restoration_loss",
]

Logits = torch.Tensor | Scores
Regions = Sequence[Sequence[int]]  # for each channel the codes that belong to it
Unlabelled = torch.Tensor | None  # (B, structures) bool
Sums = Sequence[torch.Tensor]
Whole = Callable[[torch.Tensor], torch.Tensor] | None

SMOOTH = 1e-5
SLAB = 2**22  # elements of logits whose probabilities are in memory at once


def dice_cross_entropy(
    logits: Logits,
    codes: torch.Tensor,
    *,
    batch_dice: bool = False,
    regions: Regions = (),
    unlabelled: Unlabelled = None,
    whole: Whole = None,
) -> torch.Tensor:
    """Soft Dice loss plus cross-entropy (binary cross-entropy for regions), equally weighted."""
    entropy, sums = _compare(logits, codes, regions, unlabelled, whole)
    return entropy + _dice_loss(sums, batch_dice, unlabelled, whole)


def cross_entropy(
    logits: Logits,
    codes: torch.Tensor,
    *,
    batch_dice: bool = False,
    regions: Regions = (),
    unlabelled: Unlabelled = None,
    whole: Whole = None,
) -> torch.Tensor:
    """Mean cross-entropy (binary for regions) over the voxels that are not ignored; ``batch_dice`` has no effect."""
    return _compare(logits, codes, regions, unlabelled, whole)[0]


def dice(
    logits: Logits,
    codes: torch.Tensor,
    *,
    batch_dice: bool = False,
    regions: Regions = (),
    unlabelled: Unlabelled = None,
    whole: Whole = None,
) -> torch.Tensor:
    """Soft Dice loss only."""
    return _dice_loss(_compare(logits, codes, regions, unlabelled, None)[1], batch_dice, unlabelled, whole)


LOSSES = Registry(
    "loss",
    {
        "dice_cross_entropy": dice_cross_entropy,
        "cross_entropy": cross_entropy,
        "dice": dice,
    },
)


def refuse_deaf_loss(name: str) -> None:
    """Raise TrainingError for a loss, for example of another package, that has no argument ``unlabelled``."""
    known = inspect.signature(LOSSES[name]).parameters.values()
    if not any(one.name == "unlabelled" or one.kind is one.VAR_KEYWORD for one in known):
        raise TrainingError(
            f"loss {name!r}: has no parameter 'unlabelled', and in some cases not all structures are annotated. Take another "
            f"--set loss=NAME, such as {next(iter(LOSSES))}"
        )


def can_be_divided(loss: Callable[..., torch.Tensor]) -> bool:
    """Whether a loss accepts ``whole``. Losses of other packages may not."""
    return "whole" in inspect.signature(loss).parameters


def region_targets(codes: torch.Tensor, regions: Regions) -> torch.Tensor:
    """Masks of the regions.

    Args:
        codes: (B, Z, Y, X) integers.
        regions: for each region the codes that belong to it (``LabelSchema.structure_codes``).

    Returns:
        (B, R, Z, Y, X) bool; regions may overlap.
    """
    return torch.stack([reduce(torch.logical_or, [codes == code for code in region]) for region in regions], dim=1)


def deep_supervision_weights(scales: int) -> tuple[float, ...]:
    """Weights 1, 1/2, 1/4, ... from the finest output, divided by their sum; the coarsest has 0 unless it is the only one."""
    weights = [0.5**i for i in range(scales)]
    if scales > 1:
        weights[-1] = 0.0
    return tuple(weight / sum(weights) for weight in weights)


def deep_supervision_loss(
    loss: Callable[[Any, torch.Tensor], torch.Tensor], logits_list: Sequence[Logits], codes: torch.Tensor
) -> torch.Tensor:
    """Weighted sum of ``loss(logits, codes)`` over the scales of a network.

    Args:
        loss: function of logits and codes.
        logits_list: logits (B, K, z, y, x) or Scores, finest first.
        codes: (B, Z, Y, X) on the finest grid; voxels of coarser grids get the code nearest to their centre.
    """
    weights = deep_supervision_weights(len(logits_list))
    total = sum(
        weight * loss(logits, _nearest(codes, logits.shape[2:]))
        for weight, logits in zip(weights, logits_list, strict=True)
        if weight > 0
    )
    return cast(torch.Tensor, total)  # there is at least one scale


def restoration_loss(restored: torch.Tensor, clean: torch.Tensor, whole: Whole = None) -> torch.Tensor:
    """Mean absolute error plus 1 - SSIM, in float32; 0 for a perfect restoration.

    SSIM as in ``evaluation.reconstruction`` (Gaussian of sigma 1.5, data range 1), with windows that end at the faces of the
    patch.

    Args:
        restored: (B, C, Z, Y, X).
        clean: the same shape, NaN in voxels that do not count.
        whole: for a divided batch, see the module.
    """
    with torch.autocast(restored.device.type, enabled=False):
        inside = clean.isfinite()
        x, y = torch.where(inside, restored.float(), 0), torch.where(inside, clean, 0)
        total = (x - y).abs().sum() + (1 - _ssim(x, y))[inside].sum()
        return _mean(total, inside.sum(), whole)


def _ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(B, C, Z, Y, X) structural similarity around each voxel."""
    mean_x, mean_y, squares, product = _smooth(torch.stack((x, y, x * x + y * y, x * y)))
    both, mean_squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    structure = (2 * (product - both) + 9e-4) / (squares - mean_squares + 9e-4)
    return structure * (2 * both + 1e-4) / (mean_squares + 1e-4)


def _smooth(volumes: torch.Tensor) -> torch.Tensor:
    """Gaussian means along the last three axes: one product with a small matrix each, on CPUs faster than convolution."""
    for axis in (-3, -2, -1):
        if volumes.shape[axis] > 1:
            volumes = (volumes.movedim(axis, -1) @ _gaussian(volumes.shape[axis], volumes.device)).movedim(-1, axis)
    return volumes


@lru_cache(maxsize=16)
def _gaussian(edge: int, device: torch.device) -> torch.Tensor:
    """(edge, edge) float32: column i has the weights of the mean around voxel i."""
    index = torch.arange(edge, device=device, dtype=torch.float32)
    distance = (index[:, None] - index).abs()
    weights = torch.where(distance <= 5, torch.exp(-0.5 * (distance / 1.5) ** 2), 0)
    return weights / weights.sum(dim=0)


def _nearest(codes: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The codes (B, Z, Y, X) on a grid of another shape over the same box."""
    for axis, (old, new) in enumerate(zip(codes.shape[1:], shape, strict=True), start=1):
        if old != new:
            # floor((i + 0.5) * old / new) in integers
            index = (2 * torch.arange(new, device=codes.device) + 1) * old // (2 * new)
            codes = codes.index_select(axis, index)
    return codes


def _compare(
    logits: Logits, codes: torch.Tensor, regions: Regions, unlabelled: Unlabelled, whole: Whole
) -> tuple[torch.Tensor, Sums]:
    """Mean cross-entropy of the whole batch, and the sums for Dice, each (B, classes): both, prediction, truth."""
    if logits.shape[1] < 2 and not regions:
        raise TrainingError("loss: expected logits of background and at least one structure, found one channel")
    if regions and logits.shape[1] != len(regions):
        raise TrainingError(f"loss: expected a channel of logits for each of {len(regions)} regions, found {logits.shape[1]}")
    with torch.autocast(codes.device.type, enabled=False):
        if isinstance(logits, Scores):
            parts = [_recomputed(cast(Scores, slab), there, regions, unlabelled) for slab, there in in_slabs(logits, codes)]
            entropy, terms, *sums = (torch.stack(part).sum(dim=0) for part in zip(*parts, strict=True))
        else:
            entropy, terms, *sums = _sums(logits, codes, regions, unlabelled)
        return _mean(entropy, terms, whole), sums


def _mean(total: torch.Tensor, terms: torch.Tensor, whole: Whole) -> torch.Tensor:
    """A sum () divided by its number of terms (), both of the whole batch."""
    if whole is not None:
        total, terms = whole(torch.stack((total, terms.to(total.dtype)))).unbind()
    return total / terms.clamp(min=1)


def in_slabs(logits: Logits, codes: torch.Tensor) -> Iterator[tuple[Logits, torch.Tensor]]:
    """Yield (logits, codes) of all voxels: all at once, or for Scores one slab along z at a time."""
    if not isinstance(logits, Scores):
        yield logits, codes
        return
    slabs = logits.slabs(SLAB)
    depths = [slab.shape[2] for slab in slabs]
    yield from zip(slabs, codes.split(depths, dim=1), strict=True)


def _recomputed(scores: Scores, codes: torch.Tensor, regions: Regions, unlabelled: Unlabelled) -> Sums:
    """``_sums`` of Scores. The backward pass computes the logits again, so that they need not be kept."""
    return checkpoint(lambda: _sums(scores.logits(), codes, regions, unlabelled), use_reentrant=False, preserve_rng_state=False)


def _sums(logits: torch.Tensor, codes: torch.Tensor, regions: Regions, unlabelled: Unlabelled) -> Sums:
    """Sums over voxels: cross-entropy and its number of terms (); prediction x truth, prediction, truth, each (B, classes)."""
    if regions:
        return _region_sums(logits.float(), codes, regions, unlabelled)
    return _label_sums(logits if unlabelled is None else _merged(logits.float(), unlabelled), codes)


def _merged(logits: torch.Tensor, unlabelled: torch.Tensor) -> torch.Tensor:
    """Logits (B, K, Z, Y, X) of a softmax whose background includes the probability of the unlabelled structures.

    The log-sum-exp of logits is the logit of the merged class; the merged structures keep no probability.
    """
    lacking = unlabelled[:, :, None, None, None]
    others = logits[:, 1:].masked_fill(~lacking, -torch.inf)
    background = torch.cat([logits[:, :1], others], dim=1).logsumexp(dim=1, keepdim=True)
    return torch.cat([background, logits[:, 1:].masked_fill(lacking, -torch.inf)], dim=1)


def _label_sums(logits: torch.Tensor, codes: torch.Tensor) -> Sums:
    """Softmax. The truth stays an index map; it is never expanded to one channel per class."""
    weight = (codes >= 0).to(torch.promote_types(logits.dtype, torch.float32))
    target = codes.clamp(min=0).long()  # (B, Z, Y, X)
    entropy, both, predicted = _LabelSums.apply(logits, target, weight)  # type: ignore[no-untyped-call]  # torch says no type
    truth = _sum_by_class(weight, target, logits.shape[1])
    return entropy, weight.sum(), both[:, 1:], predicted[:, 1:], truth[:, 1:]


class _LabelSums(torch.autograd.Function):
    """Sums over voxels: cross-entropy (), probability of the true class (B, K) by class, probabilities (B, K).

    With many classes the probabilities fill most of the memory. So they are computed slab by slab, again in the backward pass,
    and only the logits are kept; if there is only one slab, its probabilities are kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> Any:
        sums, slabs = [], _slabs(logits)
        for slab in slabs:
            w, index = weight[:, slab], target[:, slab]
            log_all = logits[:, :, slab].log_softmax(dim=1, dtype=weight.dtype)
            log_true = log_all.gather(1, index[:, None])[:, 0]
            both = _sum_by_class(log_true.exp() * w, index, logits.shape[1])
            probability = log_all.exp_()
            predicted = torch.einsum("bkv,bv->bk", probability.flatten(2), w.flatten(1))
            sums.append((-(log_true * w).sum(), both, predicted))
        ctx.ready, ctx.dtype = len(slabs) == 1, logits.dtype
        ctx.save_for_backward(probability if ctx.ready else logits, target, weight)
        return tuple(torch.stack(parts).sum(dim=0) for parts in zip(*sums, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_entropy: torch.Tensor, of_both: torch.Tensor, of_predicted: torch.Tensor) -> Any:
        kept, target, weight = ctx.saved_tensors
        gradient = torch.empty_like(kept, dtype=ctx.dtype)
        for slab in _slabs(kept):
            # if g is the gradient of the probabilities p, the gradient of the logits is p (g - sum of p g)
            w, index = weight[:, slab], target[:, slab]
            probability = kept[:, :, slab] if ctx.ready else kept[:, :, slab].softmax(dim=1, dtype=weight.dtype)
            true = probability.gather(1, index[:, None])  # (B, 1, z, Y, X)
            of_true = true * of_both.gather(1, index.flatten(1)).view_as(true)
            mean = torch.einsum("bkv,bk->bv", probability.flatten(2), of_predicted).view_as(true) + of_true
            part = of_predicted[:, :, None, None, None] + (of_entropy - mean)
            part.mul_(probability).scatter_add_(1, index[:, None], of_true - of_entropy)
            torch.mul(part, w[:, None], out=gradient[:, :, slab])
        return gradient, None, None


def _slabs(logits: torch.Tensor) -> list[slice]:
    """Slices along z, each of about ``SLAB`` elements."""
    depth = logits.shape[2]
    step = max(1, SLAB * depth // max(1, logits.numel()))
    return [slice(first, first + step) for first in range(0, depth, step)]


def _region_sums(logits: torch.Tensor, codes: torch.Tensor, regions: Regions, unlabelled: Unlabelled) -> Sums:
    """Sigmoid, one channel per region."""
    weight = (codes >= 0).float().flatten(1)  # (B, V)
    n_terms = weight.sum() * len(regions)
    if unlabelled is not None:
        logits = logits.masked_fill(unlabelled[:, :, None, None, None], 0)  # a constant, so the channel gets no gradient
        n_terms = (weight.sum(dim=1) * (~unlabelled).sum(dim=1)).sum()
    target = region_targets(codes, regions).float().flatten(2)  # (B, R, V)
    logits = logits.flatten(2)
    counted = weight[:, None] if unlabelled is None else weight[:, None] * (~unlabelled)[:, :, None]
    entropy = functional.binary_cross_entropy_with_logits(logits, target, weight=counted, reduction="sum")
    probability = logits.sigmoid()
    both = torch.einsum("brv,brv->br", probability, target * weight[:, None])
    predicted = torch.einsum("brv,bv->br", probability, weight)
    truth = torch.einsum("brv,bv->br", target, weight)
    return entropy, n_terms, both, predicted, truth


def _sum_by_class(values: torch.Tensor, target: torch.Tensor, classes: int) -> torch.Tensor:
    """(B, Z, Y, X) values summed over the voxels of each class: (B, classes).

    Row by row, then over rows: sums of few float32 terms stay accurate, and rows are independent of each other.
    """
    rows = values.new_zeros((*values.shape[:-1], classes)).scatter_add(-1, target, values)
    return rows.sum(dim=(1, 2))


def _dice_loss(sums: Sums, batch_dice: bool, unlabelled: Unlabelled, whole: Whole) -> torch.Tensor:
    """Dice loss from sums (B, classes). The mean is over annotated classes; the loss is 0 if there are none."""
    counted = None if unlabelled is None else (~unlabelled).to(sums[0].dtype)
    if counted is not None:
        sums = [s * counted for s in sums]
    if batch_dice:
        sums = [s.sum(dim=0) for s in (*sums, *([] if counted is None else [counted]))]
        sums = whole(torch.stack(sums)).unbind() if whole else sums
        counted = None if counted is None else sums[3].clamp(max=1)
    both, predicted, truth = sums[:3]
    scores = (2 * both + SMOOTH) / (predicted + truth + SMOOTH)
    of_all = None if batch_dice else whole
    if counted is not None:
        return _mean(((1 - scores) * counted).sum(), counted.sum(), of_all)
    if of_all is None:
        return 1 - scores.mean()
    return 1 - _mean(scores.sum(), torch.tensor(scores.numel(), device=scores.device), of_all)
