"""The decoder of a U-Net: back to the grid of the image, with logits at every resolution."""

from collections.abc import Sequence

import torch
from torch import nn

from autoseg.networks.blocks import Enlargement, conv_stack
from autoseg.networks.scores import Head, Logits
from planners.plan import NetworkSpec

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """Transposed convolutions, concatenation with the encoder's features, convolutions, and 1 x 1 x 1 heads.

    Entry s of ``ups``, ``stages`` and ``heads`` belongs to stage s, finest first. A network of a single stage has only a
    head on the encoder's features. Without ``spec.deep_supervision`` only the finest head exists.

    Args:
        spec: NetworkSpec.
        gates: modules ``gate(skip, below) -> skip`` for the coarsest skip connections, finest first.
        lazy_logits: return Scores instead of logits.
    """

    def __init__(self, spec: NetworkSpec, gates: Sequence[nn.Module] = (), *, lazy_logits: bool = False) -> None:
        super().__init__()
        features = spec.features
        levels = range(len(features) - 1)
        self.ups = nn.ModuleList(Enlargement(features[s + 1], features[s], spec.strides[s + 1]) for s in levels)
        self.stages = nn.ModuleList(
            conv_stack(2 * features[s], features[s], spec.kernels[s], blocks=spec.decoder_blocks[s]) for s in levels
        )
        self.gates = nn.ModuleList(gates)
        scales = max(1, len(levels)) if spec.deep_supervision else 1
        self.heads = nn.ModuleList(Head(features[s], spec.out_channels, lazy=lazy_logits) for s in range(scales))

    def forward(self, features: list[torch.Tensor], every_scale: bool = False) -> tuple[Logits | list[Logits], torch.Tensor]:
        """Logits from the encoder's features.

        Args:
            features: list of (B, F, z, y, x), finest first; emptied during the pass to free memory.
            every_scale: return all outputs instead of the finest.

        Returns:
            (logits, features): logits (B, K, Z, Y, X), or a list of logits at each head's scale, finest first; and the input
            of the finest head.
        """
        x = features.pop()
        outputs = [] if self.stages else [self.heads[0](x)]
        for s in reversed(range(len(self.stages))):
            x = self.stages[s](torch.cat((self.ups[s](x), self._gated(s, features.pop(), x)), dim=1))
            if s == 0 or (every_scale and s < len(self.heads)):
                outputs.append(self.heads[s](x))
        return (outputs[::-1] if every_scale else outputs[-1]), x

    def _gated(self, s: int, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        ungated = len(self.stages) - len(self.gates)
        return skip if s < ungated else self.gates[s - ungated](skip, below)
