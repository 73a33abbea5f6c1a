"""Scores lesion by lesion, for structures that come in any number of pieces, such as metastases.

A *lesion* is a piece of a mask: voxels that touch by a face, an edge or a corner. Pieces smaller than ``smallest_ml`` are left
out of both masks. A lesion of the reference and one of the prediction can be a pair from an IoU of ``overlap`` on; each
belongs to one pair at most, and of all ways to pair them the one with the largest sum of IoU is taken. What has no partner
was missed, or is a false positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

__all__ = ["LESION_METRICS", "LesionRule", "Lesions", "lesion_values", "match_lesions"]

LESION_METRICS = ("lesion_f1", "lesion_dice", "lesions_found", "lesions_missed", "lesions_false")
Found = tuple[str, float | None, str]


@dataclass(frozen=True)
class LesionRule:
    """Which structures are looked at lesion by lesion, and how.

    Attributes:
        structures: their names.
        overlap: least IoU of a pair, above 0 and at most 1.
        smallest_ml: pieces below this volume are no lesions; 0 for none.
    """

    structures: tuple[str, ...]
    overlap: float = 0.1
    smallest_ml: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.overlap <= 1 or not self.smallest_ml >= 0:
            raise ValueError(
                f"expected an overlap above 0 and at most 1 and a volume of 0 or more, found {self.overlap}, {self.smallest_ml}"
            )

    def __str__(self) -> str:
        size = f", those below {self.smallest_ml:g} mL left out" if self.smallest_ml else ""
        return f"pieces of reference and prediction are a pair from an IoU of {self.overlap:g} on{size}"


@dataclass(frozen=True)
class Lesions:
    """What became of the lesions of a structure in one case: Dice of each that was ``found``, and counts of the others."""

    found: tuple[float, ...]
    missed: int
    false: int

    @property
    def f1(self) -> float | None:
        """Of detection, in [0, 1]; None where neither side has a lesion."""
        total = 2 * len(self.found) + self.missed + self.false
        return 2 * len(self.found) / total if total else None

    @property
    def dice(self) -> float | None:
        """Mean Dice of a lesion, 0 for those missed or false; None where neither side has a lesion."""
        total = len(self.found) + self.missed + self.false
        return sum(self.found) / total if total else None


def match_lesions(reference: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float], rule: LesionRule) -> Lesions:
    """Pair the lesions of two masks.

    Args:
        reference, predicted: (Z, Y, X) bool.
        spacing_mm: voxel size along (z, y, x).
        rule: says which pieces count, and which are a pair.
    """
    fewest = rule.smallest_ml * 1000 / float(np.prod(spacing_mm))
    (truth, n_truth), (guess, n_guess) = _lesions(reference, fewest), _lesions(predicted, fewest)
    shared = np.zeros((n_truth + 1, n_guess + 1))
    np.add.at(shared, (truth[reference], guess[reference]), 1)
    sizes = [np.bincount(pieces.ravel(), minlength=n + 1)[1:] for pieces, n in ((truth, n_truth), (guess, n_guess))]
    both = shared[1:, 1:]
    sums = sizes[0][:, None] + sizes[1][None]
    iou = np.divide(both, sums - both, out=np.zeros_like(both), where=sums > both)
    iou[iou < rule.overlap - 1e-12] = 0
    pairs = [(i, j) for i, j in zip(*linear_sum_assignment(iou, maximize=True), strict=True) if iou[i, j] > 0]
    dice = tuple(float(2 * both[i, j] / sums[i, j]) for i, j in pairs)
    return Lesions(dice, n_truth - len(pairs), n_guess - len(pairs))


def _lesions(mask: np.ndarray, fewest: float) -> tuple[np.ndarray, int]:
    """Pieces of a mask numbered from 1 on, without those of fewer voxels, and how many there are."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    keeps = np.bincount(pieces.ravel(), minlength=count + 1) >= fewest * (1 - 1e-9)
    keeps[0] = False
    numbers = np.where(keeps, np.cumsum(keeps), 0)
    return numbers[pieces], int(keeps.sum())


def lesion_values(reference: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float], rule: LesionRule) -> list[Found]:
    """(name, value, reason) of each of ``LESION_METRICS``; the number of false positives is that of a scan."""
    lesions = match_lesions(reference, predicted, spacing_mm, rule)
    reason = "" if lesions.f1 is not None else "no lesion on either side"
    values = (lesions.f1, lesions.dice, len(lesions.found), lesions.missed, lesions.false)
    return [(name, value, reason if value is None else "") for name, value in zip(LESION_METRICS, values, strict=True)]
