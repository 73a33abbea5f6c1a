"""The U-Net (Ronneberger et al. 2015) with a plain or a residual encoder, as nnU-Net configures it."""

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
from autoseg.networks.heads import with_restored

__all__ = ["UNet", "build_residual_unet", "build_unet"]


class UNet(nn.Module):
    """Input scaling, encoder, decoder.

    ``network(x)`` gives logits (B, K, Z, Y, X) on the grid of ``x``; ``network(x, every_scale=True)`` the list of
    logits at each scale of deep supervision, finest first.
    """

    def __init__(self, spec, encoder, gates=()):
        super().__init__()
        self.spec = spec
        self.scaling = InputScaling(spec.in_channels, spec.input_mean, spec.input_std)
        self.encoder = encoder
        self.decoder = Decoder(spec, gates)
        initialise(self)

    def forward(self, x, every_scale=False, restore=False):
        image, x = x, self.scaling(x)
        check_patch(self.spec, x.shape[2:])
        logits, finest = self.decoder(self.encoder(x), every_scale)
        return with_restored(self, image, finest, logits, restore)


def build_unet(spec):
    """The plain U-Net: ``encoder_blocks`` convolutions per stage, the first one strided."""
    return UNet(spec, Encoder(spec, conv_stack))


def build_residual_unet(spec):
    """The residual U-Net ("ResEnc"): a stem convolution, then ``encoder_blocks`` residual blocks per stage."""
    stem = ConvBlock(spec.in_channels, spec.features[0], spec.kernels[0])
    return UNet(spec, Encoder(spec, residual_stack, stem=stem, inputs=spec.features[0]))
