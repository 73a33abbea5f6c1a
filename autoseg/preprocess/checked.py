"""Compressed arrays with checksums.

A blosc2 file is a frame around compressed chunks. A table (``FileSums``) holds a CRC-32 of each chunk and one of the
frame. The frame is checked when the file is opened, before decompression, and a chunk when one of its voxels is first
read: a flipped bit is an error, not another image. A valid chunk is not checked again while the file stays open and
unchanged, so a training run, which reads each chunk many times, checks it only once.
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
    """The checksums of a file.

    Attributes:
        name: name of the file.
        bytes: length of the file.
        frame: CRC-32 of all bytes outside chunks, in the order of the file.
        chunks: (offset, length, CRC-32) of each chunk, by its number; length 0 if it is part of the frame.
    """

    name: str
    bytes: int
    frame: int
    chunks: tuple[tuple[int, int, int], ...] = ()

    def gaps(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of the parts outside chunks."""
        end = 0
        for offset, length, _ in sorted(chunk for chunk in self.chunks if chunk[1]):
            if offset > end:
                yield end, offset - end
            end = offset + length
        if self.bytes > end:
            yield end, self.bytes - end


class Damage(AutosegError):
    """A file of a prepared case is damaged. The message names it and says how to prepare the case again."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(
            f"{folder}: the prepared case cannot be used: {what}\n"
            "autoseg plan_and_preprocess checks every prepared case and prepares damaged ones again."
        )


def write_array(path: Path, array: blosc2.NDArray) -> FileSums:
    """Write a compressed array from memory; returns the checksums of its file."""
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
    """Write any other file; returns its checksums."""
    path.write_bytes(content)
    return FileSums(path.name, len(content), zlib.crc32(content))


def read_checked(path: Path, sums: FileSums | None) -> bytes:
    """The bytes of a whole file without chunks; Damage if they do not match."""
    content = path.read_bytes()
    if sums and (len(content), zlib.crc32(content)) != (sums.bytes, sums.frame):
        raise Damage(path.parent, f"{path.name} is not what was written")
    return content


def refuse_unless_sound(path: Path, sums: FileSums) -> None:
    """Check every byte of a file; Damage if some do not match."""
    _refuse_another_frame(path, sums)
    with path.open("rb") as file:
        for number in range(len(sums.chunks)):
            _refuse_another_chunk(file, path, sums, number)


class CheckedArray:
    """A blosc2 array to read in parts: ``array[...]``, ``array[:, 3:9]`` give numpy arrays.

    Args:
        path: path of the file.
        sums: checksums of the file; None for files of older versions without checksums, which are read unchecked.

    Raises:
        Damage: the frame (when opened) or a chunk (when read) does not match.
    """

    def __init__(self, path: Path, sums: FileSums | None) -> None:
        self.path, self.sums = path, sums
        if sums:
            _refuse_another_frame(path, sums)
        mapped = None if os.name == "nt" else "r"  # Windows cannot replace a mapped file
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
            self._unseen = self._unseen - new  # a new set: another thread may be iterating over the old one
        with _blamed_on(self.path):
            return np.asarray(self._array[key])

    def _of_all_axes(self, key: Any) -> tuple[Any, ...]:
        """A key with an entry for each axis, also for ``...``, which blosc2 3.3 refuses if it stands for no axis."""
        key = key if isinstance(key, tuple) else (key,)
        at = next((place for place, part in enumerate(key) if part is Ellipsis), len(key))
        rest = key[at + 1 :]
        return (*key[:at], *(slice(None),) * (self.ndim - at - len(rest)), *rest)

    def _touched(self, key: tuple[Any, ...]) -> Iterator[int]:
        """Numbers of the chunks that ``array[key]`` reads; all chunks for entries that are neither numbers nor slices."""
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
    """The first and the last voxel of a slice or a number along an axis."""
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
    """Turn exceptions of blosc2 into Damage."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as fault:
        raise Damage(path.parent, f"{path.name}: {fault}") from fault
