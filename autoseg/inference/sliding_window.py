"""A network that was trained on patches, applied to a whole volume.

Windows of the size of the training patch cover the volume and overlap. Where windows meet, each counts by a Gaussian around its
own centre (sigma an eighth of the window: Isensee 2021), because a network knows least at its border. The Gaussian is
a product over axes and windows form a grid, so the weights are normalised along each axis beforehand: at every voxel
they add up to one, the sum over windows is the result, and one window alone has weight one everywhere.

A *tile* is one window in one mirroring (mirrored test-time augmentation, TTA). Tiles are batched; all networks see the same.
Logits of a large volume with many structures lie in a temporary file, so that memory holds those of one batch of tiles.

nnU-Net adds up weighted logits, and the weights, in half precision, and divides. Where all weights are tiny, in the corners of
a volume, that leaves few digits. ``Tiling.half_sums`` does the same, for whoever wants the same masks there too. Its logits are
rounded a second time once they are on the scan's grid (``native.logits_to_codes``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from autoseg.errors import ModelError
from autoseg.imaging.scratch import scratch_zeros

__all__ = [
    "Network",
    "Tile",
    "Tiles",
    "Tiling",
    "accumulate",
    "add",
    "flips_of",
    "on_host",
    "pad",
    "predict_logits",
    "window_starts",
    "window_weights",
    "windows_of",
    "with_less_memory",
    "zeros",
    "zeros_for",
]

T = TypeVar("T")
Network = Callable[[torch.Tensor], torch.Tensor]
Window = tuple[tuple[slice, ...], list[torch.Tensor]]  # index into a (C, z, y, x) array, and three vectors of weights
Tile = tuple[Window, tuple[int, ...]]  # a window, and the axes along which it is mirrored


def window_starts(length: int, patch: int, step: float) -> tuple[int, ...]:
    """First index of each window along one axis: evenly spread, the first at 0, the last ending at ``length``.

    Args:
        length: voxels of the axis.
        patch: voxels of the window.
        step: distance of two windows as a part of the window, in (0, 1]; at least one voxel, so that windows of depth 1
            (2D networks) visit each slice once.

    Returns:
        Ascending tuple; ``(0,)`` where the window covers the axis (``length <= patch``).
    """
    if not 0 < step <= 1:
        raise ValueError(f"step must lie in (0, 1], found {step}")
    last = length - patch
    if last <= 0:
        return (0,)
    n_steps = math.ceil(last / max(1.0, patch * step))
    return tuple(round(last / n_steps * i) for i in range(n_steps + 1))


def window_weights(length: int, patch: int, starts: Sequence[int], peak: str = "middle") -> np.ndarray:
    """(windows, patch) float32: share of each window at each of its voxels along one axis.

    Positive; the shares of all windows at a voxel of the axis add up to one. ``peak`` is that of ``Plan.window_peak``.
    """
    centre = (patch - 1) / 2 if peak == "middle" else patch // 2
    gaussian = np.exp(-0.5 * ((np.arange(patch) - centre) / (patch / 8)) ** 2)  # at the rim above 3e-4
    total = np.zeros(max(length, patch))
    for start in starts:
        total[start : start + patch] += gaussian
    return np.stack([gaussian / total[start : start + patch] for start in starts]).astype(np.float32)


@dataclass(frozen=True)
class Tiling:
    """Which windows of a volume networks see, and how.

    Attributes:
        patch_size: (z, y, x) voxels of a window.
        step: see ``window_starts``.
        mirror_axes: axes 0 to 2 of the volume; all combinations of flips are averaged, none included.
        batch: tiles per call of a network.
        pad_value: number, or one per channel, put around a small volume.
        peak: see ``window_weights``.
        half_sums: add up in half precision, network by network, as nnU-Net 2.8 does; it costs digits.
    """

    patch_size: tuple[int, ...]
    step: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    batch: int = 1
    pad_value: float | Sequence[float] = 0.0
    peak: str = "middle"
    half_sums: bool = False


def predict_logits(
    networks: Sequence[Network],
    data: np.ndarray,
    tiling: Tiling,
    *,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    scratch: str | Path | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Logits of a whole volume: the mean over networks and mirrorings, windows blended.

    Args:
        networks: modules on ``device`` in evaluation mode, (B, C, *patch) to (B, K, *patch).
        data: (C, z, y, x) float32 on the network grid; untouched. A volume smaller than the window is padded on both sides.
        tiling: what the networks see.
        device: where networks and, memory permitting, the accumulated logits are.
        autocast: ``torch.bfloat16`` or ``torch.float16`` for mixed precision; None for float32.
        scratch: folder for logits that are too large for memory; None for the system's temporary folder.

    Returns:
        (K, z, y, x) float32 array; beyond ``LARGEST_IN_MEMORY`` bytes it is mapped from a file, see ``scratch_zeros``. And a
        sentence for each time that device memory was short and the work was repeated in smaller pieces, which changes no
        result but by rounding.

    Raises:
        ModelError: device memory does not suffice for one tile.
    """
    data, inner = pad(data, tiling.patch_size, tiling.pad_value)
    windows, flips = windows_of(data.shape[1:], tiling), flips_of(tiling)

    def all_windows(batch: int, store: torch.device) -> np.ndarray:
        if tiling.half_sums:
            halves = _in_halves(networks, torch.from_numpy(data).to(store), windows, flips, torch.device(device))
            return on_host(halves[inner], scratch)
        tiles = Tiles(networks, torch.from_numpy(data).to(store), batch, torch.device(device), len(flips) * len(networks))
        total = accumulate(tiles, list(itertools.product(windows, flips)), None, zeros_for(data.shape[1:], store, scratch))
        return on_host(total[inner], scratch)

    return with_less_memory(all_windows, tiling, torch.device(device), autocast)


