"""Transforms that move voxels: rotation and scaling in one resampling, and mirroring.

A transform is two functions. ``sample_*(rng, setting, **options)`` draws its parameters, None for no change;
``apply_*(image, codes, **parameters)`` uses them. Image (C, z, y, x) and codes (z, y, x) move together. Sizes are in
voxels: as in nnU-Net, rotations ignore the spacing, and patches much flatter than wide are rotated in-plane only.

Images are interpolated linearly. The new code of a voxel is the one with the largest linear weight among its neighbours. This
equals the argmax of linearly interpolated one-hot maps, at a cost that does not grow with the number of labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn import functional

if TYPE_CHECKING:
    from autoseg.training.augment import Moved, Parameters, Setting

__all__ = [
    "apply_affine",
    "apply_mirror",
    "initial_patch_size",
    "is_flat",
    "rotation_limit",
    "sample_affine",
    "sample_mirror",
    "source_size",
]

Matrix = Sequence[Sequence[float]]
MIXED = torch.iinfo(torch.int16).min  # not a code: marks cells whose corners differ


def rotation_limit(patch: Sequence[int]) -> float:
    """Largest rotation in degrees for a patch of this shape (Isensee et al. 2021).

    180 for in-plane rotation, but 15 for a 2D patch more than 1.5 times longer than wide; 30 in 3D.
    """
    if patch[0] == 1:
        return 15.0 if max(patch[1:]) / min(patch[1:]) > 1.5 else 180.0
    return 180.0 if is_flat(patch) else 30.0


def is_flat(patch: Sequence[int]) -> bool:
    """Whether the first axis is too short for out-of-plane rotation: less than a third of the longest edge."""
    return max(patch) / patch[0] > 3 or patch[0] == 1


def initial_patch_size(patch: Sequence[int], *, rotation_degrees: float, smallest_scale: float = 0.85) -> tuple[int, ...]:
    """The box that holds ``patch`` rotated by up to ``rotation_degrees`` about one axis, divided by ``smallest_scale``.

    nnU-Net reads this box for every patch, 205^3 for 128^3 at 30 degrees. Here it is only the upper bound of a rotated
    patch; the box of one sample is ``source_size``. Axis 0 is unchanged if rotation is in-plane only.
    """
    limit = math.radians(rotation_degrees)
    turning = range(1, 3) if is_flat(patch) else range(3)
    size: list[float] = list(patch)
    for a, b in itertools.permutations(turning, 2):
        angle = min(limit, math.atan2(patch[b], patch[a]))  # where cos * p_a + sin * p_b is largest
        size[a] = max(size[a], math.cos(angle) * patch[a] + math.sin(angle) * patch[b])
    return tuple(int(edge / smallest_scale) if axis in turning else int(edge) for axis, edge in enumerate(size))


def source_size(patch: Sequence[int], matrix: ArrayLike) -> tuple[int, ...]:
    """The box to read that contains all voxels needed by ``matrix`` (2 x 2 for the last two axes, or 3 x 3).

    It has the same centre as the patch: each edge differs from the patch's by an even number. It is smaller than the patch
    if the matrix enlarges objects.
    """
    turn, edges = np.asarray(matrix), np.asarray(patch)
    turning = edges[-len(turn) :]
    half = np.abs(turn) @ (turning - 1) / 2
    more = np.ceil(half - (turning - 1) / 2 - 1e-6).astype(int)
    return (*edges[: -len(turn)].tolist(), *(turning + 2 * more).tolist())


def sample_affine(
    rng: np.random.Generator,
    setting: Setting,
    *,
    rotation_probability: float = 0.2,
    scaling_probability: float = 0.2,
    scale: tuple[float, float] = (0.7, 1.4),
) -> Parameters | None:
    """Rotation, by uniform angles within the limit for this patch, and scaling, by one factor for all rotated axes.

    Each happens with its own probability. A scale above 1 makes objects smaller.
    """
    rotates = rng.random() < rotation_probability
    scales = rng.random() < scaling_probability
    if not rotates and not scales:
        return None
    axes = 2 if is_flat(setting.patch_size) else 3
    limit = math.radians(rotation_limit(setting.patch_size))
    matrix = np.eye(axes)
    if rotates:
        for a, b in itertools.combinations(range(axes), 2):
            matrix = matrix @ _rotation(axes, a, b, rng.uniform(-limit, limit))
    if scales:
        matrix = matrix * rng.uniform(*scale)
    return {
        "matrix": tuple(map(tuple, matrix.tolist())),
        "patch_size": setting.patch_size,
        "source_size": source_size(setting.patch_size, matrix),
    }


def apply_affine(
    image: torch.Tensor, codes: torch.Tensor, matrix: Matrix, patch_size: Sequence[int], source_size: Sequence[int]
) -> Moved:
    """The patch whose voxel at offset d from its centre is the source at offset ``matrix @ d`` from the source's centre.

    Args:
        image, codes: (C, *source_size) and (*source_size); outside the box the edge voxels are repeated.
        matrix: 2 x 2 to transform each slice; or 3 x 3.
        patch_size: (z, y, x) of the result.
    """
    axes = len(matrix)
    inner = patch_size[-axes:]
    points = _points(matrix, inner, source_size[-axes:], image.device)
    slices = codes.reshape(-1, *codes.shape[-axes:])
    moved = _sample_linear(image.reshape(-1, *codes.shape[-axes:]), points)
    return moved.reshape(len(image), *patch_size), _sample_codes(slices, points).reshape(patch_size)


def sample_mirror(rng: np.random.Generator, setting: Setting) -> Parameters | None:
    """Each axis that may be mirrored, with probability 1/2."""
    axes = tuple(axis for axis in setting.mirror_axes if rng.random() < 0.5)
    return {"axes": axes} if axes else None


def apply_mirror(image: torch.Tensor, codes: torch.Tensor, axes: tuple[int, ...]) -> Moved:
    """Image and codes flipped along ``axes`` of (z, y, x)."""
    return image.flip([axis + 1 for axis in axes]), codes.flip(axes)


def _rotation(axes: int, a: int, b: int, angle: float) -> np.ndarray:
    matrix = np.eye(axes)
    matrix[[a, b], [a, b]] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix


def _points(matrix: Matrix, size: Sequence[int], source: Sequence[int], device: torch.device) -> list[torch.Tensor]:
    """Source index along each axis for every voxel of the result: list of tensors of shape ``size``."""
    offsets = []
    for axis, edge in enumerate(size):
        shape = [-1 if other == axis else 1 for other in range(len(size))]
        offsets.append((torch.arange(edge, device=device, dtype=torch.float32) - (edge - 1) / 2).reshape(shape))
    return [
        cast(torch.Tensor, sum((m * d for m, d in zip(row, offsets, strict=True)), start=(edge - 1) / 2)).clamp_(0, edge - 1)
        for row, edge in zip(matrix, source, strict=True)
    ]


def _sample_linear(stack: torch.Tensor, points: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, *source) at ``points``, linearly."""
    # grid_sample takes (x, y, z), with the faces of the box at -1 and 1
    faces = [(2 * point + 1) / edge - 1 for point, edge in zip(points[::-1], stack.shape[:0:-1], strict=True)]
    grid = torch.stack(faces, dim=-1)[None]
    return functional.grid_sample(stack[None], grid, padding_mode="border", align_corners=False)[0]


