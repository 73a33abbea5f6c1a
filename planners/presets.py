"""Presets: which network a plan has and how large its feature maps may be.

An *element* is one number in a feature map that training keeps. A preset states how many elements fit into its
reference memory with the reference batch. nnU-Net's authors found these constants by trial on real cards, so they leave
room for weights, optimiser and workspace. They scale linearly with the memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PRESETS", "Preset", "get_preset", "unknown_name"]


@dataclass(frozen=True)
class Preset:
    """Constants of one planner family.

    Attributes:
        name: key in ``PRESETS``.
        network: key of ``autoseg.networks.NETWORKS``.
        memory_gb: memory of the card for which the numbers below were found.
        elements_3d, elements_2d: elements per sample, at a batch of 2 (3D) or 12 (2D).
        least_batch_2d: batch that a 2D patch must leave room for.
        data_share: fraction of the data set's voxels that one batch may hold, in parity mode.
        encoder_blocks: blocks of the encoder stages; the last entry repeats.
        decoder_blocks: convolutions of every decoder stage.
    """

    name: str
    network: str
    memory_gb: float
    elements_3d: float
    elements_2d: float
    least_batch_2d: int
    data_share: float
    encoder_blocks: tuple[int, ...]
    decoder_blocks: int


RESIDUAL_BLOCKS = (1, 3, 4, 6)

PRESETS = {
    "classic": Preset("classic", "unet", 8, 560e6, 85e6, 2, 0.05, (2,), 2),
    "m": Preset("m", "residual_unet", 8, 680e6, 135e6, 12, 1.0, RESIDUAL_BLOCKS, 1),
    "l": Preset("l", "residual_unet", 24, 2.1e9, 380e6, 12, 1.0, RESIDUAL_BLOCKS, 1),
    "xl": Preset("xl", "residual_unet", 40, 3.6e9, 560e6, 12, 1.0, RESIDUAL_BLOCKS, 1),
}


def get_preset(name: str) -> Preset:
    """The preset of that name. ValueError lists the known names if there is none."""
    if name not in PRESETS:
        raise ValueError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name."""
    return f"no {kind} called {name!r}. Known: {', '.join(sorted(known))}"
