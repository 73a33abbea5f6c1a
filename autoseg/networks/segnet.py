"""SegNet (Badrinarayanan, Kendall, Cipolla, TPAMI 2017, arXiv 1511.00561): unpooling with the indices of max pooling.

The encoder halves its grid by max pooling and stores the position of each maximum. The decoder puts its values at these
voxels, with zeros elsewhere, and convolves. Only these positions pass from encoder to decoder.

Adapted to 3D, small and anisotropic patches:

- pooling windows are the plan's strides, so an axis that is not halved is not pooled;
- the coarsest stage has its own convolutions, as in a U-Net, whereas none follow SegNet's last pooling: otherwise there
  would be two stages for a patch of 16 voxels;
- unpooling needs as many channels as the encoder stage of the indices, so a convolution reduces the channels before it, like
  the last one of each of SegNet's decoder stages;
- instance instead of batch normalisation, leaky ReLUs, and, as in the other networks with a decoder, logits at every
  resolution for deep supervision.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from autoseg.networks.blocks import ConvBlock, InputScaling, check_patch, conv_stack, initialise
from autoseg.networks.heads import Ends, Slices, restoration_head, with_restored
from autoseg.networks.scores import Head, Output
from planners.axes import Triple
from planners.plan import NetworkSpec

__all__ = ["SegNet", "build_segnet", "pool", "unpool"]


def pool(x: torch.Tensor, stride: Triple) -> tuple[torch.Tensor, torch.Tensor]:
    """The maximum of each window of (B, C, Z, Y, X), and its position, for ``unpool``."""
    return functional.max_pool3d(x, stride, stride, return_indices=True)


def unpool(x: torch.Tensor, places: torch.Tensor, stride: Triple) -> torch.Tensor:
    """The values of (B, C, z, y, x) at the positions of the maxima, zeros elsewhere.

    Equal to ``functional.max_unpool3d``, which cannot be traced (torch 2.13) and needs a kernel on every device. Windows do
    not overlap, so each position is written once.
    """
    grid = [edge * step for edge, step in zip(x.shape[2:], stride, strict=True)]
    empty = x.new_zeros((*x.shape[:2], math.prod(grid)))
    return empty.scatter(2, places.flatten(2), x.flatten(2)).unflatten(2, grid)


class SegNet(nn.Module):
    """Input scaling, pooling encoder, unpooling decoder, heads.

    Entry s of ``encoder``, ``decoder``, ``narrow`` and ``heads`` belongs to stage s, finest first; the last stage has
    an encoder only.
    """

    def __init__(self, spec: NetworkSpec, ends: Ends) -> None:
        super().__init__()
        self.spec = spec
        features, kernels = spec.features, spec.kernels
        widths = (spec.in_channels, *features)
        levels = range(len(features) - 1)
        self.scaling = InputScaling(spec.in_channels, spec.input_mean, spec.input_std)
        self.encoder = nn.ModuleList(
            conv_stack(widths[s], widths[s + 1], kernels[s], blocks=spec.encoder_blocks[s]) for s in range(len(features))
        )
        self.narrow = nn.ModuleList(ConvBlock(features[s + 1], features[s], kernels[s + 1]) for s in levels)
        self.decoder = nn.ModuleList(
            conv_stack(features[s], features[s], kernels[s], blocks=spec.decoder_blocks[s]) for s in levels
        )
        scales = max(1, len(levels)) if spec.deep_supervision else 1
        self.heads = nn.ModuleList(Head(features[s], spec.out_channels, lazy=ends.lazy_logits) for s in range(scales))
        initialise(self)
        self.restoration = restoration_head(spec, ends)

    def forward(self, x: torch.Tensor, every_scale: bool = False, restore: Slices = False) -> Output:
        image, x = x, self.scaling(x)
        check_patch(self.spec, x.shape[2:])
        x = self.encoder[0](x)
        places = []
        for s in range(1, len(self.encoder)):
            x, where = pool(x, self.spec.strides[s])
            places.append(where)
            x = self.encoder[s](x)
        outputs = [] if self.decoder else [self.heads[0](x)]
        for s in reversed(range(len(self.decoder))):
            x = self.decoder[s](unpool(self.narrow[s](x), places.pop(), self.spec.strides[s + 1]))
            if s == 0 or (every_scale and s < len(self.heads)):
                outputs.append(self.heads[s](x))
        return with_restored(self.restoration, image, x, outputs[::-1] if every_scale else outputs[-1], restore)


def build_segnet(spec: NetworkSpec, ends: Ends) -> nn.Module:
    """SegNet with the plan's stages."""
    return SegNet(spec, ends)
