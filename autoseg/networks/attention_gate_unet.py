"""Attention U-Net (Oktay et al., MIDL 2018, arXiv 1804.03999): the plain U-Net with gates on its skip connections.

A gate multiplies each voxel of a skip connection by a weight in (0, 1), the same for all channels. The weight is computed from
the skip x and the features of the next coarser stage, g::

    a = sigmoid(score . relu(W_x x + W_g g + b)),   x -> a x

W_x has a stride to the grid of g, where the sum is computed; a is interpolated back to the grid of x.

Adapted to small and anisotropic patches: W_x has the plan's stride as its kernel, so an axis that is not halved is not
coarsened. As in the paper the finest skip has no gate, because its features are too simple to choose voxels by; in a
network of two stages it is the only skip and has one. As in the paper gates start open: their score is zero plus a constant,
so that every voxel passes with the weight sigmoid(3) = 0.95. Half of the skip's channels are used in the sum.
"""

import torch
from torch import nn
from torch.nn import functional

from autoseg.networks.blocks import conv_stack
from autoseg.networks.encoder import Encoder
from autoseg.networks.heads import Ends
from autoseg.networks.unet import UNet
from planners.axes import Triple
from planners.plan import NetworkSpec

__all__ = ["AttentionGate", "build_attention_gate_unet"]

OPEN = 3.0  # score at the start


class AttentionGate(nn.Module):
    """Additive attention on a grid.

    Args:
        skip, below: channels of the skip connection and of the gating features.
        stride: (3,) stride between their grids.
    """

    def __init__(self, skip: int, below: int, stride: Triple) -> None:
        super().__init__()
        middle = max(1, skip // 2)
        self.from_skip = nn.Conv3d(skip, middle, stride, stride, bias=False)
        self.from_below = nn.Conv3d(below, middle, 1)
        self.score = nn.Conv3d(middle, 1, 1)

    def weights(self, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        """(B, 1, Z, Y, X) in (0, 1), on the grid of ``skip``."""
        score = self.score(functional.relu(self.from_skip(skip) + self.from_below(below)))
        return functional.interpolate(torch.sigmoid(score), size=skip.shape[2:], mode="trilinear", align_corners=False)

    def forward(self, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        return skip * self.weights(skip, below)


def build_attention_gate_unet(spec: NetworkSpec, ends: Ends) -> nn.Module:
    """The plain U-Net with gates on all skips but the finest."""
    features, strides = spec.features, spec.strides
    skips = len(features) - 1
    gates = [AttentionGate(features[s], features[s + 1], strides[s + 1]) for s in range(min(1, max(0, skips - 1)), skips)]
    network = UNet(spec, ends, Encoder(spec, conv_stack), gates)
    for gate in gates:
        nn.init.zeros_(gate.score.weight)
        nn.init.constant_(gate.score.bias, OPEN)  # type: ignore[arg-type]
    return network
