"""Corrupts the labels of a coarse stage with errors typical of a coarse stage, so that the fine stage does not rely on them.

Coarse labels of training cases differ in quality from those of new scans, and a network that may copy them learns nothing else.
As in nnU-Net 2.8, the outline of some labels is moved (dilated, eroded, closed or opened with a ball), and some connected
components are removed, if they are a small part of the patch. There is one channel for each label, as from
``preprocess.case.one_hot``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.morphology import ball

__all__ = ["OPERATIONS", "Move", "corrupt", "draw_corruption", "move_outline", "remove_piece"]

MOVED, REMOVED, OF_LABELS = 0.4, 0.2, 0.5  # probabilities: a sample has moves; has removals; they change one of its labels
LEAST, MOST = 1, 8  # range of the ball's radius in voxels, upper end excluded
LARGEST_SHARE = 0.15  # fraction of the patch; larger components stay

OPERATIONS = {
    "dilate": ndimage.binary_dilation,
    "erode": ndimage.binary_erosion,
    "close": ndimage.binary_closing,
    "open": ndimage.binary_opening,
}


@dataclass(frozen=True)
class Move:
    """Moves the outline of label ``channel`` by a morphological operation with a ball of ``radius`` voxels."""

    channel: int
    operation: str
    radius: int


@dataclass(frozen=True)
class Corruption:
    """The changes of a sample: the moves in order, and for each label that loses a component, which one as a number in
    [0, 1)."""

    moves: tuple[Move, ...] = ()
    removals: tuple[tuple[int, float], ...] = ()


def draw_corruption(rng: np.random.Generator, count: int) -> Corruption:
    """Draw the changes of a sample with ``count`` labels. The numbers drawn do not depend on its voxels."""
    moved, removed = rng.random(2) < (MOVED, REMOVED)
    chances = rng.random((2, count))
    names = list(OPERATIONS)
    moves = [
        Move(int(channel), names[rng.integers(len(names))], int(rng.integers(LEAST, MOST)))
        for channel in rng.permutation(count)
    ]
    return Corruption(
        tuple(move for move in moves if moved and chances[0, move.channel] < OF_LABELS),
        tuple((c, float(rng.random())) for c in range(count) if removed and chances[1, c] < OF_LABELS),
    )


def corrupt(channels: np.ndarray, corruption: Corruption) -> np.ndarray:
    """Apply the changes to channels (K, z, y, x) bool. A voxel keeps at most one label. The input is not changed."""
    result = channels.copy()
    for move in corruption.moves:
        _move_outline_(result, move)
    for channel, chosen in corruption.removals:
        result[channel] = remove_piece(result[channel], chosen)
    return result


def move_outline(channels: np.ndarray, move: Move) -> np.ndarray:
    """Channels (K, z, y, x) bool with the outline of one label moved. Voxels that it gains are removed from the others.

    Only a box around the label is computed. In a patch of depth 1 the ball is a disk.
    """
    result = channels.copy()
    _move_outline_(result, move)
    return result


def _move_outline_(channels: np.ndarray, move: Move) -> None:
    """``move_outline`` in place: with many labels, each copy of all channels takes its time."""
    mask = channels[move.channel]
    if not mask.any():
        return
    around = 2 * move.radius + 1
    box = tuple(slice(max(0, int(index.min()) - around), int(index.max()) + around + 1) for index in np.nonzero(mask))
    element = ball(move.radius)
    if mask.shape[0] == 1:
        element = element[move.radius : move.radius + 1]
    padded = np.pad(mask[box], around, mode="edge")  # a label cut off by the patch continues outside
    inner = tuple(slice(around, -around) for _ in range(3))
    changed = OPERATIONS[move.operation](padded, element)[inner]
    won = changed & ~mask[box]
    inside = channels[:, box[0], box[1], box[2]]
    inside[:, won] = False
    inside[move.channel] = changed


def remove_piece(mask: np.ndarray, chosen: float) -> np.ndarray:
    """A mask (z, y, x) bool without one of its connected components; only those that are a small part of the patch are removed.

    Args:
        chosen: in [0, 1): which of the small components, in the order of their first voxels.
    """
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    small = [number for number in range(1, count + 1) if sizes[number] < LARGEST_SHARE * mask.size]
    return mask & (pieces != small[int(chosen * len(small))]) if small else mask
