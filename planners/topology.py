"""How often a network halves each axis, and how wide its kernels are, from voxel size and patch.

An axis is halved as long as enough voxels remain and it is not much coarser than the others, so that the deep stages
have nearly cubic voxels. Along coarse axes kernels are one voxel at first, and three once the other axes are as
coarse.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planners.axes import Triple, triple

__all__ = ["Topology", "choose_features", "choose_topology"]

MIN_EDGE = 4  # voxels that remain along an axis; nnU-Net
NEAR = 2.0  # spacings closer than this factor are treated alike; nnU-Net
WIDTH, MAX_WIDTH_3D, MAX_WIDTH_2D = 32, 320, 512  # features of the first stage, and at most; nnU-Net


@dataclass(frozen=True)
class Topology:
    """One stride and one kernel for each stage. ``patch`` is the requested size, rounded up to multiples of ``divisor``."""

    patch: Triple
    divisor: Triple
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]


def choose_topology(spacing_mm: Sequence[float], patch: Sequence[float]) -> Topology:
    """Strides and kernels for patches of about this size.

    Along an axis of one voxel, stride and kernel are 1. There are at least two stages, even for images too small to be
    halved by the rule.

    Args:
        spacing_mm: (3,) voxel size.
        patch: (3,) edges in voxels, positive; halves (from medians) are allowed.

    Returns:
        Topology
    """
    wide = [axis for axis in range(3) if patch[axis] > 1]
    size, mm, kernel = list(patch), list(spacing_mm), [1, 1, 1]
    strides, kernels = [(1, 1, 1)], []
    while (halved := _axes_to_halve(size, mm)) or len(strides) == 1:
        halved = halved or wide
        finest = min((mm[axis] for axis in wide), default=1)
        kernel = [3 if k == 3 or (axis in wide and mm[axis] / finest < NEAR) else 1 for axis, k in enumerate(kernel)]
        for axis in halved:
            mm[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
        kernels.append(triple(kernel))
        strides.append(triple(2 if axis in halved else 1 for axis in range(3)))
    kernels.append(triple(3 if axis in wide else 1 for axis in range(3)))
    divisor = triple(math.prod(stride[axis] for stride in strides) for axis in range(3))
    padded = triple(math.ceil(edge / d) * d for edge, d in zip(patch, divisor, strict=True))
    return Topology(padded, divisor, tuple(strides), tuple(kernels))


def choose_features(n_stages: int, slices: bool) -> tuple[int, ...]:
    """(n_stages,) widths: doubling, up to 320, or 512 for 2D slices."""
    return tuple(min(WIDTH * 2**stage, MAX_WIDTH_2D if slices else MAX_WIDTH_3D) for stage in range(n_stages))


def _axes_to_halve(size: Sequence[float], mm: Sequence[float]) -> list[int]:
    large = [axis for axis in range(3) if size[axis] >= 2 * MIN_EDGE]
    if not large:
        return []
    finest = min(mm[axis] for axis in large)
    near = [axis for axis in large if mm[axis] / finest < NEAR]
    if len(near) == 1 and size[near[0]] < 3 * MIN_EDGE:
        return []
    return near
