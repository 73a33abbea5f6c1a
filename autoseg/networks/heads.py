"""The restoration head, the second head of a network: it predicts the image without noise, blur and thick slices.

Its *body* reads only the image, at half the resolution, with residual blocks as in networks for super-resolution (Lim et al.
2017): restoring slices needs depth, which is cheap there (docs/experiments/restoration-slices.md). On the fine grid its output
is combined with the image, its detail (the image minus its local mean, scaled up: it contains noise and blur) and the
finest map of the network, which has the width of the first stage in all networks. With a decoder that is the decoder's last
map; FCN, DeepLab and PSPNet compute their logits on a coarse grid, so there it is the first stage of the encoder.

The slice thickness is known from a scan's spacing and is an input of the head. The head learns thick slices only along the last
axis: an image with thick slices along another axis is transposed first. So what is learned for one axis also applies to the
others, though less well.

The head predicts a correction, output = image + delta, clipped to [0, 1], on the scale of the stored intensities. It starts at
zero. In training the clipping passes gradients through; otherwise a voxel outside [0, 1] would get no gradient. The weights
are drawn from a copy of the random state, so the other weights of a network are the same with and without the head.
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
DETAIL = 10.0  # factor that brings the detail to the magnitude of the features


Slices = bool | torch.Tensor  # whether to restore, or the (B, 3) slice thickness in voxels


@dataclass(frozen=True)
class Ends:
    """Options for the end of a network. They change neither weights nor predictions.

    Attributes:
        lazy_logits: return Scores instead of logits, if the last layer is on the grid of the image (``scores``).
        restoration_detached: the restoration loss trains only its own head, not the features of the segmentation.
    """

    lazy_logits: bool = False
    restoration_detached: bool = False


class RestorationHead(nn.Module):
    """Downsampling, residual blocks, upsampling, and two convolutions on the fine grid.

    If it is ``detached``, gradients stop at its input, so that only the segmentation trains the features.
    """

    def __init__(self, spec: NetworkSpec, *, detached: bool = False) -> None:
        super().__init__()
        deep = any(kernel[0] > 1 for kernel in spec.kernels)  # False for a 2D network
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
            slices: (B, 3) slice thickness of each image along (z, y, x), in voxels; None if all are 1.
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
    """Two convolutions added to their input, without normalisation, which would lose the intensity scale."""

    def __init__(self, kernel: Triple) -> None:
        super().__init__()
        self.first, self.second = (convolution(WIDTH, WIDTH, kernel) for _ in range(2))
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(functional.leaky_relu(self.first(x), SLOPE, inplace=True))


def restoration_head(spec: NetworkSpec, ends: Ends) -> RestorationHead | None:
    """The restoration head of ``spec``, or None. It must be the last part of a network to be built, see the module."""
    return RestorationHead(spec, detached=ends.restoration_detached) if spec.restoration else None


def with_restored(
    head: RestorationHead | None, image: torch.Tensor, features: torch.Tensor, logits: Logits | list[Logits], restore: Slices
) -> Output:
    """The output of a network: its logits, or the pair of logits and restored image.

    ``restore`` is False, True, or the (B, 3) slice thickness, as for ``RestorationHead``.
    """
    if restore is False:
        return logits
    if head is None:
        raise ModelError("this network has no head that restores images: its spec says restoration false")
    return logits, head(image, features, None if restore is True else restore)


def restoration_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The weights of the restoration head; empty if ``network`` has none."""
    heads = [module for module in network.modules() if isinstance(module, RestorationHead)]
    return [parameter for head in heads for parameter in head.parameters()]
