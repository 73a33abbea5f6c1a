"""Where the slots of self-attention look, over a whole volume.

There are too many slots to show, and some look everywhere equally. So each head shows the slots whose maps have the lowest
entropy in the middle window. A map sums to one over its window. Multiplied by the number of voxels, 1 is the average, and maps
of windows can be blended like logits. Only the first fold is used, without mirroring: other folds have other slots.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from autoseg.imaging.resample import axis_matrix
from autoseg.networks import attention_maps, slot_blocks

if TYPE_CHECKING:
    from autoseg.inference.predictor import Predictor

__all__ = ["ChosenSlot", "StageMaps", "blended_maps", "choose_slots", "stage_maps"]


@dataclass(frozen=True)
class ChosenSlot:
    """A slot of a head; ``entropy`` of its map in the middle window: 1 if uniform, 0 if at one voxel."""

    head: int
    slot: int
    entropy: float


@dataclass(frozen=True, eq=False)
class StageMaps:
    """Where the chosen ``slots`` of a ``stage`` look: ``maps`` (slots, z, y, x) float32 on the network grid."""

    stage: int
    slots: tuple[ChosenSlot, ...]
    maps: np.ndarray


def stage_maps(predictor: Predictor, data: np.ndarray, per_head: int) -> Iterator[StageMaps]:
    """The StageMaps of each stage with slots, one after the other; arguments as in ``choose_slots``."""
    for stage, chosen in choose_slots(predictor, data, per_head).items():
        yield StageMaps(stage, chosen, blended_maps(predictor, data, stage, chosen))


def choose_slots(predictor: Predictor, data: np.ndarray, per_head: int) -> dict[int, tuple[ChosenSlot, ...]]:
    """Choose the slots of each head with the least uniform maps.

    Args:
        predictor: a Predictor whose first network has slot attention.
        data: (C, z, y, x) float32 on the network grid.
        per_head: largest number of slots per head.

    Returns:
        {stage: (ChosenSlot, ...)}, head by head, least uniform first.
    """
    network = predictor.networks[0]
    seen: dict[int, torch.Tensor] = {}

    def look(tiles: torch.Tensor) -> torch.Tensor:
        seen.update(attention_maps(network, tiles))
        return tiles

    patch = predictor.bundle.plan.patch_size
    lower = [max(0, (n - edge) // 2) for n, edge in zip(data.shape[1:], patch, strict=True)]
    middle = (slice(None), *(slice(start, start + edge) for start, edge in zip(lower, patch, strict=True)))
    predictor.over_windows([look], data[middle])
    chosen = {}
    for stage, block in slot_blocks(network).items():
        maps = seen[stage][0].flatten(1).float().cpu()
        rows = torch.special.entr(maps).sum(1).div(math.log(max(2, maps.shape[1]))).reshape(block.heads, -1).tolist()
        orders = [np.argsort(row, kind="stable")[:per_head].tolist() for row in rows]
        chosen[stage] = tuple(ChosenSlot(h, s, rows[h][s]) for h, order in enumerate(orders) for s in order)
    return chosen


def blended_maps(predictor: Predictor, data: np.ndarray, stage: int, chosen: tuple[ChosenSlot, ...]) -> np.ndarray:
    """The maps of a stage's ChosenSlots, (slots, z, y, x) float32 on the grid of ``data``; 1 is the mean of a window."""
    network = predictor.networks[0]
    slots = slot_blocks(network)[stage].slots.shape[1]
    rows = [one.head * slots + one.slot for one in chosen]

    def look(tiles: torch.Tensor) -> torch.Tensor:
        maps = attention_maps(network, tiles)[stage][:, rows].float()
        return enlarged(maps * maps[0, 0].numel(), tiles.shape[2:])

    return predictor.over_windows([look], data)


def enlarged(maps: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(B, K, z, y, x) maps of a stage, linearly interpolated to the grid of its patch.

    Voxel i along an axis of stride s is placed at voxel s * i of the patch, around which it looks, since convolutions are
    padded equally on both sides.
    """
    for axis, (n_from, n_to) in enumerate(zip(maps.shape[2:], shape, strict=True), 2):
        matrix = torch.tensor(axis_matrix(n_from, n_to, n_from / n_to, 0.0, 1), device=maps.device)
        maps = (maps.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return maps
