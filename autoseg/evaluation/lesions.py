"""Scores lesion by lesion, for structures that come in any number of pieces, such as metastases.

A *lesion* is a connected component of a mask (faces, edges and corners connect). Components smaller than ``smallest_ml`` are
removed from both masks. A lesion of the reference and one of the prediction may be paired if their IoU is at least
``overlap``. Each belongs to at most one pair, and the pairing with the largest sum of IoU is used. Lesions without a partner
are missed (reference) or false positive (prediction).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["LESION_METRICS", "LesionRule", "Lesions", "lesion_values", "match_lesions"]

LESION_METRICS = ("lesion_f1", "lesion_dice", "lesions_found", "lesions_missed", "lesions_false")
Found = tuple[str, float | None, str]


@dataclass(frozen=True)
class LesionRule:
    """Which structures are scored lesion by lesion, and how.

    Attributes:
        structures: their names.
        overlap: smallest IoU of a pair, above 0 and at most 1.
        smallest_ml: components below this volume are ignored; 0 to keep all.
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
    """The lesions of a structure in one case: Dice of each ``found`` lesion, and counts of the others."""

    found: tuple[float, ...]
    missed: int
    false: int

    @property
    def f1(self) -> float | None:
        """F1 score of detection, in [0, 1]; None if neither side has a lesion."""
        total = 2 * len(self.found) + self.missed + self.false
        return 2 * len(self.found) / total if total else None

    @property
    def dice(self) -> float | None:
        """Mean Dice per lesion, 0 if missed or false positive; None if neither side has a lesion."""
        total = len(self.found) + self.missed + self.false
        return sum(self.found) / total if total else None


def match_lesions(reference: np.ndarray, predicted: np.ndarray, voxel_ml: float, rule: LesionRule) -> Lesions:
    """Pair the lesions of two masks.

    Args:
        reference, predicted: (Z, Y, X) bool.
        voxel_ml: volume of a voxel.
        rule: which components count, and which may be paired.
    """
    fewest = rule.smallest_ml / voxel_ml
    (truth, n_truth), (guess, n_guess) = _lesions(reference, fewest), _lesions(predicted, fewest)
    sizes = [np.bincount(pieces.ravel(), minlength=n + 1) for pieces, n in ((truth, n_truth), (guess, n_guess))]
    overlaps = (truth > 0) & (guess > 0)
    names, both = np.unique(truth[overlaps].astype(np.int64) * (n_guess + 1) + guess[overlaps], return_counts=True)
    first, second = np.divmod(names, n_guess + 1)  # the two lesions that overlap, by the first and then by the second
    sums = sizes[0][first] + sizes[1][second]
    iou = both / (sums - both)
    may = np.flatnonzero(iou >= rule.overlap - 1e-12)
    pairs = may[_best_pairs(first[may], second[may], iou[may])]
    dice = tuple((2 * both[pairs] / sums[pairs]).tolist())
    return Lesions(dice, n_truth - len(pairs), n_guess - len(pairs))


def _best_pairs(first: np.ndarray, second: np.ndarray, iou: np.ndarray) -> list[int]:
    """The numbers of the pairs (N,) with the largest sum of IoU in which no lesion occurs twice, ascending.

    Lesions that no chain of pairs connects do not compete, so each such group is solved by itself: there are many lesions, but
    few that overlap the same one, and a table of all with all would be large.
    """
    nodes = int(first.max(initial=0)) + 1, int(second.max(initial=0)) + 1
    graph = coo_matrix((iou, (first, nodes[0] + second)), (sum(nodes),) * 2)
    group = connected_components(graph, directed=False)[1][first]
    order = np.argsort(group, kind="stable")
    found: list[int] = []
    for some in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        rows, columns = (np.unique(lesions[some], return_inverse=True)[1] for lesions in (first, second))
        table = np.full((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1), -1)
        table[rows, columns] = some
        chosen = table[linear_sum_assignment(np.where(table < 0, 0.0, iou[table]), maximize=True)]
        found += chosen[chosen >= 0].tolist()
    return sorted(found)


def _lesions(mask: np.ndarray, fewest: float) -> tuple[np.ndarray, int]:
    """Components of a mask with at least ``fewest`` voxels, numbered from 1, and their number."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    keeps = np.bincount(pieces.ravel(), minlength=count + 1) >= fewest * (1 - 1e-9)
    keeps[0] = False
    numbers = np.where(keeps, np.cumsum(keeps), 0)
    return numbers[pieces], int(keeps.sum())


def lesion_values(reference: np.ndarray, predicted: np.ndarray, voxel_ml: float, rule: LesionRule) -> list[Found]:
    """(name, value, reason) of each of ``LESION_METRICS``; false positives are counted per scan."""
    lesions = match_lesions(reference, predicted, voxel_ml, rule)
    reason = "" if lesions.f1 is not None else "no lesion on either side"
    values = (lesions.f1, lesions.dice, len(lesions.found), lesions.missed, lesions.false)
    return [(name, value, reason if value is None else "") for name, value in zip(LESION_METRICS, values, strict=True)]
