"""The protocol of a prepared case for training, on disk or in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Protocol

import numpy as np

__all__ = ["TrainingCase", "voxels_of"]


class TrainingCase(Protocol):
    """A prepared case on the network's grid.

    Attributes:
        case: identifier.
        shape: (z, y, x) voxels.
        image: (C, z, y, x), read by slicing: on disk or in memory.
        codes: (z, y, x) label codes, also read by slicing.
        locations: foreground voxels: for each code present (N, 3) indices, as possible centres of patches.
        unlabelled: indices of the structures that are not annotated in it.
        coarse: (z, y, x) codes of a coarse stage, also read by slicing; None without a coarse stage.
    """

    @property
    def case(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def image(self) -> Any: ...

    @property
    def codes(self) -> Any: ...

    @property
    def locations(self) -> Mapping[int, np.ndarray]: ...

    @property
    def unlabelled(self) -> tuple[int, ...]: ...

    @property
    def coarse(self) -> Any: ...


def voxels_of(shapes: Iterable[Iterable[int]]) -> int:
    """Total number of voxels of all grids."""
    return sum(prod(shape) for shape in shapes)
