"""A network that was trained on patches, applied to a whole volume.

Windows of the size of the training patch cover the volume and overlap. Where windows meet, each counts by a Gaussian around its
own centre (sigma an eighth of the window: Isensee 2021), because a network knows least at its border. The Gaussian is
a product over axes and windows form a grid, so the weights are normalised along each axis beforehand: at every voxel
they add up to one, the sum over windows is the result, and one window alone has weight one everywhere.

A *tile* is one window in one mirroring (mirrored test-time augmentation, TTA). Tiles are batched; all networks see the same.
Logits of a large volume with many structures lie in a temporary file, so that memory holds those of one batch of tiles.

nnU-Net adds up weighted logits, and the weights, in half precision, and divides. Where all weights are tiny, in the corners of
a volume, that leaves few digits. ``Tiling.half_sums`` does the same, for whoever wants the same masks there too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoseg.errors import ModelError
from autoseg.imaging.scratch import scratch_zeros

__all__ = ["Tiling", "predict_logits", "window_starts", "window_weights"]

Network = Callable[[torch.Tensor], torch.Tensor]
Window = tuple[tuple[slice, ...], list[torch.Tensor]]  # index into a (C, z, y, x) array, and three vectors of weights


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
    device = torch.device(device)
    patch = tuple(int(edge) for edge in tiling.patch_size)
    data, inner = _pad(data, patch, tiling.pad_value)
    axes = tiling.mirror_axes
    flips = [chosen for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]
    windows = _windows(data.shape[1:], patch, tiling.step, tiling.peak)
    attempts = dict.fromkeys([(tiling.batch, device), (1, device), (1, torch.device("cpu"))])
    notes: list[str] = []
    for batch, store in attempts:
        try:
            with torch.inference_mode(), torch.autocast(device.type, autocast, enabled=autocast is not None):
                if tiling.half_sums:
                    logits = _in_halves(networks, torch.from_numpy(data).to(store), windows, flips, device)
                    return _on_host(logits[inner], scratch), tuple(notes)
                total = _zeros_for(data.shape[1:], store, scratch)
                logits = _accumulate(networks, torch.from_numpy(data).to(store), windows, flips, batch, device, total)
                return _on_host(logits[inner], scratch), tuple(notes)
        except torch.cuda.OutOfMemoryError:
            notes.append(
                f"{device} memory was short with {batch} tiles at once and logits on {store}; went on with less at a time"
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()
    raise ModelError(
        f"a single window of {'x'.join(map(str, patch))} voxels does not fit into the memory of {device}.\n"
        "Free memory on it, or predict with device cpu."
    )


def _zeros_for(shape: Sequence[int], store: torch.device, scratch: str | Path | None) -> Callable[[int], torch.Tensor]:
    """A function of the number of heads that gives zeros of so many volumes."""
    return lambda heads: _zeros((heads, *shape), store, scratch)


def _windows(shape: Sequence[int], patch: Sequence[int], step: float, peak: str) -> list[Window]:
    """[(index into a (C, z, y, x) array, weights)] of every window; weights are three vectors whose product counts."""
    axes: list[list[tuple[slice, torch.Tensor]]] = []
    for axis, (length, edge) in enumerate(zip(shape, patch, strict=True)):
        starts = window_starts(length, edge, step)
        weights = torch.from_numpy(window_weights(length, edge, starts, peak))
        form = [-1 if a == axis else 1 for a in range(3)]
        axes.append([(slice(start, start + edge), weight.reshape(form)) for start, weight in zip(starts, weights, strict=True)])
    return [((slice(None), *(place for place, _ in window)), [w for _, w in window]) for window in itertools.product(*axes)]


def _accumulate(
    networks: Sequence[Network],
    image: torch.Tensor,
    windows: list[Window],
    flips: list[tuple[int, ...]],
    batch: int,
    device: torch.device,
    zeros: Callable[[int], torch.Tensor],
) -> torch.Tensor:
    """(K, z, y, x) float32 tensor where ``image`` is: the weighted sum over all tiles.

    Heads are added one by one, so that next to what the networks return there is never a second array of that size.
    """
    total = None
    passes = list(itertools.product(windows, flips))
    for first in range(0, len(passes), batch):
        chunk = passes[first : first + batch]
        tiles = torch.stack([_flip(image[place], axes) for (place, _), axes in chunk]).to(device)
        logits = networks[0](tiles)
        for network in networks[1:]:
            logits = logits.float() + network(tiles).float()
        if total is None:
            total = zeros(logits.shape[1])
        _add(total, chunk, logits, len(flips) * len(networks))
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
            logits = sum(_flip(network(_flip(tile, axes)).float(), axes) for axes in flips)[0] / len(flips)  # type: ignore[index]
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


def _add(total: torch.Tensor, chunk: list[tuple[Window, tuple[int, ...]]], logits: torch.Tensor, n: int) -> None:
    for ((place, (z, y, x)), axes), heads in zip(chunk, logits, strict=True):
        weight = (z * y * x / n).to(total.device)
        for target, head in zip(total[place], heads, strict=True):
            target.addcmul_(_flip(head.to(total.device).float(), axes), weight)


def _zeros(shape: Sequence[int], device: torch.device, scratch: str | Path | None) -> torch.Tensor:
    if device.type == "cpu":
        return torch.from_numpy(scratch_zeros(shape, folder=scratch))
    return torch.zeros(shape, device=device)


def _on_host(logits: torch.Tensor, scratch: str | Path | None) -> np.ndarray:
    """(K, z, y, x) float32 array of a tensor; a view of it where it is on the CPU."""
    if logits.device.type == "cpu":
        found: np.ndarray = logits.numpy()
        return found
    result = _zeros(logits.shape, torch.device("cpu"), scratch)
    for target, head in zip(result, logits, strict=True):
        target.copy_(head)
    copied: np.ndarray = result.numpy()
    return copied


def _flip(array: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """An array whose last three axes are those of the volume, mirrored along ``axes`` of these."""
    return array.flip([axis - 3 for axis in axes]) if axes else array


def _pad(data: np.ndarray, patch: Sequence[int], pad_value: float | Sequence[float]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """The volume in the middle of one that is at least a window large, and the index where it lies in it."""
    shape = [max(length, edge) for length, edge in zip(data.shape[1:], patch, strict=True)]
    lower = [(new - old) // 2 for new, old in zip(shape, data.shape[1:], strict=True)]
    inner = (slice(None), *(slice(start, start + length) for start, length in zip(lower, data.shape[1:], strict=True)))
    padded = np.empty((len(data), *shape), np.float32)
    padded[...] = np.reshape(pad_value, (-1, 1, 1, 1))
    padded[inner] = data
    return padded, inner
