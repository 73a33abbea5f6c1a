"""The probabilities that ``autoseg predict`` writes, ``CASE_probabilities.npz``, one head after the other.

Of many structures, all together are many times as large as the scan.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autoseg.errors import FileError, blamed_on

__all__ = ["read_heads"]


def read_heads(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The heads (Z, Y, X), in order; one is in memory at a time.

    Args:
        shape: expected shape (K, Z, Y, X) of the array ``probabilities``.

    Raises:
        FileError: another shape; a damaged file.
    """
    with (
        blamed_on(path, "an archive with probabilities"),
        zipfile.ZipFile(path) as archive,
        archive.open("probabilities.npy") as file,
    ):
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found, by_columns, kind = header(file)
        if found != shape:
            raise FileError(f"{path}: expected an array of {shape}, found {found}. Predict the case again")
        size = math.prod(shape[1:]) * kind.itemsize  # bytes of a head
        if by_columns:  # of another program; then no head lies in one piece
            yield from np.frombuffer(file.read(shape[0] * size), kind).reshape(shape[::-1]).T
            return
        for _ in range(shape[0]):
            yield np.frombuffer(file.read(size), kind).reshape(shape[1:])
