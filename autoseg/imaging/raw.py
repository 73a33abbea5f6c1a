"""Bytes of files: read once, and checked while they are decompressed.

Compressed formats carry a checksum that common readers never reach: they stop after the last voxel. ``inflate`` goes to the
end of the stream and says what is wrong with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.errors import REMEDY, FileError
from autoseg.imaging.geometry import Geometry

__all__ = [
    "REMEDY",
    "AnyPath",
    "Content",
    "digest_of",
    "free_memory",
    "inflate",
    "is_dicom_start",
    "read_bytes",
    "refuse_beyond_memory",
]

AnyPath = str | PathLike[str]
Content = tuple[np.ndarray, Geometry, tuple[str, ...], str]  # what the readers of formats return, see ``files.FileContent``
_PIECE = 1 << 20
_AT_ONCE = 1 << 20  # bytes that are unpacked in one go: few enough to lie in a cache until they are put in their place
# of a DICOM file without signature: groups, kinds and longest value of its first element, which has one of the lowest numbers
_FIRST_GROUPS, _FIRST_KINDS, _LONGEST_FIRST, _LAST_FIRST = (0x0002, 0x0008), (b"UL", b"CS", b"UI", b"DA"), 256, 0x0020
_ANY_HEADER = 47  # window bits: zlib finds out whether the stream is one of gzip or of zlib


def read_bytes(path: AnyPath, most: int | None = None) -> bytes:
    """All bytes of a file, or the first ones; ``FileError`` where there are none to be had."""
    try:
        if most is None:
            raw = Path(path).read_bytes()
        else:
            with open(path, "rb") as file:
                raw = file.read(most)
    except OSError as error:
        raise FileError(
            f"{path}: expected a readable file, found: {error.strerror}. Check its path and permissions."
        ) from error
    if not raw:
        raise FileError(f"{path}: expected an image, found an empty file. {REMEDY}")
    return raw


def is_dicom_start(start: bytes) -> bool:
    """Whether the first bytes of a file, 132 at least, are those of a DICOM file: with the signature, or without it, as old
    exports and data straight from a network are, with an element of the lowest groups."""
    if start[128:132] == b"DICM":
        return True
    group, element = int.from_bytes(start[:2], "little"), int.from_bytes(start[2:4], "little")
    length = int.from_bytes(start[4:8], "little")
    is_element = start[4:6] in _FIRST_KINDS or (length % 2 == 0 and 0 < length <= _LONGEST_FIRST)
    return len(start) >= 132 and group in _FIRST_GROUPS and element <= _LAST_FIRST and is_element


def digest_of(*parts: bytes | bytearray | memoryview | np.ndarray) -> str:
    """16 hexadecimal digits, BLAKE2b of the parts one after the other."""
    state = hashlib.blake2b(digest_size=8)
    content: Any
    for content in parts:
        state.update(content)
    return state.hexdigest()


def inflate(raw: bytes | memoryview, most: int | None = None) -> tuple[bytearray, str | None]:
    """Decompress to the end; CRC and length of gzip, or the checksum of zlib, are compared.

    Args:
        raw: bytes of one or several streams of gzip or zlib; zeros behind the last one are padding.
        most: bytes that there should be; soon behind them it stops, so that a small file cannot fill the memory.

    Returns:
        (bytearray, problem): what could be decompressed, and what is wrong as a phrase, or None.
    """
    out, stream, rest = bytearray(), zlib.decompressobj(_ANY_HEADER), memoryview(raw)
    whole = 0  # bytes of the streams that came to their end
    try:
        while True:
            piece = rest[:_PIECE]
            out += stream.decompress(piece, _AT_ONCE)
            if most is not None and len(out) > most + _AT_ONCE:
                return out, "more follow, so header and voxels do not belong together"
            if not stream.eof:
                rest = rest[len(piece) - len(stream.unconsumed_tail) :]
                if not len(piece):
                    break
                continue
            rest, whole = rest[len(piece) - len(stream.unused_data) :], len(out)
            if not any(rest[:_PIECE]):
                break
            stream = zlib.decompressobj(_ANY_HEADER)
    except zlib.error as error:
        if whole and len(out) == whole:
            return out, f"{len(rest)} bytes follow that are not compressed"
        return out, f"the compressed bytes are damaged ({error})"
    return out, None if stream.eof else "the compressed stream ends too early"


def refuse_beyond_memory(n_bytes: int, path: AnyPath) -> None:
    """``FileError`` where voxels would not fit into the memory that is free: asked before anything is allocated."""
    if n_bytes > _PIECE and (free := free_memory()) is not None and n_bytes > free:
        raise FileError(
            f"{path}: expected voxels that fit into memory, found {n_bytes / 2**30:.3g} GiB by its header; "
            f"{free / 2**30:.3g} GiB are free. Check whether the header is right, or use a machine with more memory."
        )


def free_memory() -> int | None:
    """Bytes that this process may still take; None where the system does not say."""
    free = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        said = Path("/proc/meminfo").read_text()
        free = 1024 * int(said.split("MemAvailable:")[1].split()[0])
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            free = max(0, limit - used) if free is None else max(0, min(free, limit - used))
    return free
