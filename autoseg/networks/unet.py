"""The U-Net (Ronneberger, Fischer, Brox, MICCAI 2015, arXiv 1505.04597) with a plain or a residual encoder.

An encoder coarsens the grid stage by stage; a decoder refines it again and, at each stage, concatenates the encoder's features.

Adapted to 3D, small and anisotropic patches, as nnU-Net configures it (Isensee et al., Nature Methods 2021):

- one code path for volumes (Cicek et al., MICCAI 2016, arXiv 1606.06650) and slices, which are volumes of depth 1;
- stages, strides, kernels and widths are the plan's, so an axis of thick slices is halved later, or not at all;
- padded convolutions keep the grid, whereas the paper's lose the border; the first one of a stage has a stride instead of max
  pooling;
- instance normalisation, leaky ReLUs, and logits at every resolution for deep supervision.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from autoseg.networks.blocks import (
    ConvBlock,
    InputScaling,
    check_patch,
    conv_stack,
    initialise,
    residual_stack,
)
from autoseg.networks.decoder import Decoder
from autoseg.networks.encoder import Encoder
from autoseg.networks.heads import Ends, Slices, restoration_head, with_restored
from autoseg.networks.scores import Output
from planners.plan import NetworkSpec

__all__ = ["UNet", "build_residual_unet", "build_unet"]


class UNet(nn.Module):
    """Input scaling, encoder, decoder.

    ``network(x)`` returns logits (B, K, Z, Y, X) on the grid of ``x``; ``network(x, every_scale=True)`` the list of
    logits at each scale of deep supervision, finest first.

    Args:
        encoder: from the image to the features of each stage.
        gates: as for Decoder.
        attention: (stage, block) for blocks after the stages of the encoder. They are consumed one by one after all other
            weights are initialised, so with a generator the other weights are the same with and without blocks.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        ends: Ends,
        encoder: Encoder,
        gates: Sequence[nn.Module] = (),
        attention: Iterable[tuple[int, nn.Module]] = (),
    ) -> None:
        super().__init__()
        self.spec = spec
        self.scaling = InputScaling(spec.in_channels, spec.input_mean, spec.input_std)
        self.encoder = encoder
        self.decoder = Decoder(spec, gates, lazy_logits=ends.lazy_logits)
        initialise(self)
        for stage, block in attention:
            encoder.stages[stage].append(block)  # type: ignore[operator]
        self.restoration = restoration_head(spec, ends)

    def forward(self, x: torch.Tensor, every_scale: bool = False, restore: Slices = False) -> Output:
        image, x = x, self.scaling(x)
        check_patch(self.spec, x.shape[2:])
        logits, finest = self.decoder(self.encoder(x), every_scale)
        return with_restored(self.restoration, image, finest, logits, restore)


def build_unet(spec: NetworkSpec, ends: Ends, attention: Iterable[tuple[int, nn.Module]] = ()) -> UNet:
    """The plain U-Net: convolutions in each stage, the first one strided."""
    return UNet(spec, ends, Encoder(spec, conv_stack), attention=attention)


def build_residual_unet(spec: NetworkSpec, ends: Ends, attention: Iterable[tuple[int, nn.Module]] = ()) -> UNet:
    """The residual U-Net ("ResEnc"): a stem convolution, then residual blocks in each stage.

    Residual learning is of He et al., CVPR 2016 (arXiv 1512.03385), this encoder of nnU-Net (Isensee et al., MICCAI 2024,
    arXiv 2404.09556); the decoder is that of ``build_unet``. Blocks: ``blocks.ResidualBlock``.
    """
    stem = ConvBlock(spec.in_channels, spec.features[0], spec.kernels[0])
    return UNet(spec, ends, Encoder(spec, residual_stack, stem=stem, inputs=spec.features[0]), attention=attention)
