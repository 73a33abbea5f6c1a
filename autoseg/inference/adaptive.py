"""Adaptive windows: first side by side; overlapping and mirrored windows only where doubt remains.

Every tile is computed at most once. The logits of a voxel are the weighted mean of the tiles that cover it. Where all tiles
were computed, they equal the result of all windows, except for the order of summation. Tiles with a constant intensity in each
channel, such as air made uniform by clipping or masks, have the same logits: those of the last such value are reused, which
changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch

from autoseg.inference.sliding_window import (
    Network,
    Tile,
    Tiles,
    Tiling,
    accumulate,
    add,
    flips_of,
    on_host,
    pad,
    window_starts,
    windows_of,
    with_less_memory,
    zeros,
    zeros_for,
)
from autoseg.inference.windows import Doubt, Votes, WindowGrid, decide

__all__ = ["Blend", "Reading", "Stage", "grid_of", "predict_adaptively", "try_doubts"]

T = TypeVar("T")
_COMPLETE = 1e-5  # how far rounding may move the sum of all weights from 1


@dataclass(frozen=True)
class Reading:
    """How the output of the networks is interpreted.

    Attributes:
        has_regions: see ``decide``.
        heads: mean network output (C, z, y, x) -> (z, y, x) logits of each head; default: the output is the logits.
    """

    has_regions: bool
    heads: Callable[[torch.Tensor], Iterable[torch.Tensor]] = iter


@dataclass(frozen=True)
class Stage(Generic[T]):
    """The ``result`` from part of the tiles, and the number of tiles ``computed``, ``of`` all."""

    result: T
    computed: int
    of: int


def grid_of(shape: Sequence[int], tiling: Tiling) -> WindowGrid:
    """The windows of a volume of (z, y, x) voxels, after padding to the size of a window."""
    padded = tuple(max(length, edge) for length, edge in zip(shape, tiling.patch_size, strict=True))
    pairs = zip(padded, tiling.patch_size, strict=True)
    return WindowGrid(padded, tuple(tiling.patch_size), tuple(window_starts(n, edge, tiling.step) for n, edge in pairs))


class Blend:
    """Weighted sums of the tiles of one volume, added tile by tile.

    Args:
        tiles: computes their logits.
        tiling: which windows the networks see.
        reading: how the output is interpreted.
        scratch: folder for arrays too large for memory.
    """

    def __init__(self, tiles: Tiles, tiling: Tiling, reading: Reading, scratch: str | Path | None = None) -> None:
        shape, store = tuple(tiles.image.shape[1:]), tiles.image.device
        self.tiles, self.reading, self.scratch = tiles, reading, scratch
        self.grid, self.windows, self.views = grid_of(shape, tiling), windows_of(shape, tiling), flips_of(tiling)
        self.done = np.zeros((len(self.windows), len(self.views)), bool)
        self.votes = Votes.empty(shape, store)
        self.weight = torch.zeros(shape, device=store)  # sum of the weights computed so far, at most 1
        self.total: torch.Tensor | None = None
        self.computed = 0
        self._zeros = zeros_for(shape, store, scratch)
        self._even: tuple[tuple[float, ...], torch.Tensor] | None = None  # the last constant tile, and its logits

    def first_pass(self) -> None:
        """Compute windows side by side, without mirroring, and record their decisions."""
        chosen = np.zeros_like(self.done)
        chosen[:, 0] = self.grid.first_pass().ravel()
        self._compute(chosen, self._vote)

    def refine(self, windows: np.ndarray) -> None:
        """Compute all views of the given windows, bool (z, y, x), except those already computed."""
        self._compute(np.broadcast_to(windows.reshape(-1, 1), self.done.shape), lambda chunk, logits: None)

    def doubtful(self, doubt: Doubt) -> np.ndarray:
        """Bool for each window, (z, y, x): whether it is in doubt after the first pass."""
        return self.grid.to_refine(self.votes.doubt(self.grid, doubt), doubt.halo)

    def mean_(self) -> torch.Tensor:
        """(K, z, y, x): the weighted mean, computed in place; nothing can be added afterwards."""
        assert self.total is not None, "a volume has a first pass"
        return self._divide_(self.total)

    def mean(self) -> torch.Tensor:
        """(K, z, y, x): the weighted mean of the tiles computed so far."""
        assert self.total is not None, "a volume has a first pass"
        found = zeros(self.total.shape, self.total.device, self.scratch)
        return self._divide_(found.copy_(self.total))

    def _divide_(self, total: torch.Tensor) -> torch.Tensor:
        share = self.weight.clone()
        share[(share - 1).abs() < _COMPLETE] = 1
        for head in total:
            head /= share
        return total

    def _compute(self, chosen: np.ndarray, see: Callable[[Sequence[Tile], torch.Tensor], object]) -> None:
        even: list[tuple[tuple[float, ...], Tile]] = []
        uneven: list[Tile] = []
        for window, view in zip(*np.nonzero(chosen & ~self.done), strict=True):
            (place, (z, y, x)), axes = self.windows[window], self.views[view]
            self.weight[place[1:]].add_((z * y * x / len(self.views)).to(self.weight.device))
            tile = (self.windows[window], axes)
            value = _one_value(self.tiles.image[place])
            uneven.append(tile) if value is None else even.append((value, tile))
        self.done |= chosen
        self.computed += len(uneven)
        for value, same in itertools.groupby(sorted(even, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
            for _, tile in same:
                logits = self._logits_of(value, tile)
                self.total = self._zeros(logits.shape[1]) if self.total is None else self.total
                see([tile], logits)
                add(self.total, [tile], logits, self.tiles.parts)
        if uneven:
            self.total = accumulate(self.tiles, uneven, self.total, self._zeros, see)

    def _logits_of(self, value: tuple[float, ...], tile: Tile) -> torch.Tensor:
        """(1, K, *patch) logits of a tile with a constant ``value`` in each channel."""
        if self._even is None or self._even[0] != value:
            self._even = value, self.tiles.logits([tile])
            self.computed += 1
        return self._even[1]

    def _vote(self, chunk: Sequence[Tile], logits: torch.Tensor) -> None:
        for ((place, _), _), scores in zip(chunk, logits, strict=True):
            heads = self.reading.heads(scores / len(self.tiles.networks) if len(self.tiles.networks) > 1 else scores)
            codes, margins = decide(heads, has_regions=self.reading.has_regions)
            self.votes.add_(place[1:], codes.to(self.votes.codes.device), margins.to(self.votes.codes.device))


def predict_adaptively(
    networks: Sequence[Network],
    data: np.ndarray,
    tiling: Tiling,
    doubt: Doubt,
    reading: Reading,
    *,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    scratch: str | Path | None = None,
) -> tuple[Stage[np.ndarray], tuple[str, ...]]:
    """``predict_logits`` with the windows that a Doubt requires; other arguments as there.

    Returns:
        (Stage with (K, z, y, x) float32 logits, sentences as from ``predict_logits``).
    """
    data, inner = pad(data, tiling.patch_size, tiling.pad_value)

    def work(batch: int, store: torch.device) -> Stage[np.ndarray]:
        blend = Blend(_tiles(networks, data, tiling, batch, store, torch.device(device)), tiling, reading, scratch)
        blend.first_pass()
        blend.refine(blend.doubtful(doubt))
        return Stage(on_host(blend.mean_()[inner], scratch), blend.computed, blend.done.size)

    return with_less_memory(work, tiling, torch.device(device), autocast)


def try_doubts(
    networks: Sequence[Network],
    data: np.ndarray,
    tiling: Tiling,
    doubts: Sequence[Doubt],
    reading: Reading,
    judge: Callable[[np.ndarray], T],
    *,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    scratch: str | Path | None = None,
) -> list[Stage[T]]:
    """The results of several Doubts on a volume, and of all windows, with no tile computed twice.

    Args:
        doubts: each at least as strict in every respect as the previous one.
        judge: (K, z, y, x) logits -> the result to keep.

    Returns:
        A Stage for each Doubt; the last one is from all windows.
    """
    data, inner = pad(data, tiling.patch_size, tiling.pad_value)

    def work(batch: int, store: torch.device) -> list[Stage[T]]:
        blend = Blend(_tiles(networks, data, tiling, batch, store, torch.device(device)), tiling, reading, scratch)
        blend.first_pass()
        chosen = [*(blend.doubtful(doubt) for doubt in doubts), np.ones(blend.grid.size, bool)]
        stages: list[Stage[T]] = []
        for windows, before in zip(chosen, [None, *chosen], strict=False):
            if before is None or not np.array_equal(windows, before):
                blend.refine(windows)
                result = judge(on_host(blend.mean()[inner], scratch))
            stages.append(Stage(result, blend.computed, blend.done.size))
        return stages

    return with_less_memory(work, tiling, torch.device(device), autocast)[0]


def _tiles(
    networks: Sequence[Network], data: np.ndarray, tiling: Tiling, batch: int, store: torch.device, device: torch.device
) -> Tiles:
    return Tiles(networks, torch.from_numpy(data).to(store), batch, device, len(networks) * len(flips_of(tiling)))


def _one_value(image: torch.Tensor) -> tuple[float, ...] | None:
    """The value of each channel, if all channels are constant; else None."""
    flat = image.flatten(1)
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    return tuple(low.tolist()) if torch.equal(low, high) else None
