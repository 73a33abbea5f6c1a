"""The common part of DeepLab and PSPNet: networks that compute logits on a coarse grid and interpolate them.

Their encoder is a residual network whose last strides are replaced by dilated ("atrous") convolutions: the receptive
field is the same, and the grid stays finer. On that grid a *context* module covers the surroundings of each voxel at several
scales. A 1 x 1 x 1 head computes logits, which are trilinearly interpolated to the grid of the image.

Adapted from ResNet-101 on photographs (Chen et al. 2017; Zhao et al. 2017): the residual blocks, widths and kernels are
the plan's. At most six stages are built, the depth of ResNet; a plan for large slices has up to eight. Strides stop at 8
along each axis, the finer of the papers' grids. In shallower networks, for small patches, the last stage is also dilated, so
that structures of a few voxels survive. Axes that the plan does not halve are neither strided nor dilated.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from autoseg.networks.blocks import SLOPE, ConvBlock, InputScaling, check_patch, initialise, residual_stack
from autoseg.networks.encoder import Encoder
from autoseg.networks.heads import Ends, Slices, restoration_head, with_restored
from autoseg.networks.scores import Output
from planners.axes import Triple, triple
from planners.plan import NetworkSpec

__all__ = ["DilatedNetwork", "ImageBranch", "dilated_strides"]

STAGES = 6  # as ResNet: a stem and five halvings
FINEST_STRIDE = 8  # largest stride per axis


def dilated_strides(strides: Sequence[Triple]) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """The strides that are kept, and the dilation of each stage: two tuples of triples as long as ``strides``."""
    kept, rates = [], []
    reached: Triple = (1, 1, 1)
    rate: Triple = (1, 1, 1)
    for stage, stride in enumerate(strides):
        last = len(strides) > 2 and stage == len(strides) - 1
        stays = triple(1 if last or r * s > FINEST_STRIDE else s for r, s in zip(reached, stride, strict=True))
        rate = triple(d * s // k for d, s, k in zip(rate, stride, stays, strict=True))
        reached = triple(r * k for r, k in zip(reached, stays, strict=True))
        kept.append(stays)
        rates.append(rate)
    return tuple(kept), tuple(rates)


def _encoder(spec: NetworkSpec) -> Encoder:
    """The residual encoder of the first STAGES stages, dilated."""
    strides, rates = dilated_strides(spec.strides[:STAGES])
    short = replace(
        spec,
        features=spec.features[:STAGES],
        strides=strides,
        kernels=spec.kernels[:STAGES],
        encoder_blocks=spec.encoder_blocks[:STAGES],
        decoder_blocks=spec.decoder_blocks[: STAGES - 1],
        attention=(),
    )
    stem = ConvBlock(spec.in_channels, spec.features[0], spec.kernels[0])
    encoder = Encoder(short, residual_stack, stem=stem, inputs=spec.features[0])
    for stage, rate in zip(encoder.stages, rates, strict=True):
        for module in stage.modules():
            if isinstance(module, nn.Conv3d):
                module.dilation = rate
                module.padding = triple(d * (k // 2) for d, k in zip(rate, module.kernel_size, strict=True))
    return encoder


class ImageBranch(nn.Module):
    """A descriptor of the whole image, (B, W, 1, 1, 1): the mean of all voxels through two 1 x 1 x 1 convolutions.

    It has no normalisation, because one voxel has no variance. It must be added *after* the normalisation of the features
    that it joins. Instance normalisation subtracts from each channel its mean over the image, and this descriptor is constant
    over the image; before an instance normalisation it would have no effect. (The papers use batch normalisation.)
    """

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv3d(inputs, middle, 1)
        self.spread = nn.Conv3d(middle, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.spread(functional.leaky_relu(self.squeeze(x.mean((2, 3, 4), keepdim=True)), SLOPE))


class DilatedNetwork(nn.Module):
    """Input scaling, dilated encoder, context, head, enlargement. One output at every scale: the finest.

    Args:
        spec: NetworkSpec; it needs no decoder, so ``decoder_blocks`` and ``deep_supervision`` have no effect.
        context: ``context(inputs, outputs, kernel) -> Module`` from (B, inputs, z, y, x) to (B, outputs, z, y, x).
        widest: upper limit of ``outputs``, which otherwise is the width of the encoder.
    """

    def __init__(self, spec: NetworkSpec, context: Callable[[int, int, Triple], nn.Module], widest: int, ends: Ends) -> None:
        super().__init__()
        self.spec = spec
        self.scaling = InputScaling(spec.in_channels, spec.input_mean, spec.input_std)
        self.encoder = _encoder(spec)
        inputs = spec.features[:STAGES][-1]
        width = min(widest, inputs)
        self.context = context(inputs, width, spec.kernels[:STAGES][-1])
        self.head = nn.Conv3d(width, spec.out_channels, 1)
        initialise(self)
        self.restoration = restoration_head(spec, ends)

    def forward(self, x: torch.Tensor, every_scale: bool = False, restore: Slices = False) -> Output:
        image, x = x, self.scaling(x)
        check_patch(self.spec, x.shape[2:])
        features = self.encoder(x)
        logits = self.head(self.context(features[-1]))
        logits = functional.interpolate(logits, size=x.shape[2:], mode="trilinear", align_corners=False)
        return with_restored(self.restoration, image, features[0], [logits] if every_scale else logits, restore)
