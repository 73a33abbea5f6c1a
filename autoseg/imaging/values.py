"""The values in a label map."""

from __future__ import annotations

from collections import Counter

import numpy as np

__all__ = ["count_values"]

LARGEST_RANGE = 2**16  # of values that are counted with a table


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
