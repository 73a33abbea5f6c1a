"""Post-processing rules that a model stores: remove spurious pieces of its final labels, and fill holes.

A *piece* is a connected component; voxels are connected over faces, edges and corners. A *hole* is background that no path
over faces leads out of. A rule is a value: it is stored in the model, and ``str`` describes it in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from autoseg.imaging.crop import NOWHERE, Box, crop, hull, value_boxes
from autoseg.workspace import OPTIONAL

__all__ = ["DropSmall", "FillHoles", "KeepLargest", "LabelRule", "apply_rules", "pieces_of", "where_rules_act"]


@dataclass(frozen=True)
class KeepLargest:
    """Keep the largest piece of the voxels with one of these label ``values``; the other pieces get the value ``becomes``.

    If several pieces are largest, all of them stay. ``becomes`` is 0, or the value of the surrounding region.
    """

    values: tuple[int, ...]
    becomes: int = field(default=0, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        _check(self.values)

    def __str__(self) -> str:
        return f"only the largest piece of {_labels(self.values)}"

    def changes(self, labels: np.ndarray, voxel_ml: float) -> tuple[np.ndarray, int]:
        """((Z, Y, X) bool, the voxels that change; their new value)."""
        pieces, sizes = pieces_of(np.isin(labels, self.values))
        return _of_pieces(pieces, sizes < sizes.max(initial=0)), self.becomes


@dataclass(frozen=True)
class DropSmall:
    """Remove pieces below ``smallest_ml`` of the voxels with one of these label ``values``: they get the value ``becomes``."""

    values: tuple[int, ...]
    smallest_ml: float
    becomes: int = field(default=0, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        _check(self.values)
        if not self.smallest_ml > 0:
            raise ValueError(f"expected a volume above 0 mL, found {self.smallest_ml}")

    def __str__(self) -> str:
        return f"no pieces of {_labels(self.values)} below {self.smallest_ml:g} mL"

    def changes(self, labels: np.ndarray, voxel_ml: float) -> tuple[np.ndarray, int]:
        """As ``KeepLargest.changes``."""
        pieces, sizes = pieces_of(np.isin(labels, self.values))
        return _of_pieces(pieces, sizes * voxel_ml < self.smallest_ml * (1 - 1e-9)), self.becomes  # equal volumes stay


@dataclass(frozen=True)
class FillHoles:
    """Fill holes in the mask of the label values ``filled``: their background gets the first of these values.

    In an image of one slice, holes are those of the slice.
    """

    filled: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(self.filled)

    def __str__(self) -> str:
        return f"holes in {_labels(self.filled)} filled"

    def changes(self, labels: np.ndarray, voxel_ml: float) -> tuple[np.ndarray, int]:
        """As ``KeepLargest.changes``."""
        mask = np.isin(labels, self.filled)
        if not mask.size:
            return mask, self.filled[0]
        flat = tuple(axis for axis, edge in enumerate(mask.shape) if edge == 1)
        closed = np.expand_dims(ndimage.binary_fill_holes(mask.squeeze(flat)), flat)
        return closed & (labels == 0), self.filled[0]


def _labels(values: Sequence[int]) -> str:
    return f"label{'s' * (len(values) > 1)} {', '.join(map(str, values))}"


LabelRule: TypeAlias = DropSmall | FillHoles | KeepLargest  # distinguished in files by the names of their fields


def apply_rules(labels: np.ndarray, rules: Sequence[LabelRule], voxel_ml: float) -> np.ndarray:
    """Apply all rules, one after the other.

    Args:
        labels: (Z, Y, X) integers, not changed.
        voxel_ml: volume of a voxel.

    Returns:
        Array of the same shape and type; ``labels`` itself if no rule changes anything.
    """
    result, boxes = labels, value_boxes(labels) if rules else {}
    for rule in rules:
        box = where_rules_act([rule], boxes)
        changed, value = rule.changes(crop(result, *box), voxel_ml)
        if changed.any():
            result = labels.copy() if result is labels else result
            crop(result, *box)[changed] = value
            boxes[value] = hull([box, boxes.get(value, box)]) or box
    return result


def where_rules_act(rules: Sequence[LabelRule], boxes: Mapping[int, Box]) -> Box:
    """The box where rules can change anything.

    Args:
        boxes: of the label values, as from ``value_boxes``, or larger ones.

    Returns:
        A box around the label values that the rules name, with a margin of one voxel, so that it is one slice thick only if the
        image is; it may end beyond the image. Empty if none of the values occurs.
    """
    values = [value for rule in rules for value in (rule.filled if isinstance(rule, FillHoles) else rule.values)]
    around = hull([boxes[value] for value in values if value in boxes])
    return ([max(0, a - 1) for a in around[0]], [b + 1 for b in around[1]]) if around else NOWHERE


def pieces_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of a (Z, Y, X) bool mask: (number of each voxel's piece, from 1, and 0 outside; voxels in each piece)."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return pieces, np.bincount(pieces.ravel(), minlength=count + 1)[1:]


def _of_pieces(pieces: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Mask of the pieces for which ``which`` is True."""
    found: np.ndarray = np.concatenate([[False], which])[pieces]
    return found


def _check(values: tuple[int, ...]) -> None:
    if not values or 0 in values:
        raise ValueError(f"expected label values of structures, found {values}")
