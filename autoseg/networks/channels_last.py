"""Training channels last on a CPU: the order of memory in which oneDNN is fastest, kept from block to block.

PyTorch's instance normalisation returns its result channels first, whatever it was given, so that every convolution would
have to turn its input, its result's gradient and its input's gradient around. The one here keeps the order.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from autoseg.networks.blocks import InstanceNorm

__all__ = ["put_channels_last"]


def put_channels_last(network: nn.Module) -> None:
    """Have the convolutions of ``network`` computed channels last, and what lies between them as well.

    For a training in float32 on a CPU: with AVX2 a step is shorter by a tenth to a quarter (EXPERIMENTS.md). Flat kernels and
    those of a single channel are slower so, and stay. Results differ by rounding.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d) and min(module.kernel_size) > 1 and module.in_channels > 1:
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
        if type(module) is InstanceNorm:
            module.__class__ = _ChannelsLastNorm


class _ChannelsLastNorm(InstanceNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x)
        return _Normalise.apply(x, self.weight, self.bias, self.eps)


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
