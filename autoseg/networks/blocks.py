"""The building blocks of networks: convolution, normalisation and non-linearity as one block, and residual blocks.

All tensors are (B, C, Z, Y, X) and all kernels have three entries: a 2D network is a 3D network of depth 1 with
kernels (1, 3, 3). Kernels are odd and padding keeps the grid, so that only strides change it. The formulas and parameters
are those of nnU-Net's two default networks (Isensee et al., Nature Methods 2021; MICCAI 2024, arXiv 2404.09556).
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from autoseg.errors import ModelError, PlanError
from autoseg.networks.channels_last import enlarge_channels_last, lies_channels_last, normalise_channels_last
from planners.axes import Triple, triple
from planners.plan import NetworkSpec

__all__ = [
    "ConvBlock",
    "Enlargement",
    "InputScaling",
    "InstanceNorm",
    "ResidualBlock",
    "check_patch",
    "conv_stack",
    "convolution",
    "initialise",
    "residual_stack",
]

SLOPE = 0.01  # slope of the leaky ReLU, also assumed by the initial weights


def check_patch(spec: NetworkSpec, patch: Sequence[int]) -> None:
    """Refuse a patch (three edges in voxels) that the strides of ``spec`` do not divide.

    Raises:
        PlanError: names the nearest size that fits.
    """
    if refusal := spec.refusal(patch):
        raise PlanError(f"network {spec.name!r}: the patch does not fit: {refusal}")


def initialise(network: nn.Module) -> nn.Module:
    """Kaiming-normal weights for every convolution of ``network``, biases zero; returns ``network``."""
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            # a block starts as its shortcut, so that depth does no harm at first (Goyal et al. 2017)
            nn.init.zeros_(module.second.norm.weight)
    return network


class InputScaling(nn.Module):
    """``(x - mean) / std`` per channel, with constants that are in the state dict but not trained.

    Empty ``mean`` or ``std`` mean zeros and ones.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, channels: int, mean: Sequence[float] = (), std: Sequence[float] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([float(m) for m in mean] or [0.0] * channels).reshape(-1, 1, 1, 1))
        self.register_buffer("std", torch.tensor([float(s) for s in std] or [1.0] * channels).reshape(-1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 5 or x.shape[1] != len(self.mean):
            raise ModelError(
                f"the network expects (batch, {len(self.mean)} channels, z, y, x), found shape {tuple(x.shape)}. "
                "Give the channels of the data set it was trained on, in their order"
            )
        return (x - self.mean) / self.std


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation with trained scale and shift; a single voxel is not normalised.

    A single voxel has no variance: normalising it would replace it by a constant (PyTorch refuses). Then only scale
    and shift are applied, so a bottleneck of one voxel still passes information. Maps keep their memory order.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, affine=True)

    def forward(self, x: torch.Tensor, slope: float = 1.0) -> torch.Tensor:
        """Normalise, then apply a leaky ReLU with that ``slope``; 1 for none."""
        if lies_channels_last(x) and x.dtype == self.weight.dtype and x.shape[2:].numel() > 1:
            return normalise_channels_last(x, self.weight, self.bias, self.eps, slope)
        if x.shape[2:].numel() == 1:
            shape = (1, -1, 1, 1, 1)
            x = x * self.weight.reshape(shape) + self.bias.reshape(shape)
        else:
            x = super().forward(x)
        return x if slope == 1 else functional.leaky_relu(x, slope, inplace=True)


def convolution(inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), bias: bool = True) -> nn.Conv3d:
    """A convolution that keeps the grid except for its stride; ``kernel`` has odd entries."""
    return nn.Conv3d(inputs, outputs, kernel, stride, padding=triple(k // 2 for k in kernel), bias=bias)


class Enlargement(nn.ConvTranspose3d):
    """A transposed convolution whose kernel equals its stride; maps keep their memory order."""

    bias: nn.Parameter

    def __init__(self, inputs: int, outputs: int, stride: Triple) -> None:
        super().__init__(inputs, outputs, stride, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        if lies_channels_last(x) and x.dtype == self.weight.dtype:
            return enlarge_channels_last(x, self.weight, self.bias)
        return super().forward(x)


class ConvBlock(nn.Module):
    """Convolution, instance normalisation, leaky ReLU (left out with ``activate=False``)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), *, bias: bool = True, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, kernel, stride, bias)
        self.norm = InstanceNorm(outputs)
        self.activate = activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = self.norm(self.conv(x), SLOPE if self.activate else 1.0)
        return normalised


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to the input (He et al., CVPR 2016, arXiv 1512.03385).

    The shortcut is that of ResNet-D (He et al. 2019, arXiv 1812.01187): average pooling if the block has a stride, then a
    1 x 1 x 1 convolution if the width changes.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, kernel, stride)
        self.second = ConvBlock(outputs, outputs, kernel, activate=False)
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(nn.AvgPool3d(stride, stride))
        if inputs != outputs:
            shortcut.append(ConvBlock(inputs, outputs, (1, 1, 1), bias=False, activate=False))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(self.second(self.first(x)) + self.shortcut(x), SLOPE, inplace=True)


def conv_stack(inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), *, blocks: int) -> nn.Sequential:
    """``blocks`` convolution blocks in a row; the first changes width and grid."""
    return _stack(ConvBlock, inputs, outputs, kernel, stride, blocks)


def residual_stack(inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), *, blocks: int) -> nn.Sequential:
    """``blocks`` residual blocks in a row; the first changes width and grid."""
    return _stack(ResidualBlock, inputs, outputs, kernel, stride, blocks)


def _stack(
    block: Callable[..., nn.Module], inputs: int, outputs: int, kernel: Triple, stride: Triple, blocks: int
) -> nn.Sequential:
    rest = [block(outputs, outputs, kernel) for _ in range(blocks - 1)]
    return nn.Sequential(block(inputs, outputs, kernel, stride), *rest)
