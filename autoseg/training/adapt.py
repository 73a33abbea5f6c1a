"""Adapts a tensor of a model to the shape in another network: other channels, structures, widths or kernels.

Input channels and output structures have names. The first convolution and the heads are matched by these names. Kernels of a
channel that the model lacks start as zero, so that the network first gives the outputs of the model. Rows of a new
structure start as in a network without a model.

Features have no names. In a wider network several features start as copies of one feature of the model. The kernels that read
them divide its weights unequally, so that the copies diverge in training (after Net2Net, Chen et al., ICLR 2016, arXiv
1511.05641); the outputs are at first those of the model. A narrower network has some of the model's features, evenly spread,
which keeps the halves of a concatenation apart. Kernels of another size are centred: missing weights are zero, surplus
weights are added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from autoseg.networks.scores import Head

__all__ = ["Adapted", "Meaning", "adapt", "image_convolution"]

LEAST_SHARE = 0.5  # smallest part of a feature's weight (largest is 1), before the parts are divided by their sum


@dataclass(frozen=True)
class Meaning:
    """Names of a network's input channels and of its output channels, in order."""

    channels: tuple[str, ...]
    heads: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Adapted:
    """A tensor of the wanted shape, and how it was made, in words."""

    tensor: torch.Tensor
    how: str


def image_convolution(network: nn.Module) -> nn.Module | None:
    """The convolution that reads the image: the first one."""
    return next((module for module in network.modules() if isinstance(module, nn.Conv3d)), None)


def adapt(
    module: nn.Module, old: torch.Tensor, own: torch.Tensor, reads_image: bool, before: Meaning, now: Meaning
) -> Adapted | None:
    """A tensor for this network, made from the model's; None if it cannot be adapted, or nothing of it is needed.

    Args:
        old, own: the tensor of the model, and the initial tensor of this network.
        reads_image: the module is ``image_convolution``.
        before, now: the Meaning of the model's network, and of this one.
    """
    is_convolution = isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
    is_known = is_convolution or isinstance(module, nn.InstanceNorm3d | nn.BatchNorm3d)
    if not is_known or old.ndim != own.ndim or old.ndim not in (1, 5):
        return Adapted(old, "") if old.shape == own.shape else None
    told: list[str] = []
    out_axis = 0
    if old.ndim == 5:
        out_axis, in_axis = (1, 0) if isinstance(module, nn.ConvTranspose3d) else (0, 1)
        old = _kernel(old, own.shape[2:], told)
        names = (before.channels, now.channels) if reads_image and old.shape[1] == len(before.channels) else None
        old = _inputs(old, own.shape[in_axis], in_axis, names, told)
    if isinstance(module, Head) and old.shape[0] == len(before.heads):
        found = _rows(old, own, before.heads, now.heads, told)
        return None if found is None else Adapted(found, "; ".join(told))
    old = _spread(old, own.shape[out_axis], out_axis, told)
    return Adapted(old, "; ".join(told)) if old.shape == own.shape else None


def _kernel(old: torch.Tensor, size: Sequence[int], told: list[str]) -> torch.Tensor:
    """Kernels (., ., z, y, x) of another size."""
    before = tuple(old.shape[2:])
    for axis, edge in enumerate(size, start=2):
        more = edge - old.shape[axis]
        if more > 0:
            padding = [0, 0] * (old.ndim - 1 - axis) + [more // 2, more - more // 2]
            old = nn.functional.pad(old, padding)
        elif more < 0:
            first = -more // 2
            middle = old.narrow(axis, first, edge).clone()
            ends = old.narrow(axis, 0, first).sum(axis) + old.narrow(axis, first + edge, -more - first).sum(axis)
            middle.select(axis, edge // 2).add_(ends)
            old = middle
    if before != tuple(size):
        told.append(f"kernels of {' x '.join(map(str, before))} in the middle of those of {' x '.join(map(str, size))}")
    return old


def _inputs(
    old: torch.Tensor, count: int, axis: int, names: tuple[tuple[str, ...], tuple[str, ...]] | None, told: list[str]
) -> torch.Tensor:
    """Kernels that read ``count`` features, or the channels of an image by their names."""
    if names is None:
        n = old.shape[axis]
        if n == count:
            return old
        chosen = _nearest(n, count)
        shares = np.random.default_rng(0).uniform(LEAST_SHARE, 1, count)  # unequal, but reproducible
        shares /= np.bincount(chosen, shares, minlength=n)[chosen]
        told.append(f"reads {n} features as {count}")
        form = [-1 if a == axis else 1 for a in range(old.ndim)]
        return old.index_select(axis, torch.from_numpy(chosen)) * torch.from_numpy(shares).to(old).reshape(form)
    before, now = names
    if before == now:
        return old
    known = {channel: number for number, channel in enumerate(before)}
    if not set(before) & set(now):
        if len(before) == len(now):
            told.append(f"channels by position: {', '.join(before)} as {', '.join(now)}")
            return old
        told.append(f"the mean over {', '.join(before)} for each of {', '.join(now)}")
        return old.mean(axis, keepdim=True).repeat_interleave(len(now), axis)
    told.append(f"channels by name: {', '.join(name for name in now if name in known)}; others start at zero")
    kernels = [old.select(axis, known[name]) if name in known else torch.zeros_like(old.select(axis, 0)) for name in now]
    return torch.stack(kernels, dim=axis)


def _rows(
    old: torch.Tensor, own: torch.Tensor, before: Sequence[str], now: Sequence[str], told: list[str]
) -> torch.Tensor | None:
    """The rows of heads, matched by name; None if no name matches."""
    known = {name: number for number, name in enumerate(before)}
    shared = [name for name in now if name in known]
    if tuple(before) == tuple(now):
        return old if old.shape == own.shape else None
    if not shared or old.shape[1:] != own.shape[1:]:
        return None
    told.append(f"heads by name: {', '.join(shared)}; others start anew")
    return torch.stack([old[known[name]] if name in known else own[number].to(old) for number, name in enumerate(now)])


def _spread(old: torch.Tensor, count: int, axis: int, told: list[str]) -> torch.Tensor:
    """``count`` features, evenly spread over the existing ones."""
    n = old.shape[axis]
    if n == count:
        return old
    told.append(f"width {n} as {count}")
    return old.index_select(axis, torch.from_numpy(_nearest(n, count)))


def _nearest(n: int, count: int) -> np.ndarray:
    """(count,) index of the old feature (of ``n``) that each of ``count`` new features copies."""
    return np.arange(count) * n // count