def with_less_memory(
    work: Callable[[int, torch.device], T], tiling: Tiling, device: torch.device, autocast: torch.dtype | None
) -> tuple[T, tuple[str, ...]]:
    """(what ``work`` returns, sentences): called with tiles at once and the place of logits, again where memory is short.

    Raises:
        ModelError: device memory does not suffice for one tile.
    """
    attempts = dict.fromkeys([(tiling.batch, device), (1, device), (1, torch.device("cpu"))])
    notes: list[str] = []
    for batch, store in attempts:
        try:
            with torch.inference_mode(), torch.autocast(device.type, autocast, enabled=autocast is not None):
                return work(batch, store), tuple(notes)
        except torch.cuda.OutOfMemoryError:
            notes.append(
                f"{device} memory ran out with {batch} tiles at once and logits on {store}; continued with less at a time"
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()
    raise ModelError(
        f"a single window of {'x'.join(map(str, tiling.patch_size))} voxels does not fit into the memory of {device}.\n"
        "Free memory on it, or predict with device cpu."
    )


def flips_of(tiling: Tiling) -> list[tuple[int, ...]]:
    """The axes along which each view is mirrored; the first view along none."""
    axes = tiling.mirror_axes
    return [chosen for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]


def zeros_for(shape: Sequence[int], store: torch.device, scratch: str | Path | None) -> Callable[[int], torch.Tensor]:
    """A function of the number of heads that gives zeros of so many volumes."""
    return lambda heads: zeros((heads, *shape), store, scratch)


def windows_of(shape: Sequence[int], tiling: Tiling) -> list[Window]:
    """[(index into a (C, z, y, x) array, weights)] of every window; weights are three vectors whose product counts."""
    axes: list[list[tuple[slice, torch.Tensor]]] = []
    for axis, (length, edge) in enumerate(zip(shape, tiling.patch_size, strict=True)):
        starts = window_starts(length, edge, tiling.step)
        weights = torch.from_numpy(window_weights(length, edge, starts, tiling.peak))
        form = [-1 if a == axis else 1 for a in range(3)]
        axes.append([(slice(start, start + edge), weight.reshape(form)) for start, weight in zip(starts, weights, strict=True)])
    return [((slice(None), *(place for place, _ in window)), [w for _, w in window]) for window in itertools.product(*axes)]


@dataclass(frozen=True, eq=False)
class Tiles:
    """What gives the logits of tiles.

    Attributes:
        networks: see ``predict_logits``; their logits are added up.
        image: (C, z, y, x), where logits are accumulated too.
        batch: tiles at once.
        device: of the networks.
        parts: networks times views, by which each tile's logits are divided.
    """

    networks: Sequence[Network]
    image: torch.Tensor
    batch: int
    device: torch.device
    parts: int

    def logits(self, chunk: Sequence[Tile]) -> torch.Tensor:
        """(B, K, *patch) on the device of the networks."""
        tiles = torch.stack([flipped(self.image[place], axes) for (place, _), axes in chunk]).to(self.device)
        logits = self.networks[0](tiles)
        for network in self.networks[1:]:
            logits = logits.float() + network(tiles).float()
        return logits


def accumulate(
    tiles: Tiles,
    wanted: Sequence[Tile],
    total: torch.Tensor | None,
    zeros: Callable[[int], torch.Tensor],
    see: Callable[[Sequence[Tile], torch.Tensor], object] = lambda chunk, logits: None,
) -> torch.Tensor:
    """(K, z, y, x) float32 tensor where the image is: ``total`` (None for zeros) plus the weighted sum over the tiles.

    Heads are added one by one, so that next to what the networks return there is never a second array of that size.

    Args:
        zeros: number of heads -> zeros.
        see: called with each batch of tiles and the logits of all networks together.
    """
    for first in range(0, len(wanted), tiles.batch):
        chunk = wanted[first : first + tiles.batch]
        logits = tiles.logits(chunk)
        if total is None:
            total = zeros(logits.shape[1])
        see(chunk, logits)
        add(total, chunk, logits, tiles.parts)
        del logits  # with many structures it would be the largest thing beside the next ones
    assert total is not None, "a volume has at least one window"
    return total


def _in_halves(
    networks: Sequence[Network], image: torch.Tensor, windows: list[Window], flips: list[tuple[int, ...]], device: torch.device
) -> torch.Tensor:
    """(K, z, y, x) float32 tensor where ``image`` is, of half precision: the order of the sums and roundings is nnU-Net's."""
    patch = [len(vector.flatten()) for vector in windows[0][1]]
    weight = _half_weights(patch).to(image.device)
    total = None
    for network in networks:
        sums, weights = None, torch.zeros(image.shape[1:], dtype=torch.float16, device=image.device)
        for place, _ in windows:
            tile = image[place][None].to(device)
            logits = sum(flipped(network(flipped(tile, axes)).float(), axes) for axes in flips)[0] / len(flips)  # type: ignore[index]
            if sums is None:
                sums = torch.zeros((len(logits), *image.shape[1:]), dtype=torch.float16, device=image.device)
            sums[place] += logits.to(image.device) * weight
            weights[place[1:]] += weight
        assert sums is not None, "a volume has at least one window"
        sums /= weights
        total = sums if total is None else total.add_(sums)
    assert total is not None, "a model has at least one network"
    return (total / len(networks)).float()


def _half_weights(patch: Sequence[int]) -> torch.Tensor:
    """(z, y, x) float16 weights of a window: a Gaussian of largest value 10 at a voxel, and nowhere 0."""
    vectors = [np.exp(-0.5 * ((np.arange(edge) - edge // 2) / (edge / 8)) ** 2) if edge > 1 else np.ones(1) for edge in patch]
    weight = torch.from_numpy(10 * np.einsum("z,y,x->zyx", *vectors)).half()
    weight[weight == 0] = weight[weight > 0].min()
    return weight


def add(total: torch.Tensor, chunk: Sequence[Tile], logits: torch.Tensor, parts: int) -> None:
    """Add the logits of a batch of tiles, weighted."""
    for ((place, (z, y, x)), axes), heads in zip(chunk, logits, strict=True):
        weight = (z * y * x / parts).to(total.device)
        for target, head in zip(total[place], heads, strict=True):
            target.addcmul_(flipped(head.to(total.device).float(), axes), weight)


def zeros(shape: Sequence[int], device: torch.device, scratch: str | Path | None) -> torch.Tensor:
    if device.type == "cpu":
        return torch.from_numpy(scratch_zeros(shape, folder=scratch))
    return torch.zeros(shape, device=device)


def on_host(logits: torch.Tensor, scratch: str | Path | None) -> np.ndarray:
    """(K, z, y, x) float32 array of a tensor; a view of it where it is on the CPU."""
    if logits.device.type == "cpu":
        found: np.ndarray = logits.numpy()
        return found
    result = zeros(logits.shape, torch.device("cpu"), scratch)
    for target, head in zip(result, logits, strict=True):
        target.copy_(head)
    copied: np.ndarray = result.numpy()
    return copied


def flipped(array: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """An array whose last three axes are those of the volume, mirrored along ``axes`` of these."""
    return array.flip([axis - 3 for axis in axes]) if axes else array


def pad(data: np.ndarray, patch: Sequence[int], pad_value: float | Sequence[float]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """The volume in the middle of one that is at least a window large, and the index where it lies in it."""
    shape = [max(length, edge) for length, edge in zip(data.shape[1:], patch, strict=True)]
    lower = [(new - old) // 2 for new, old in zip(shape, data.shape[1:], strict=True)]
    inner = (slice(None), *(slice(start, start + length) for start, length in zip(lower, data.shape[1:], strict=True)))
    padded = np.empty((len(data), *shape), np.float32)
    padded[...] = np.reshape(pad_value, (-1, 1, 1, 1))
    padded[inner] = data
    return padded, inner
