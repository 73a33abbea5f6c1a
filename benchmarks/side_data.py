"""Data for the stages of ``side_by_side.py``, the same for both sides; needs only numpy and scipy."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

BEFORE, AFTER, CURRENT_SPACING = (200, 256, 256), (300, 205, 205), (1.5, 0.8, 0.8)
NEW_SPACING = tuple(spacing * n / m for spacing, n, m in zip(CURRENT_SPACING, BEFORE, AFTER, strict=True))
LABELS, SAMPLES, BATCH, PATCH, STEPS = 8, 40, 2, (40, 56, 40), 5


def noisy_scan() -> tuple[np.ndarray, np.ndarray]:
    """(image (1, Z, Y, X) float32 of smooth noise, labels (Z, Y, X) int16 with an ellipsoid for each)."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=BEFORE).astype(np.float32), 2)[None]
    return image, class_maps(LABELS + 1, BEFORE)


def class_maps(classes: int, shape: int | tuple[int, ...]) -> np.ndarray:
    """(Z, Y, X) int16: an ellipsoid for each class above 0."""
    rng = np.random.default_rng(1)
    shape = (shape,) * 3 if isinstance(shape, int) else shape
    grid = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    labels = np.zeros(shape, np.int16)
    for value in range(1, classes):
        centre, radii = rng.uniform(-0.7, 0.7, 3), rng.uniform(0.05, 0.3, 3)
        labels[sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) < 1] = value
    return labels


def scores(labels: np.ndarray, classes: int) -> np.ndarray:
    """Logits (C, Z, Y, X) float32: high for the class of each voxel, noise for all others."""
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((classes, *labels.shape), np.float32)
    np.put_along_axis(logits, labels[None].astype(np.int64), 8.0, axis=0)
    return logits


def boxes(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(image (1, Z, Y, X) float32, labels (Z, Y, X) int16) to augment."""
    labels = class_maps(3, tuple(size))
    return labels[None].astype(np.float32) + np.random.default_rng(0).standard_normal((1, *size), np.float32), labels
