"""PSPNet (Zhao, Shi, Qi, Wang, Jia, CVPR 2017, arXiv 1612.01105): pyramid pooling.

The coarse grid is divided into 1, 2, 3 and 6 parts per axis. The mean of each part, with a quarter of the channels, is
interpolated back to the grid and concatenated with the features, so that each voxel has context of its region and of the whole
image.

Adapted to 3D, small and anisotropic patches:

- an axis is never divided into more parts than it has voxels; an axis of one voxel is not divided;
- instance instead of batch normalisation; therefore the single mean of the whole grid has none and is added after that of the
  others (``dilated.ImageBranch``); a level whose parts are reduced to one also skips it (``InstanceNorm``);
- the last convolution has the kernel of the plan's last stage, and its width up to the paper's 512;
- the backbone is the plan's residual encoder (``dilated``); the paper's auxiliary loss and dropout are left out, as in the
  other networks.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from autoseg.networks.blocks import SLOPE, ConvBlock
from autoseg.networks.dilated import DilatedNetwork, ImageBranch
from autoseg.networks.heads import Ends
from planners.axes import Triple, triple
from planners.plan import NetworkSpec

__all__ = ["PyramidPooling", "build_pspnet", "fitting_parts"]

PARTS = (2, 3, 6)  # in addition to the whole grid
WIDTH = 512  # as in the paper


def fitting_parts(parts: int, grid: Sequence[int]) -> Triple:
    """(3,) parts along each axis of a grid (three edges in voxels): ``parts``, or as many as there are voxels."""
    return triple(min(parts, edge) for edge in grid)


class PyramidPooling(nn.Module):
    """Features and the means of their regions, joined: (B, inputs, z, y, x) -> (B, outputs, z, y, x)."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple) -> None:
        super().__init__()
        share = max(1, inputs // (len(PARTS) + 1))
        self.regions = nn.ModuleList(ConvBlock(inputs, share, (1, 1, 1)) for _ in PARTS)
        self.join = ConvBlock(inputs + len(PARTS) * share, outputs, kernel, activate=False)
        self.image = ImageBranch(inputs, share, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = x.shape[2:]
        maps = [x]
        for region, parts in zip(self.regions, PARTS, strict=True):
            means = region(functional.adaptive_avg_pool3d(x, fitting_parts(parts, grid)))
            maps.append(functional.interpolate(means, size=grid, mode="trilinear", align_corners=False))
        return functional.leaky_relu(self.join(torch.cat(maps, dim=1)) + self.image(x), SLOPE)


def build_pspnet(spec: NetworkSpec, ends: Ends) -> nn.Module:
    """PSPNet on the plan's residual encoder; logits are computed on a grid up to 8 times coarser and enlarged."""
    return DilatedNetwork(spec, PyramidPooling, WIDTH, ends)
