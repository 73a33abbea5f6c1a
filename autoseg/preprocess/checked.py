"""Compressed arrays whose bytes are checked before they are believed.

A blosc2 file is a frame around compressed chunks. Beside the file stands a table (``FileSums``) with a CRC-32 of each
chunk and one of the frame. The frame is checked when the file is opened, before the decompressor sees it, and a chunk
when a voxel of it is first read: a flipped bit is an error, not another image. What was found sound is not looked at
again while the file stays open and as it is, so that a training run, which reads each chunk many times, pays for its first
reading alone.
"""

from __future__ import annotations

import math
import operator
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import blosc2
import numpy as np

from autoseg.errors import AutosegError

__all__ = ["CheckedArray", "Damage", "FileSums", "read_checked", "refuse_unless_sound", "write_array", "write_checked"]

SHORTEST_CHUNK = 64  # bytes; a shorter one may be a constant, which has no bytes of its own: it counts as part of the frame


@dataclass(frozen=True)
class FileSums:
    """What a file should hold.

    Attributes:
        name: of the file.
        bytes: its length.
        frame: CRC-32 of all that belongs to no chunk, in the order of the file.
        chunks: (offset, length, CRC-32) of each chunk, by its number; length 0 where it belongs to the frame.
    """

    name: str
    bytes: int
    frame: int
    chunks: tuple[tuple[int, int, int], ...] = ()

    def gaps(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what belongs to no chunk."""
        end = 0
        for offset, length, _ in sorted(chunk for chunk in self.chunks if chunk[1]):
            if offset > end:
                yield end, offset - end
            end = offset + length
        if self.bytes > end:
            yield end, self.bytes - end


class Damage(AutosegError):
    """A file of a prepared case is not what was written; says which, and how the case is prepared anew."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(
            f"{folder}: the prepared case cannot be used: {what}\n"
            "autoseg plan_and_preprocess checks every prepared case and prepares damaged ones again."
        )


def write_array(path: Path, array: blosc2.NDArray) -> FileSums:
    """Write a compressed array that lies in memory; returns the sums of its file."""
    content, chunks, end = array.to_cframe(), [], 0
    for number in range(array.schunk.nchunks):
        chunk = array.schunk.get_chunk(number)
        offset = content.find(chunk, end) if len(chunk) > SHORTEST_CHUNK else -1
        chunks.append((offset, len(chunk), zlib.crc32(chunk)) if offset >= 0 else (0, 0, 0))
        end = max(end, offset + len(chunk))
    path.write_bytes(content)
    sums = FileSums(path.name, len(content), 0, tuple(chunks))
    frame = zlib.crc32(b"".join(content[offset : offset + length] for offset, length in sums.gaps()))
    return replace(sums, frame=frame)


def write_checked(path: Path, content: bytes) -> FileSums:
    """Write any other file; returns its sums."""
    path.write_bytes(content)
    return FileSums(path.name, len(content), zlib.crc32(content))


def read_checked(path: Path, sums: FileSums | None) -> bytes:
    """The bytes of a whole file without chunks; Damage where they are others."""
    content = path.read_bytes()
    if sums and (len(content), zlib.crc32(content)) != (sums.bytes, sums.frame):
        raise Damage(path.parent, f"{path.name} is not what was written")
    return content


def refuse_unless_sound(path: Path, sums: FileSums) -> None:
    """Look at every byte of a file. Damage: some are not what was written."""
    _refuse_another_frame(path, sums)
    with path.open("rb") as file:
        for number in range(len(sums.chunks)):
            _refuse_another_chunk(file, path, sums, number)


class CheckedArray:
    """A blosc2 array to be read in parts: ``array[...]``, ``array[:, 3:9]`` give numpy arrays.

    Args:
        path: of the file.
        sums: of the file; None for one of a version that wrote none, which is read as it is.

    Raises:
        Damage: the frame, when it is opened, or a chunk, when it is read, is not what was written.
    """

    def __init__(self, path: Path, sums: FileSums | None) -> None:
        self.path, self.sums = path, sums
        if sums:
            _refuse_another_frame(path, sums)
        mapped = None if os.name == "nt" else "r"  # Windows cannot replace a file that is mapped
        with _blamed_on(path):
            self._array = blosc2.open(str(path), mode="r", mmap_mode=mapped)
        self.shape: tuple[int, ...] = self._array.shape
        self.dtype, self.ndim = self._array.dtype, self._array.ndim
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._unseen = {number for number, chunk in enumerate(sums.chunks) if chunk[1]} if sums else set()

    def __getitem__(self, key: Any) -> np.ndarray:
        key = self._of_all_axes(key)
        if self.sums and self._unseen and (new := self._unseen.intersection(self._touched(key))):
            with self.path.open("rb") as file:
                for number in sorted(new):
                    _refuse_another_chunk(file, self.path, self.sums, number)
            self._unseen = self._unseen - new  # another thread may be looking at the former set
        with _blamed_on(self.path):
            return np.asarray(self._array[key])

    def _of_all_axes(self, key: Any) -> tuple[Any, ...]:
        """A key with an entry for each axis, for ``...`` too, which blosc2 3.3 does not take where it stands for no axis."""
        key = key if isinstance(key, tuple) else (key,)
        at = next((place for place, part in enumerate(key) if part is Ellipsis), len(key))
        rest = key[at + 1 :]
        return (*key[:at], *(slice(None),) * (self.ndim - at - len(rest)), *rest)

    def _touched(self, key: tuple[Any, ...]) -> Iterator[int]:
        """Numbers of the chunks that ``array[key]`` reads; of all for entries that are neither numbers nor slices."""
        ranges, counts = [], [-(-edge // step) for edge, step in zip(self.shape, self._array.chunks, strict=True)]
        for part, edge, step, count in zip(key, self.shape, self._array.chunks, counts, strict=True):
            try:
                first, last = _ends(part, edge)
            except TypeError:
                first, last = 0, edge - 1
            ranges.append(range(max(0, first // step), min(count, last // step + 1)))
        for place in product(*ranges):
            number = 0
            for position, count in zip(place, counts, strict=True):
                number = number * count + position
            yield number


def _ends(part: Any, edge: int) -> tuple[int, int]:
    """The first and the last voxel along an axis that a slice or a number means."""
    if isinstance(part, slice):
        taken = range(*part.indices(edge))
        return (min(taken[0], taken[-1]), max(taken[0], taken[-1])) if taken else (0, -1)
    number = operator.index(part)
    number += edge if number < 0 else 0
    return number, number


def _refuse_another_frame(path: Path, sums: FileSums) -> None:
    found = 0
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length != sums.bytes:
            raise Damage(path.parent, f"{path.name}: expected {sums.bytes} bytes, found {length}")
        for offset, size in sums.gaps():
            file.seek(offset)
            found = zlib.crc32(file.read(size), found)
    if found != sums.frame:
        raise Damage(path.parent, f"the frame of {path.name} is not what was written")


def _refuse_another_chunk(file: BinaryIO, path: Path, sums: FileSums, number: int) -> None:
    offset, length, expected = sums.chunks[number]
    file.seek(offset)
    if length and zlib.crc32(file.read(length)) != expected:
        raise Damage(path.parent, f"chunk {number} of {path.name} is not what was written")


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """What blosc2 raises, as Damage."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as fault:
        raise Damage(path.parent, f"{path.name}: {fault}") from fault
