"""The second head of a network: the image as it would be without noise, blur and thick slices.

Its *body* looks at the image alone, on voxels twice as large, with residual blocks as networks for super-resolution have
them (Lim et al. 2017): bringing slices back takes depth, which is cheap there (docs/experiments/restoration-slices.md). What
it finds meets, on the fine grid, the image, its detail (the image minus its local mean, enlarged: noise and blur are in it)
and the finest map that the network computes, which has the width of the first stage in all of them. In networks with a decoder
that is the decoder's last; FCN, DeepLab and PSPNet compute their logits on a coarse grid, so there it is the first stage of
the encoder.

How thick slices are is known from a scan's spacing, so the head is told. It learns them along one axis only, the last: an image
with thick slices along another is turned until they lie there, so what is learned of one axis serves the others, if less well.

What is predicted is a correction, output = image + delta, clipped to [0, 1], on the scale of the stored intensities. It starts
as zero. In training the clipping passes gradients on, else a voxel that left [0, 1] would never be taught again. The
weights are drawn from a copy of the random state: a network has the same other weights with and without it.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from autoseg.errors import ModelError
from autoseg.networks.blocks import SLOPE, InputScaling, convolution
from autoseg.networks.scores import Logits, Output
from planners.axes import Triple
from planners.plan import NetworkSpec

__all__ = ["Ends", "RestorationHead", "Slices", "restoration_head", "restoration_parameters", "with_restored"]

WIDTH = 64  # channels of the body
BLOCKS = 4
MIXED = 8  # channels on the fine grid
DETAIL = 10.0  # brings it near the size of the features


Slices = bool | torch.Tensor  # whether to restore, or the (B, 3) thickness of the slices that are to be restored


@dataclass(frozen=True)
class Ends:
    """How a network ends, chosen by whoever builds it: neither changes a weight, or what a prediction finds.

    Attributes:
        lazy_logits: Scores in place of logits, where the last layer lies on the grid of the image (``scores``).
        restoration_detached: the restoration teaches its own head alone, and no feature that the segmentation uses.
    """

    lazy_logits: bool = False
    restoration_detached: bool = False


class RestorationHead(nn.Module):
    """Down, residual blocks, up, and two convolutions on the fine grid.

    Where it is ``detached`` its gradients stop here, so that the features serve the segmentation alone.
    """

    def __init__(self, spec: NetworkSpec, *, detached: bool = False) -> None:
        super().__init__()
        deep = any(kernel[0] > 1 for kernel in spec.kernels)  # else a 2D network
        kernel, stride = ((3, 3, 3), (2, 2, 2)) if deep else ((1, 3, 3), (1, 2, 2))
        channels = spec.in_channels
        with torch.random.fork_rng(devices=[]):
            self.scaling = InputScaling(channels, spec.input_mean, spec.input_std)
            self.down = nn.Conv3d(channels + 1, WIDTH, stride, stride)
            self.body = nn.Sequential(*(Residual(kernel) for _ in range(BLOCKS)))
            self.up = nn.ConvTranspose3d(WIDTH, MIXED, stride, stride)
            self.mix = convolution(MIXED + 2 * channels + spec.features[0], MIXED, kernel)
            self.correct = convolution(MIXED, channels, kernel)
        for parameter in self.correct.parameters():
            nn.init.zeros_(parameter)
        self.detached = detached

    def forward(self, image: torch.Tensor, features: torch.Tensor, slices: torch.Tensor | None = None) -> torch.Tensor:
        """The restored image, float32.

        Args:
            image: (B, C, Z, Y, X).
            features: (B, F, Z, Y, X).
            slices: (B, 3) how many voxels a slice of each image is thick along (z, y, x), 1 where it is as thin as one; None
                where all are.
        """
        features = features.detach() if self.detached else features
        reach = [edge // 2 for edge in self.mix.kernel_size]
        mean = functional.avg_pool3d(image, self.mix.kernel_size, 1, reach, count_include_pad=False)
        fine = torch.cat([part.to(features.dtype) for part in (image, DETAIL * (image - mean), features)], dim=1)
        thick = [[1.0] * 3] * len(image) if slices is None else slices.tolist()
        axes = [max(range(3), key=lambda axis: (row[axis], axis)) for row in thick]
        voxels = image.new_tensor([max(row) for row in thick])
        delta = torch.empty_like(image)
        for axis in sorted(set(axes)):
            chosen = slice(None) if len(set(axes)) == 1 else [i for i, other in enumerate(axes) if other == axis]
            turned, turned_fine = (tensor[chosen].transpose(axis + 2, -1) for tensor in (image, fine))
            delta[chosen] = self._correction(turned, turned_fine, voxels[chosen]).float().transpose(axis + 2, -1)
        restored = image + delta
        clipped = restored.clamp(0, 1)
        return restored + (clipped - restored).detach() if self.training else clipped

    def _correction(self, image: torch.Tensor, fine: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        shape, stride = image.shape[2:], self.down.stride
        odd = [beyond for edge, step in zip(shape, stride, strict=True) for beyond in (-edge % step, 0)][::-1]
        thickness = voxels.log2().reshape(-1, 1, 1, 1, 1).expand(-1, 1, *shape)
        x = functional.pad(torch.cat((self.scaling(image), thickness), dim=1), odd, mode="replicate")
        x = functional.leaky_relu(self.down(x), SLOPE, inplace=True)
        x = self.up(functional.leaky_relu(self.body(x), SLOPE, inplace=True))[:, :, : shape[0], : shape[1], : shape[2]]
        x = functional.leaky_relu(self.mix(torch.cat((x.to(fine.dtype), fine), dim=1)), SLOPE, inplace=True)
        return self.correct(x)


class Residual(nn.Module):
    """Two convolutions added to their input, without normalisation, which would take away what intensities mean."""

    def __init__(self, kernel: Triple) -> None:
        super().__init__()
        self.first, self.second = (convolution(WIDTH, WIDTH, kernel) for _ in range(2))
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(functional.leaky_relu(self.first(x), SLOPE, inplace=True))


def restoration_head(spec: NetworkSpec, ends: Ends) -> RestorationHead | None:
    """The head that ``spec`` asks for, or None. It is the last part of a network to be made, see the top of this file."""
    return RestorationHead(spec, detached=ends.restoration_detached) if spec.restoration else None


def with_restored(
    head: RestorationHead | None, image: torch.Tensor, features: torch.Tensor, logits: Logits | list[Logits], restore: Slices
) -> Output:
    """What a network returns: its logits, or these and the restored image.

    ``restore`` is False, True, or the (B, 3) thickness of the slices, as ``RestorationHead`` takes it.
    """
    if restore is False:
        return logits
    if head is None:
        raise ModelError("this network has no head that restores images: its spec says restoration false")
    return logits, head(image, features, None if restore is True else restore)


def restoration_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The weights of the head that restores, empty where ``network`` has none."""
    heads = [module for module in network.modules() if isinstance(module, RestorationHead)]
    return [parameter for head in heads for parameter in head.parameters()]
