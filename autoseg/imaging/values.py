"""The values in a label map."""

from __future__ import annotations

from collections import Counter

import numpy as np

__all__ = ["count_values", "looks_like_labels"]

LARGEST_RANGE = 2**16  # of values that are counted with a table
MOST_LABELS = 256
MOST_BORDERS = 0.25  # of neighbours within structures, as a fraction; 0.16 in maps of 139 brain regions


def count_values(labels: np.ndarray) -> dict[int, int]:
    """{value: voxels} of an array (Z, Y, X) of whole numbers, ascending; needs memory for one plane at a time."""
    if not labels.size:
        return {}
    lowest, highest = int(labels.min()), int(labels.max())
    if highest - lowest < LARGEST_RANGE:
        counts = np.zeros(highest - lowest + 1, np.int64)
        for plane in labels:
            counts += np.bincount((plane.astype(np.int64) - lowest).ravel(), minlength=counts.size)
        return {int(at) + lowest: int(counts[at]) for at in np.flatnonzero(counts)}
    found: Counter[int] = Counter()
    for plane in labels:
        values, counts = np.unique(plane, return_counts=True)
        found.update({int(value): int(n) for value, n in zip(values, counts, strict=True)})
    return dict(sorted(found.items()))


def looks_like_labels(data: np.ndarray) -> bool:
    """Whether an array (C, Z, Y, X) looks like a label map: one channel of whole numbers from 0, few of them, 0 in half
    of the voxels or more, and elsewhere in pieces of one value."""
    if len(data) != 1 or data.min() != 0 or not np.isfinite(highest := data.max()) or highest <= 0:
        return False
    if data.dtype.kind == "f" and not all(np.array_equal(plane, np.rint(plane)) for plane in data[0]):
        return False
    inside = data[0] != 0
    if 2 * np.count_nonzero(inside) > inside.size or np.unique(data[0][inside]).size > MOST_LABELS:
        return False
    both = inside[..., 1:] & inside[..., :-1]
    borders = np.count_nonzero((data[0][..., 1:] != data[0][..., :-1]) & both)
    return bool(both.any() and borders <= MOST_BORDERS * np.count_nonzero(both))
