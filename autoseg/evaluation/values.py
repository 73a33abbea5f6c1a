"""The values in a label map, and which of them are structures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.imaging.values import count_values

__all__ = ["count_structures", "unknown_values"]


def count_structures(data: np.ndarray, labels: LabelSchema) -> list[int]:
    """Voxels of each structure of a (Z, Y, X) label map; a voxel in overlapping regions counts for each."""
    found: Mapping[int, int] = count_values(data)
    return [sum(found.get(value, 0) for value in set(group)) for group in labels.values]


def unknown_values(data: np.ndarray, labels: LabelSchema) -> frozenset[int]:
    """The values of a label map that are neither background, nor a structure, nor ``ignore``."""
    return frozenset(count_values(data)) - {*labels.declared_values, *([] if labels.ignore is None else [labels.ignore])}
