"""The encoder of a U-Net: one stage per resolution, each passing its features to the decoder."""

from collections.abc import Callable

import torch
from torch import nn

from planners.plan import NetworkSpec

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """Stages that coarsen the grid.

    Args:
        spec: NetworkSpec; its features, kernels, strides and encoder_blocks are used.
        stack: ``stack(inputs, outputs, kernel, stride, blocks=n) -> Module`` builds a stage, such as ``conv_stack``.
        stem: module before the first stage, or None.
        inputs: input channels of the first stage: those of the image unless a stem changes them.
    """

    def __init__(
        self, spec: NetworkSpec, stack: Callable[..., nn.Module], *, stem: nn.Module | None = None, inputs: int | None = None
    ) -> None:
        super().__init__()
        widths = (spec.in_channels if inputs is None else inputs, *spec.features)
        self.stem = nn.Identity() if stem is None else stem
        self.stages = nn.ModuleList(
            stack(widths[s], widths[s + 1], spec.kernels[s], spec.strides[s], blocks=spec.encoder_blocks[s])
            for s in range(len(spec.features))
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, C, Z, Y, X) -> list of feature maps, finest first."""
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
