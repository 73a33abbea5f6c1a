"""What training needs of a prepared case, wherever its voxels lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Protocol

import numpy as np

__all__ = ["TrainingCase", "voxels_of"]


class TrainingCase(Protocol):
    """A prepared case on the network's grid.

    Attributes:
        case: its identifier.
        shape: (z, y, x) voxels.
        image: (C, z, y, x), read by slicing: on disk or in memory.
        codes: (z, y, x) label codes, likewise.
        locations: of the foreground: for each code that is there (N, 3) of its voxels, where a patch may be centred.
        unlabelled: numbers of the structures that nobody annotated in it.
        coarse: (z, y, x) codes of a coarse stage, likewise; None where there is none.
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
    """Voxels of all grids together."""
    return sum(prod(shape) for shape in shapes)
