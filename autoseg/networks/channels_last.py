"""Instance normalisation of maps that lie channels last, the order of memory in which oneDNN is fastest on a CPU.

PyTorch's returns its result channels first, whatever it was given, so that in a training every convolution would have to turn
its input, its result's gradient and its input's gradient around. The one here keeps the order.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

__all__ = ["lies_channels_last", "normalise_channels_last"]


def lies_channels_last(x: torch.Tensor) -> bool:
    """Whether (B, C, Z, Y, X) lies channels last in memory, and in that order alone."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last_3d)


def normalise_channels_last(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """As ``torch.nn.functional.instance_norm``, of maps that lie channels last, from and to such; all of one number format."""
    normalised: torch.Tensor = _Normalise.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]  # torch says no type
    return normalised


class _Normalise(torch.autograd.Function):
    """Instance normalisation (Ulyanov et al. 2016, arXiv 1607.08022) of (B, C, Z, Y, X) channels last, from and to such.

    Not by ``batch_norm`` of one sample after another, which keeps the order too: there torch 2.13 sums voxel by voxel in
    float32, and is off by a hundredth for 160^3 of them.
    """

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
        result = torch.empty_like(x)
        mean = _rows(x).mean(1, keepdim=True)
        rows = torch.sub(_rows(x), mean, out=_rows(result))
        spread = rows.square().mean(1, keepdim=True).add_(eps).rsqrt_()  # 1 / standard deviation
        torch.addcmul(bias, rows, spread * weight, out=rows)
        context.save_for_backward(x, weight, mean, spread)
        return result

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, spread = context.saved_tensors
        gradient = _rows(gradient.contiguous(memory_format=torch.channels_last_3d))
        unit = (_rows(x) - mean).mul_(spread)
        shift = gradient.sum(1, keepdim=True)
        scale = (gradient * unit).sum(1, keepdim=True)
        # what would only move the mean or the spread is taken out of the gradient
        rest = torch.addcmul(gradient, unit, scale, value=-1 / unit.shape[1], out=unit).sub_(shift / unit.shape[1])
        return _grid(rest.mul_(spread * weight), x), scale.sum((0, 1)), shift.sum((0, 1)), None


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(B, C, Z, Y, X) channels last as (B, voxels, C), the same memory."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _grid(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Back to the shape of ``like``, the same memory."""
    return rows.unflatten(1, like.shape[2:]).permute(0, 4, 1, 2, 3)
