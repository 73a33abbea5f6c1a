"""The fully convolutional network, FCN-8s (Long, Shelhamer, Darrell, CVPR 2015, arXiv 1411.4038).

A 1 x 1 x 1 convolution computes scores from each of the coarse stages of a plain encoder. Starting from the coarsest, scores
are upsampled by a transposed convolution, which is initialised as linear interpolation and trained, and added to those of the
next finer stage. The finest sum is interpolated to the grid of the image.

Adapted to 3D, small and anisotropic patches:

- the finest stage with scores is at stride 8, as in the paper; if a network has fewer than three stages from there on, its
  three coarsest stages have scores (with a patch of 40 voxels those at strides 2, 4 and 8);
- upsampling follows the plan's strides axis by axis; an axis that was not halved is not upsampled;
- the encoder is the plan's: strided convolutions with instance normalisation replace VGG's max pooling, and the last stage
  replaces its two wide convolutions of kernel 7 with dropout;
- all stages are trained together. As in the paper, scores of finer stages start at zero.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from autoseg.networks.blocks import InputScaling, check_patch, conv_stack, initialise
from autoseg.networks.encoder import Encoder
from autoseg.networks.heads import Ends, Slices, restoration_head, with_restored
from autoseg.networks.scores import Output
from planners.axes import Triple, triple
from planners.plan import NetworkSpec

__all__ = ["FCN", "build_fcn", "finest_scored", "interpolation_kernel"]

FINEST_STRIDE = 8
SCORED = 3  # least number of stages with scores


def finest_scored(strides: Sequence[Triple]) -> int:
    """Index of the finest stage with scores."""
    reached: Triple = (1, 1, 1)
    coarse = len(strides)
    for stage, stride in enumerate(strides):
        reached = triple(r * s for r, s in zip(reached, stride, strict=True))
        if max(reached) >= FINEST_STRIDE:
            coarse = min(coarse, stage)
    return max(0, min(coarse, len(strides) - SCORED))


def interpolation_kernel(stride: Sequence[int]) -> torch.Tensor:
    """(kz, ky, kx) weights that make a transposed convolution of that stride a linear interpolation."""
    kernel = torch.ones(1, 1, 1)
    for axis, step in enumerate(stride):
        size = 2 * step - step % 2
        distance = (torch.arange(size) - (size - 1) / 2).abs() / step
        kernel = kernel * (1 - distance).reshape([-1 if a == axis else 1 for a in range(3)])
    return kernel


def _enlargement(classes: int, stride: Triple) -> nn.ConvTranspose3d:
    size, padding = triple(2 * step - step % 2 for step in stride), triple(step // 2 for step in stride)
    return nn.ConvTranspose3d(classes, classes, size, stride, padding, bias=False)


class FCN(nn.Module):
    """Input scaling, encoder, scores summed from coarse to fine. One output at every scale: the finest.

    ``spec.decoder_blocks`` and ``spec.deep_supervision`` have no effect.
    """

    def __init__(self, spec: NetworkSpec, ends: Ends) -> None:
        super().__init__()
        self.spec = spec
        self.scaling = InputScaling(spec.in_channels, spec.input_mean, spec.input_std)
        self.encoder = Encoder(spec, conv_stack)
        self.finest = finest_scored(spec.strides)
        scores = [nn.Conv3d(width, spec.out_channels, 1) for width in spec.features[self.finest :]]
        ups = [_enlargement(spec.out_channels, stride) for stride in spec.strides[self.finest + 1 :]]
        self.scores, self.ups = nn.ModuleList(scores), nn.ModuleList(ups)
        initialise(self)
        for score in scores[:-1]:
            nn.init.zeros_(score.weight)
        with torch.no_grad():
            for up in ups:
                kernel = interpolation_kernel(up.stride)
                up.weight.copy_(torch.eye(spec.out_channels)[..., None, None, None] * kernel)
        self.restoration = restoration_head(spec, ends)

    def forward(self, x: torch.Tensor, every_scale: bool = False, restore: Slices = False) -> Output:
        image, x = x, self.scaling(x)
        check_patch(self.spec, x.shape[2:])
        encoded = self.encoder(x)
        features = encoded[self.finest :]
        logits = self.scores[-1](features[-1])
        for s in reversed(range(len(self.ups))):
            logits = self.ups[s](logits) + self.scores[s](features[s])
        logits = functional.interpolate(logits, size=x.shape[2:], mode="trilinear", align_corners=False)
        return with_restored(self.restoration, image, encoded[0], [logits] if every_scale else logits, restore)


def build_fcn(spec: NetworkSpec, ends: Ends) -> nn.Module:
    """FCN-8s on the plan's plain encoder."""
    return FCN(spec, ends)
