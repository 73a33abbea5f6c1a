"""The second head of a network: the image as it would be without noise, blur and thick slices.

It reads the finest feature map that the network computes, which has the width of the first stage in all of them. In networks
with a decoder that is the decoder's last; FCN, DeepLab and PSPNet compute their logits on a coarse grid, so there it is
the first stage of the encoder, which sees few voxels around each but sees them sharply.

What is predicted is a correction, output = image + delta, clipped to [0, 1], on the scale of the stored intensities. It starts
as zero. The weights are drawn from a copy of the random state: a network has the same other weights with and without it.
"""

import torch
from torch import nn
from torch.nn import functional

from autoseg.networks.blocks import SLOPE, convolution

__all__ = ["RestorationHead", "with_restored"]


class RestorationHead(nn.Module):
    """A convolution with the kernel of the finest stage to a quarter of its width, and a 1 x 1 x 1 one to the channels.

    ``detached`` stops its gradients, so that the features serve the segmentation alone.
    """

    def __init__(self, spec):
        super().__init__()
        middle = max(spec.in_channels, 8, spec.features[0] // 4)
        with torch.random.fork_rng(devices=[]):
            self.mix = convolution(spec.features[0], middle, spec.kernels[0])
            self.correct = nn.Conv3d(middle, spec.in_channels, 1)
            nn.init.kaiming_normal_(self.mix.weight, a=SLOPE)
        for zero in (self.mix.bias, self.correct.weight, self.correct.bias):
            nn.init.zeros_(zero)
        self.detached = False

    def forward(self, image, features):
        """Image (B, C, Z, Y, X) and features (B, F, Z, Y, X) to the restored image, float32."""
        features = features.detach() if self.detached else features
        delta = self.correct(functional.leaky_relu(self.mix(features), SLOPE))
        return (image + delta.float()).clamp(0, 1)


def with_restored(network, image, features, logits, restore):
    """What a network returns: its logits, or these and the restored image where that is asked for."""
    return (logits, network.restoration(image, features)) if restore else logits
