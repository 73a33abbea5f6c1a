"""UNet++ (Zhou, Siddiquee, Tajbakhsh, Liang 2018, arXiv 1807.10165; TMI 2020, arXiv 1912.05074): nested, dense skips.

Node (i, j) is at stage i (0 is the finest), in column j. Column 0 is the encoder. Every other node convolves all nodes
before it in its row together with its upsampled lower left neighbour::

    (0,0) - (0,1) - (0,2)
    (1,0) - (1,1)               (i,j) from (i,0) ... (i,j-1) and (i+1,j-1)
    (2,0)

so the nodes of the first row are U-Nets of growing depth, each with its own head. The deepest gives the logits.

Adapted to 3D, small and anisotropic patches: strides, kernels and widths are the plan's; the encoder strides where the
paper pools; a node has as many convolutions as the plan's decoder stage, with instance normalisation.

Deep supervision is as in the paper: all heads are on the grid of the image, the deepest first. The loss weights of scales
then halve from depth to depth, and the shallowest has none, whereas the paper weights all depths equally.
"""

import torch
from torch import nn

from autoseg.networks.blocks import Enlargement, InputScaling, check_patch, conv_stack, initialise
from autoseg.networks.encoder import Encoder
from autoseg.networks.heads import Ends, Slices, restoration_head, with_restored
from autoseg.networks.scores import Head, Output
from planners.plan import NetworkSpec

__all__ = ["UNetPlusPlus", "build_unet_plus_plus"]


class UNetPlusPlus(nn.Module):
    """Input scaling, encoder, triangle of nodes, heads on the first row.

    ``nodes[i][j - 1]`` and ``ups[i][j - 1]`` belong to node (i, j); ``heads[k]`` reads node (0, depth - k). A network of a
    single stage has a head on the encoder's features.
    """

    def __init__(self, spec: NetworkSpec, ends: Ends) -> None:
        super().__init__()
        self.spec = spec
        features, strides = spec.features, spec.strides
        depth = len(features) - 1
        self.scaling = InputScaling(spec.in_channels, spec.input_mean, spec.input_std)
        self.encoder = Encoder(spec, conv_stack)
        self.ups = nn.ModuleList(
            nn.ModuleList(Enlargement(features[i + 1], features[i], strides[i + 1]) for _ in range(depth - i))
            for i in range(depth)
        )
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                conv_stack((j + 1) * features[i], features[i], spec.kernels[i], blocks=spec.decoder_blocks[i])
                for j in range(1, depth - i + 1)
            )
            for i in range(depth)
        )
        scales = max(1, depth) if spec.deep_supervision else 1
        self.heads = nn.ModuleList(Head(features[0], spec.out_channels, lazy=ends.lazy_logits) for _ in range(scales))
        initialise(self)
        self.restoration = restoration_head(spec, ends)

    def forward(self, x: torch.Tensor, every_scale: bool = False, restore: Slices = False) -> Output:
        image, x = x, self.scaling(x)
        check_patch(self.spec, x.shape[2:])
        rows = [[features] for features in self.encoder(x)]
        for j in range(1, len(rows)):
            for i in range(len(rows) - j):
                up = self.ups[i][j - 1](rows[i + 1][j - 1])  # type: ignore[index]
                rows[i].append(self.nodes[i][j - 1](torch.cat((*rows[i], up), dim=1)))  # type: ignore[index]
        logits = [head(rows[0][-1 - k]) for k, head in enumerate(self.heads if every_scale else self.heads[:1])]
        return with_restored(self.restoration, image, rows[0][-1], logits if every_scale else logits[0], restore)


def build_unet_plus_plus(spec: NetworkSpec, ends: Ends) -> nn.Module:
    """UNet++ with the plan's stages and a plain encoder."""
    return UNetPlusPlus(spec, ends)
