"""The values in a label map, and which of them are structures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from autoseg.data.labels import LabelSchema

__all__ = ["count_structures", "count_values", "unknown_values"]


def count_values(data: np.ndarray) -> dict[int, int]:
    """Voxels of each value of a (Z, Y, X) label map; needs memory for one plane at a time."""
    found: Counter[int] = Counter()
    for plane in data:
        values, counts = np.unique(plane, return_counts=True)
        found.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return dict(found)


def count_structures(data: np.ndarray, labels: LabelSchema) -> list[int]:
    """Voxels of each structure of a (Z, Y, X) label map; a voxel in overlapping regions counts for each."""
    found: Mapping[int, int] = count_values(data)
    return [sum(found.get(value, 0) for value in set(group)) for group in labels.values]


def unknown_values(data: np.ndarray, labels: LabelSchema) -> frozenset[int]:
    """The values of a label map that are neither background, nor a structure, nor ``ignore``."""
    known = [*labels.declared_values, *([] if labels.ignore is None else [labels.ignore])]
    rest = data[~np.isin(data, known)]
    return frozenset(np.unique(rest).tolist()) if rest.size else frozenset()
