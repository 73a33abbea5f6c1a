"""Layers for maps in channels-last memory order, in which oneDNN is fastest on a CPU.

PyTorch's instance normalisation always returns channels-first maps, and so do its transposed and its 1 x 1 x 1 convolutions.
In training every convolution would then have to reorder its input, the gradient of its result and the gradient of its input.
The layers in this module keep the order. A channels-last map is a matrix of voxels by channels: a transposed convolution whose
kernel equals its stride is one matrix product, and so is the last layer.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["enlarge_channels_last", "lies_channels_last", "normalise_channels_last", "weigh_channels_last"]

LAST = torch.channels_last_3d


def lies_channels_last(x: torch.Tensor) -> bool:
    """Whether (B, C, Z, Y, X) is channels last in memory, and not also channels first."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=LAST)


def normalise_channels_last(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, slope: float = 1.0
) -> torch.Tensor:
    """Instance normalisation and leaky ReLU of channels-last maps; the result is channels last. All have one number format.

    As ``torch.nn.functional.instance_norm``, then ``leaky_relu`` with a positive ``slope``; 1 for no ReLU.
    """
    normalised: torch.Tensor = _Normalise.apply(x, weight, bias, eps, slope)  # type: ignore[no-untyped-call]  # torch says no type
    return normalised


def enlarge_channels_last(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Transposed convolution (B, C, z, y, x) -> (B, K, Z, Y, X) with the kernel (C, K, *stride), from and to channels last."""
    outputs, stride = weight.shape[1], weight.shape[2:]
    kernels = weight.permute(0, 2, 3, 4, 1).flatten(1)  # (C, stride and K)
    blocks = functional.linear(x.permute(0, 2, 3, 4, 1), kernels.T, bias.repeat(stride.numel()))
    blocks = blocks.unflatten(-1, (*stride, outputs)).permute(0, 1, 4, 2, 5, 3, 6, 7)  # B, z, stride, y, stride, x, stride, K
    return blocks.flatten(5, 6).flatten(3, 4).flatten(1, 2).permute(0, 4, 1, 2, 3)


def weigh_channels_last(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """1 x 1 x 1 convolution (B, C, Z, Y, X) -> (B, K, Z, Y, X) with the kernel (K, C, 1, 1, 1), from and to channels last."""
    return functional.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)


class _Normalise(torch.autograd.Function):
    """Instance normalisation (Ulyanov et al. 2016, arXiv 1607.08022) of (B, C, Z, Y, X) channels last, and a leaky ReLU.

    ``batch_norm`` of one sample at a time also keeps the order, but is not used: torch 2.13 sums voxel by voxel in float32,
    with an error of a hundredth for 160^3 voxels.
    """

    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, slope: float
    ) -> torch.Tensor:
        result = torch.empty_like(x)
        mean = _rows(x).mean(1, keepdim=True)
        rows = torch.sub(_rows(x), mean, out=_rows(result))
        spread = rows.square().mean(1, keepdim=True).add_(eps).rsqrt_()  # 1 / standard deviation
        torch.addcmul(bias, rows, spread * weight, out=rows)
        context.slope = slope
        if slope == 1:
            context.save_for_backward(x, weight, mean, spread)
        else:
            functional.leaky_relu_(rows, slope)
            context.save_for_backward(x, weight, mean, spread, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, spread, *result = context.saved_tensors
        gradient = _rows(gradient.contiguous(memory_format=LAST))
        if result:  # the ReLU keeps the sign, so the result shows where the input was negative
            gradient = torch.ops.aten.leaky_relu_backward(gradient, _rows(result[0]), context.slope, True)
        rest, voxels = _rows(x) - mean, gradient.shape[1]
        shift = gradient.sum(1, keepdim=True)
        scale = (gradient * rest).sum(1, keepdim=True).mul_(spread)
        # remove the parts of the gradient that only change the mean or the standard deviation
        factor = spread * weight
        torch.addcmul(-shift * factor / voxels, rest, -scale * spread * factor / voxels, out=rest).addcmul_(gradient, factor)
        return _grid(rest, x), scale.sum((0, 1)), shift.sum((0, 1)), None, None


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(B, C, Z, Y, X) channels last as (B, voxels, C), sharing memory."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _grid(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Back to the shape of ``like``, sharing memory."""
    return rows.unflatten(1, like.shape[2:]).permute(0, 4, 1, 2, 3)
