"""Specs of small networks."""

from dataclasses import replace
from typing import Any

from planners.plan import NetworkSpec


def small_unet(*features: int, blocks: int = 1, **changes: Any) -> NetworkSpec:
    """A U-Net for one channel and two classes: a stage for each number of features, each with half the voxels per axis.

    Args:
        blocks: convolutions in each stage.
        changes: other values of the spec.
    """
    n = len(features)
    spec = NetworkSpec(
        name="unet",
        in_channels=1,
        out_channels=2,
        features=features,
        strides=((1, 1, 1), *[(2, 2, 2)] * (n - 1)),
        kernels=((3, 3, 3),) * n,
        encoder_blocks=(blocks,) * n,
        decoder_blocks=(blocks,) * (n - 1),
    )
    return replace(spec, **changes)
