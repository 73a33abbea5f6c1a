"""The self-attention U-Net: a plain or residual U-Net with gated self-attention in the encoder stages that the plan names.

The block follows the last convolutions of its stage, and the decoder receives its output through the skip connection.
Gates start at zero, so a new network gives exactly the logits of its backbone, and attention is learned. The backbone's
weights have the names of ``unet`` or ``residual_unet``.
"""

from collections.abc import Iterator

import torch
from torch import nn

from autoseg.networks.attention import FullAttention, SlotAttention, attention_blocks
from autoseg.networks.heads import Ends
from autoseg.networks.unet import UNet, build_residual_unet, build_unet
from planners.plan import NetworkSpec

__all__ = ["attention_maps", "build_self_attention_unet", "close_gates", "slot_blocks"]

BACKBONES = {"plain": build_unet, "residual": build_residual_unet}


def build_self_attention_unet(spec: NetworkSpec, ends: Ends) -> nn.Module:
    """A plain or residual U-Net with gated self-attention in the encoder stages that the plan names."""
    return BACKBONES[spec.backbone](spec, ends, _blocks(spec))


def _blocks(spec: NetworkSpec) -> Iterator[tuple[int, nn.Module]]:
    """Yield (stage, block); each block is built on demand."""
    axes = tuple(axis for axis in range(3) if any(kernel[axis] > 1 for kernel in spec.kernels))
    for entry in spec.attention:
        width = spec.features[entry.stage]
        slot = entry.kind == "slot"
        yield entry.stage, SlotAttention(width, entry.heads, entry.slots) if slot else FullAttention(width, entry.heads, axes)


def close_gates(network: nn.Module) -> None:
    """Set the gates of all self-attention in ``network`` to zero, in place, so that only the backbone has an effect."""
    for block in attention_blocks(network):
        torch.nn.init.zeros_(block.gate)


@torch.no_grad()
def attention_maps(network: nn.Module, x: torch.Tensor) -> dict[int, torch.Tensor]:
    """The attention of the slots: a dictionary of stage -> (B, heads * slots, z, y, x) on the grid of that stage.

    Each map is positive and its sum over the voxels is 1. Empty for networks without slot attention. The network is not
    changed, so that other threads may use it at the same time. The decoder is not run.
    """
    found = {}
    if isinstance(network, UNet) and slot_blocks(network):
        x = network.encoder.stem(network.scaling(x))
        for stage, layers in enumerate(network.encoder.stages):
            for layer in layers.children():
                if isinstance(layer, SlotAttention):
                    found[stage] = layer.maps(x)
                x = layer(x)
    return found


def slot_blocks(network: nn.Module) -> dict[int, SlotAttention]:
    """{stage: SlotAttention} of a network; empty if it has none."""
    stages = enumerate(network.encoder.stages) if isinstance(network, UNet) else ()
    return {number: block for number, blocks in stages for block in blocks.children() if isinstance(block, SlotAttention)}
