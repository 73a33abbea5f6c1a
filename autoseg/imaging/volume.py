"""Voxels with their position in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Geometry

__all__ = ["LabelVolume", "Volume", "orient"]


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities: ``data`` (C, Z, Y, X) float32 on ``geometry``; read-only by convention. ``notes``: see ``read_volume``."""

    data: np.ndarray
    geometry: Geometry
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or self.data.shape[1:] != self.geometry.shape:
            raise GeometryError(f"an array of shape {self.data.shape} does not fill a grid of {self.geometry}")


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """Label values: ``data`` (Z, Y, X) integers on ``geometry``; read-only by convention.

    ``is_part``: the grid comes from a file that leaves out empty voxels, so it may be smaller than that of the scan.
    """

    data: np.ndarray
    geometry: Geometry
    is_part: bool = False

    def __post_init__(self) -> None:
        if self.data.shape != self.geometry.shape:
            raise GeometryError(f"an array of shape {self.data.shape} does not fill a grid of {self.geometry}")


def orient(array: np.ndarray, order: Sequence[int], flips: Sequence[int]) -> np.ndarray:
    """Transpose and flip the last three axes of an array; a view.

    ``order`` and ``flips`` as returned by ``Geometry.canonical``; leading axes (channels) are unchanged.
    """
    lead = array.ndim - 3
    axes = (*range(lead), *(lead + axis for axis in order))
    return np.flip(array.transpose(axes), tuple(lead + axis for axis in flips))
