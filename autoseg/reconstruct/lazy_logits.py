"""Logits of many structures, in the memory of the few features that they are computed from.

A network's last layer is linear, and so is everything between it and the scan's grid: blending windows, averaging mirrorings
and folds, spline interpolation. So all of that is done with the features, and the last layer is applied at the end, head by
head and slab by slab.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["LazyLogits", "Logits", "all_finite", "slabs_along_z"]

_ELEMENTS = 1 << 22  # logits in memory at a time


class LazyLogits:
    """An array of logits (K, ...) float32, computed on access as ``weights @ features + bias``.

    ``logits[k]`` is an array, and iterating gives one head after the other. ``logits[a:b]`` and ``logits[:, z]`` are again
    LazyLogits; ``np.asarray`` computes all logits.

    Args:
        features: (F, ...) float32; not copied.
        weights: (K, F) float32.
        bias: (K,) float32.
    """

    def __init__(self, features: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> None:
        self.features, self.weights, self.bias = features, weights, bias
        self.shape = (len(weights), *features.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, key: Any) -> Any:
        head, *place = key if isinstance(key, tuple) else (key,)
        where = (slice(None), *place)
        features = self.features[where]
        if isinstance(head, slice):
            return LazyLogits(features, self.weights[head], self.bias[head])
        logit = np.full(features.shape[1:], self.bias[head])
        for weight, feature in zip(self.weights[head], features, strict=True):
            logit += weight * feature
        return logit

    def __iter__(self) -> Iterator[np.ndarray]:
        step = max(1, _ELEMENTS // max(1, math.prod(self.shape[1:])))
        for first in range(0, len(self), step):
            yield from np.asarray(self[first : first + step])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        logits = self.weights @ self.features.reshape(len(self.features), -1)
        logits += self.bias[:, None]
        return logits.reshape(self.shape).astype(dtype or np.float32, copy=False)

    def reshape(self, n_heads: int, *shape: int) -> LazyLogits:
        """The same heads with another shape of the voxel axes."""
        return LazyLogits(self.features.reshape(len(self.features), *shape), self.weights, self.bias)


Logits = np.ndarray | LazyLogits  # (K, z, y, x)


def all_finite(logits: Logits) -> bool:
    """Whether all logits (K, z, y, x) are finite; of LazyLogits, whether features, weights and bias are."""
    parts = (*logits.features, logits.weights, logits.bias) if isinstance(logits, LazyLogits) else logits
    return all(np.isfinite(part).all() for part in parts)


def slabs_along_z(logits: Logits) -> Iterator[tuple[slice, Logits]]:
    """Yield (slice of z, (K, z, y, x) logits there), slab by slab, each thin enough to compute many heads at once."""
    thickness = max(1, _ELEMENTS // 32 // math.prod(logits.shape[2:]))
    for start in range(0, logits.shape[1], thickness):
        part = slice(start, start + thickness)
        yield part, logits[:, part]
