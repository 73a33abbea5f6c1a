"""The second head of a network: the image as it would be without noise, blur and thick slices.

It reads the finest feature map that the network computes, which has the width of the first stage in all of them. In networks
with a decoder that is the decoder's last; FCN, DeepLab and PSPNet compute their logits on a coarse grid, so there it is
the first stage of the encoder, which sees few voxels around each but sees them sharply.

Features are normalised and know nothing of absolute intensities, so the head reads the image beside them, and its detail, the
image minus its local mean, enlarged: noise and blur are in the detail, which is small beside the rest.
What is predicted is a correction, output = image + delta, clipped to [0, 1], on the scale of the stored intensities. It starts
as zero. In training the clipping passes gradients on, else a voxel that left [0, 1] would never be taught again. The
weights are drawn from a copy of the random state: a network has the same other weights with and without it.
"""

import torch
from torch import nn
from torch.nn import functional

from autoseg.networks.blocks import SLOPE, convolution

__all__ = ["RestorationHead", "with_restored"]

WIDTH = 16  # channels in between, at least
DETAIL = 10.0  # brings it near the size of the features


class RestorationHead(nn.Module):
    """Two convolutions with the kernel of the finest stage, 16 wide, and a 1 x 1 x 1 one to the channels, beside one alone.

    That one is a linear filter. It learns at once, in tens of steps, what the others need hundreds for.

    ``detached`` stops its gradients, so that the features serve the segmentation alone.
    """

    def __init__(self, spec):
        super().__init__()
        width = max(spec.in_channels, WIDTH)
        with torch.random.fork_rng(devices=[]):
            self.mix = convolution(2 * spec.in_channels + spec.features[0], width, spec.kernels[0])
            self.refine = convolution(width, width, spec.kernels[0])
            self.direct = convolution(2 * spec.in_channels + spec.features[0], spec.in_channels, spec.kernels[0])
            self.correct = nn.Conv3d(width, spec.in_channels, 1)
            for layer in (self.mix, self.refine):
                nn.init.kaiming_normal_(layer.weight, a=SLOPE)
        for bias in (self.mix.bias, self.refine.bias):
            nn.init.zeros_(bias)
        for last in (self.direct, self.correct):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.detached = False

    def forward(self, image, features):
        """Image (B, C, Z, Y, X) and features (B, F, Z, Y, X) to the restored image, float32."""
        features = features.detach() if self.detached else features
        reach = [edge // 2 for edge in self.mix.kernel_size]
        mean = functional.avg_pool3d(image, self.mix.kernel_size, 1, reach, count_include_pad=False)
        x = torch.cat((image, DETAIL * (image - mean), features.float()), dim=1)
        delta = self.direct(x).float()
        for layer in (self.mix, self.refine):
            x = functional.leaky_relu(layer(x), SLOPE, inplace=True)
        restored = image + delta + self.correct(x).float()
        clipped = restored.clamp(0, 1)
        return restored + (clipped - restored).detach() if self.training else clipped


def with_restored(network, image, features, logits, restore):
    """What a network returns: its logits, or these and the restored image where that is asked for."""
    return (logits, network.restoration(image, features)) if restore else logits
