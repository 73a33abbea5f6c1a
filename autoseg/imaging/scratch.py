"""Arrays that may be too large for memory, such as one score per voxel and structure."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["LARGEST_IN_MEMORY", "scratch_zeros"]

LARGEST_IN_MEMORY = 2**30  # bytes


def scratch_zeros(shape: Sequence[int], dtype: DTypeLike = np.float32, folder: str | PathLike[str] | None = None) -> np.ndarray:
    """Zeros: in memory up to ``LARGEST_IN_MEMORY``, beyond that in a file, if there is room.

    The file has no name and disappears with the array, even if the process is killed (on Windows its name remains until
    then). The system keeps as much of it in memory as it can.

    Args:
        folder: folder of the file, created if missing; None for the system's temporary folder.

    Returns:
        A writable array.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes > LARGEST_IN_MEMORY:
        with contextlib.suppress(OSError):  # missing folder, or no room in it
            return np.frombuffer(_mapped(n_bytes, folder), dtype).reshape(shape)
    return np.zeros(shape, dtype)


def _mapped(n_bytes: int, folder: str | PathLike[str] | None) -> mmap.mmap:
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a crash later
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            file.truncate(n_bytes)
        return mmap.mmap(file.fileno(), n_bytes)