def _sample_codes(stack: torch.Tensor, points: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, *source) integer codes at ``points``: the code with the largest linear weight.

    If all corners of the cell around a point agree, no weights are needed. Only the other voxels, a few percent, are
    voted on.
    """
    cells = _agreed(stack)
    lower = [point.floor().clamp_(max=edge - 1) for point, edge in zip(points, cells.shape[1:], strict=True)]
    result = cells.flatten(1).index_select(1, _flat_index(lower, cells.shape[1:]).flatten())
    layer, voxel = (result == MIXED).nonzero(as_tuple=True)
    lower = [low.flatten()[voxel] for low in lower]
    fractions = [point.flatten()[voxel] - low for point, low in zip(points, lower, strict=True)]
    result[layer, voxel] = _vote(stack, layer, lower, fractions)
    return result


def _agreed(stack: torch.Tensor) -> torch.Tensor:
    """For every cell, indexed by its lowest corner, the code of all its corners; ``MIXED`` if they differ."""
    low = high = stack
    for axis in range(1, stack.ndim):
        rest = stack.shape[axis] - 1
        if rest:
            low = torch.minimum(low.narrow(axis, 0, rest), low.narrow(axis, 1, rest))
            high = torch.maximum(high.narrow(axis, 0, rest), high.narrow(axis, 1, rest))
    return torch.where(low == high, low, MIXED)


def _flat_index(index: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    """Integer position in a flattened array of ``shape``, from one float tensor per axis."""
    flat = index[0].int()
    for along, edge in zip(index[1:], shape[1:], strict=True):
        flat = flat.mul_(edge).add_(along.int())
    return flat


def _vote(
    stack: torch.Tensor, layer: torch.Tensor, lower: Sequence[torch.Tensor], fractions: Sequence[torch.Tensor]
) -> torch.Tensor:
    """(N,) codes: in cell ``lower`` of each ``layer``, the code with the largest sum of linear corner weights.

    In a tie the code of the first corner wins.
    """
    corners, weights = [], []
    for bits in itertools.product((0, 1), repeat=len(lower)):
        corner = [(low + bit).clamp_(max=edge - 1) for low, bit, edge in zip(lower, bits, stack.shape[1:], strict=True)]
        corners.append(stack.flatten(1)[layer, _flat_index(corner, stack.shape[1:])])
        weight = math.prod(f if bit else 1 - f for bit, f in zip(bits, fractions, strict=True))
        weights.append(cast(torch.Tensor, weight))
    best, most = corners[0], torch.zeros_like(weights[0])
    for code in corners:
        support = cast(torch.Tensor, sum(weight * (other == code) for weight, other in zip(weights, corners, strict=True)))
        best = torch.where(support > most, code, best)
        most = torch.maximum(support, most)
    return best
