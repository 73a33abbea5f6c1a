"""DeepLabv3 (Chen, Papandreou, Schroff, Adam 2017, arXiv 1706.05587): atrous spatial pyramid pooling.

Four parallel convolutions on the coarse grid, a 1 x 1 x 1 one and three dilated ones, and a branch for the whole image are
joined by a 1 x 1 x 1 convolution. The paper's rates are 6, 12 and 18 on a grid of about 36 voxels. The grid of a medical
patch has 4 to 20, where such kernels would cover only padding.

Adapted to 3D, small and anisotropic patches:

- the rates shrink in proportion to the grid, axis by axis, so that the widest kernel covers at most half of the grid; weight
  shapes do not depend on the rates, and an axis of one voxel has kernel 1 or rate 1;
- kernels along each axis are those of the plan's last stage;
- instance instead of batch normalisation; therefore the image branch is added after it (``dilated.ImageBranch``);
- the backbone is the plan's residual encoder (``dilated``), without the paper's multi-grid rates inside a stage.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from autoseg.networks.blocks import SLOPE, ConvBlock, InstanceNorm, convolution
from autoseg.networks.dilated import DilatedNetwork, ImageBranch
from autoseg.networks.heads import Ends
from planners.axes import Triple, triple
from planners.plan import NetworkSpec

__all__ = ["AtrousPyramid", "build_deeplabv3", "fitting_rate"]

RATES = (6, 12, 18)
WIDTH = 256  # as in the paper


def fitting_rate(rate: int, grid: Sequence[int]) -> Triple:
    """(3,) dilation along each axis of a grid (three edges in voxels): ``rate``, less on a small grid, at least 1."""
    return triple(max(1, min(rate, rate * edge // (2 * RATES[-1]))) for edge in grid)


class AtrousBlock(nn.Module):
    """A convolution block whose dilation is adapted to the grid of its input."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, rate: int) -> None:
        super().__init__()
        self.rate = rate
        self.conv = convolution(inputs, outputs, kernel)
        self.norm = InstanceNorm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rate = fitting_rate(self.rate, x.shape[2:])
        padding = tuple(d * (k // 2) for d, k in zip(rate, self.conv.kernel_size, strict=True))
        x = functional.conv3d(x, self.conv.weight, self.conv.bias, padding=padding, dilation=rate)
        return functional.leaky_relu(self.norm(x), SLOPE, inplace=True)


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: (B, inputs, z, y, x) -> (B, outputs, z, y, x)."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvBlock(inputs, outputs, (1, 1, 1))])
        self.branches.extend(AtrousBlock(inputs, outputs, kernel, rate) for rate in RATES)
        self.join = ConvBlock(len(self.branches) * outputs, outputs, (1, 1, 1), activate=False)
        self.image = ImageBranch(inputs, outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = self.join(torch.cat([branch(x) for branch in self.branches], dim=1))
        return functional.leaky_relu(joined + self.image(x), SLOPE)


def build_deeplabv3(spec: NetworkSpec, ends: Ends) -> nn.Module:
    """DeepLabv3 on the plan's residual encoder; logits are computed on a grid up to 8 times coarser and enlarged."""
    return DilatedNetwork(spec, AtrousPyramid, WIDTH, ends)
