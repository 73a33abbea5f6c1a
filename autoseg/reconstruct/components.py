"""Pieces of a mask that do not belong: rules a model brings along, applied to its final labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

__all__ = ["KeepLargest", "keep_largest"]


@dataclass(frozen=True)
class KeepLargest:
    """Of the voxels that have one of these label ``values`` only the largest piece stays; the rest becomes background.

    Voxels that touch by a face, an edge or a corner are one piece. Of pieces that are equally large all stay.
    """

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.values or 0 in self.values:
            raise ValueError(f"expected label values of structures, found {self.values}")


def keep_largest(labels: np.ndarray, rules: Sequence[KeepLargest]) -> np.ndarray:
    """Labels after all rules, one after the other.

    Args:
        labels: (Z, Y, X) integers, untouched.

    Returns:
        An array of the same shape and type; ``labels`` itself where no rule changes anything.
    """
    for rule in rules:
        pieces, count = ndimage.label(np.isin(labels, rule.values), np.ones((3, 3, 3)))
        if count > 1:
            sizes = np.bincount(pieces.ravel())[1:]
            goes = np.concatenate([[False], sizes < sizes.max()])
            labels = np.where(goes[pieces], 0, labels)
    return labels
