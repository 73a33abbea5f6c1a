"""Overlap of two masks: every score here is a function of four voxel counts.

Dice and IoU rank cases identically (IoU = Dice / (2 - Dice)), so a gain in both is one gain. A score with a zero denominator
is undefined and returned as ``None``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Counts", "count_voxels", "dice", "foreground_share", "iou", "precision", "recall", "relative_volume_error"]


@dataclass(frozen=True)
class Counts:
    """Voxel counts by reference and prediction, without ignored voxels.

    Attributes:
        tp: in both masks.
        fp: in the predicted mask only.
        fn: in the reference only.
        tn: in neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def n_reference(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn

    @property
    def n_predicted(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp


def count_voxels(reference: np.ndarray, predicted: np.ndarray, n_voxels: int | None = None) -> Counts:
    """The four counts of two bool arrays of one shape, cropped from an image with ``n_voxels`` that count."""
    n_voxels = reference.size if n_voxels is None else n_voxels
    tp = int(np.count_nonzero(reference & predicted))
    fn = int(np.count_nonzero(reference)) - tp
    fp = int(np.count_nonzero(predicted)) - tp
    return Counts(tp=tp, fp=fp, fn=fn, tn=n_voxels - tp - fn - fp)


def dice(counts: Counts) -> float | None:
    """Shared voxels over the mean size of the masks, in [0, 1]; ``None`` when both are empty."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def iou(counts: Counts) -> float | None:
    """Shared voxels over voxels in either mask, in [0, 1]; ``None`` when both are empty."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def precision(counts: Counts) -> float | None:
    """Fraction of the prediction that is right, in [0, 1]; ``None`` when the prediction is empty."""
    return _ratio(counts.tp, counts.n_predicted)


def recall(counts: Counts) -> float | None:
    """Fraction of the reference that was found (sensitivity), in [0, 1]; ``None`` when the reference is empty."""
    return _ratio(counts.tp, counts.n_reference)


def foreground_share(counts: Counts) -> float | None:
    """The fraction of all counted voxels in the reference, in [0, 1]; ``None`` when there are none."""
    return _ratio(counts.n_reference, counts.n_reference + counts.fp + counts.tn)


def relative_volume_error(counts: Counts) -> float | None:
    """Predicted minus reference volume over the reference's, at least -1; ``None`` when the reference is empty."""
    return _ratio(counts.n_predicted - counts.n_reference, counts.n_reference)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
