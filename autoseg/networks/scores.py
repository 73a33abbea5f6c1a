"""The last layer of a network, from features to logits, which the caller may compute later.

With many structures the logits of a patch are by far the largest tensor in memory, while the features are small. So a network
with lazy logits returns ``Scores`` instead: the features and the layer. The caller then computes logits piece by piece and need
not keep them. Networks that interpolate their logits (FCN, DeepLab, PSPNet) have no such layer and always return logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from autoseg.networks.channels_last import lies_channels_last, weigh_channels_last

__all__ = ["Head", "Logits", "Output", "Scores"]


class Head(nn.Conv3d):
    """A 1 x 1 x 1 convolution from features to logits; a ``lazy`` one to Scores."""

    bias: nn.Parameter

    def __init__(self, inputs: int, outputs: int, *, lazy: bool = False) -> None:
        super().__init__(inputs, outputs, 1)
        self.lazy = lazy

    def forward(self, x: torch.Tensor) -> Logits:  # type: ignore[override]
        if self.lazy:
            return Scores(x, self.weight, self.bias)
        if lies_channels_last(x) and x.dtype == self.weight.dtype:
            return weigh_channels_last(x, self.weight, self.bias)
        return super().forward(x)


@dataclass(frozen=True, eq=False)
class Scores:
    """Logits (B, K, z, y, x) that are not computed yet.

    Attributes:
        features: (B, F, z, y, x).
        weight, bias: those of the Head, (K, F, 1, 1, 1) and (K,).
    """

    features: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.features), len(self.weight), *self.features.shape[2:]))

    def logits(self) -> torch.Tensor:
        """All logits, in the number format of the features."""
        weight, bias = (tensor.to(self.features.dtype) for tensor in (self.weight, self.bias))
        weights = weight.flatten(1).expand(len(self.features), -1, -1)
        return torch.baddbmm(bias[:, None], weights, self.features.flatten(2)).unflatten(2, self.features.shape[2:])

    def float(self) -> Scores:
        """The same in float32."""
        return replace(self, features=self.features.float())

    def slabs(self, elements: int) -> list[Scores]:
        """Parts along z of about ``elements`` logits each."""
        thickness = max(1, elements * self.shape[2] // max(1, self.shape.numel()))
        return [replace(self, features=part) for part in self.features.split(thickness, dim=2)]


Logits = torch.Tensor | Scores  # (B, K, z, y, x)
Output = Logits | list[Logits] | tuple[Logits | list[Logits], torch.Tensor]  # one scale or every scale; with restored image
