"""How certain a model is of each structure: the entropy of its probabilities, and the agreement of its folds."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import ndimage

from autoseg.reconstruct.lazy_logits import Logits, slabs_along_z

__all__ = ["agreement", "entropies", "votes_of"]

_CHUNK = 1 << 22  # probabilities in memory at a time
_NEAR = 2  # voxels around structures in which the entropy is computed


def entropies(
    logits: Logits, *, has_regions: bool = False, temperatures: Sequence[float] = ()
) -> list[tuple[float | None, float | None]]:
    """Mean entropy of the network's probabilities, for each structure.

    Args:
        logits: (K, z, y, x), an array or LazyLogits; without regions head 0 is background.
        has_regions: heads are regions (sigmoid), not classes (softmax).
        temperatures: divisors of the logits: one, or one for each region; () for none.

    Returns:
        list with (mean inside the structure, mean within a voxel of its border) for each structure, as fractions of the
        largest possible entropy, in [0, 1]. (None, None) for a structure without voxels; None for the border if it fills
        the image.
    """
    if has_regions:
        each = temperatures or (1.0,) * len(logits)
        pairs = ((one > 0, np.stack([np.zeros_like(one), one]), t) for one, t in zip(logits, each, strict=True))
        return [_mean_entropy(inside, _entropy(both, inside, t)) for inside, both, t in pairs]
    codes = _winners(logits)
    entropy = _entropy(logits, codes > 0, *temperatures)
    boxes = [box and _around(box) for box in ndimage.find_objects(codes, max_label=len(logits) - 1)]
    return [_mean_entropy(codes[box] == head, entropy[box]) if box else (None, None) for head, box in enumerate(boxes, 1)]


def votes_of(logits: Logits, *, has_regions: bool = False) -> np.ndarray:
    """The decision of one fold at every voxel, stored compactly, for ``agreement``.

    Args:
        logits: (K, z, y, x) of the fold alone; without regions head 0 is background.

    Returns:
        (z, y, x) int16: the winning head. With regions (ceil(K / 8), z, y, x) uint8: one bit for each region, set where the
        voxel belongs to it.
    """
    if not has_regions:
        return _winners(logits)
    bits = np.zeros((-(-len(logits) // 8), *logits.shape[1:]), np.uint8)
    for head, logit in enumerate(logits):
        bits[head // 8] |= (logit > 0).astype(np.uint8) << head % 8
    return bits


def agreement(votes: Sequence[np.ndarray], n_structures: int, *, has_regions: bool = False) -> list[float | None]:
    """Inter-fold Dice of each structure: the mean Dice over all pairs of folds.

    Args:
        votes: of two or more folds, as from ``votes_of``.
        n_structures: regions, or classes without background.

    Returns:
        list with a number in [0, 1] for each structure; 0 if no two folds share a voxel of it, None if no fold has any.
        Pairs in which neither fold has any do not count.
    """

    def counts(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Voxels of each structure that both have."""
        if not has_regions:
            return np.bincount(one[one == other], minlength=n_structures + 1)[1:]
        both = one & other
        return np.array([np.count_nonzero(both[head // 8] & 1 << head % 8) for head in range(n_structures)])

    sizes = [counts(one, one) for one in votes]
    dice = np.full((len(votes) * (len(votes) - 1) // 2, n_structures), np.nan)
    for row, (i, j) in zip(dice, combinations(range(len(votes)), 2), strict=True):
        total = sizes[i] + sizes[j]
        np.divide(2 * counts(votes[i], votes[j]), total, out=row, where=total > 0)
    there = ~np.isnan(dice).all(axis=0)
    return [float(np.nanmean(column)) if found else None for column, found in zip(dice.T, there, strict=True)]


def _winners(logits: Logits) -> np.ndarray:
    """(z, y, x) int16: the head with the largest logit; of equal ones, the lowest."""
    codes = np.zeros(logits.shape[1:], np.int16)
    for part, heads in slabs_along_z(logits):
        best = np.full(heads.shape[1:], -np.inf, np.float32)
        for head, logit in enumerate(heads):
            np.copyto(codes[part], head, where=logit > best)
            np.maximum(best, logit, out=best)
    return codes


def _entropy(logits: Logits, inside: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(z, y, x) float32: the entropy divided by log K, within ``_NEAR`` voxels of ``inside``; 0 elsewhere."""
    result = np.zeros(inside.shape, np.float32)
    near = np.flatnonzero(ndimage.binary_dilation(inside, iterations=_NEAR))
    flat = logits.reshape(len(logits), -1)
    step = max(1, _CHUNK // len(logits))
    for start in range(0, len(near), step):
        voxels = near[start : start + step]
        values = np.array(flat[:, voxels], np.float32)
        values /= temperature
        values -= values.max(axis=0)
        weights = np.exp(values)
        total = weights.sum(axis=0)
        result.ravel()[voxels] = (np.log(total) - (weights * values).sum(axis=0) / total) / np.log(len(logits))
    return result


def _mean_entropy(mask: np.ndarray, entropy: np.ndarray) -> tuple[float | None, float | None]:
    found = ndimage.find_objects(mask.view(np.uint8))
    if not found:
        return None, None
    box = _around(found[0])
    mask, entropy = mask[box], entropy[box]
    border = ndimage.binary_dilation(mask) ^ ndimage.binary_erosion(mask, border_value=1)
    at_border = float(entropy[border].mean()) if border.any() else None  # no border if it fills the image
    return float(entropy[mask].mean()), at_border


def _around(box: tuple[slice, ...]) -> tuple[slice, ...]:
    """The box with a voxel more on each side, as far as the image goes."""
    return tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
