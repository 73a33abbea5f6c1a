"""Bytes of files: read once, and checked while they are decompressed.

Compressed formats carry a checksum that common readers never reach: they stop after the last voxel. ``inflate`` goes to the
end of the stream and says what is wrong with it.
"""

from __future__ import annotations

import hashlib
import zlib
from os import PathLike
from pathlib import Path

import numpy as np

from autoseg.errors import FileError
from autoseg.imaging.geometry import Geometry

__all__ = ["REMEDY", "AnyPath", "Content", "digest_of", "inflate", "read_bytes"]

REMEDY = "Copy or export the file again."
AnyPath = str | PathLike[str]
Content = tuple[np.ndarray, Geometry, tuple[str, ...], str]  # what the readers of formats return, see ``files.FileContent``
_PIECE = 1 << 20
_ANY_HEADER = 47  # window bits: zlib finds out whether the stream is one of gzip or of zlib


def read_bytes(path: AnyPath) -> bytes:
    """All bytes of a file; ``FileError`` where there are none to be had."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: expected a readable file, found: {error.strerror}. Look at its path and rights.") from error
    if not raw:
        raise FileError(f"{path}: expected an image, found an empty file. {REMEDY}")
    return raw


def digest_of(*parts: bytes | bytearray | memoryview) -> str:
    """16 hexadecimal digits, BLAKE2b of the parts one after the other."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def inflate(raw: bytes | memoryview) -> tuple[bytearray, str | None]:
    """Decompress to the end; CRC and length of gzip, or the checksum of zlib, are compared.

    Args:
        raw: bytes of one or several streams of gzip or zlib; zeros behind the last one are padding.

    Returns:
        (bytearray, problem): what could be decompressed, and what is wrong as a phrase, or None.
    """
    out, stream, rest = bytearray(), zlib.decompressobj(_ANY_HEADER), memoryview(raw)
    try:
        while len(rest):
            out += stream.decompress(rest[:_PIECE])
            if not stream.eof:
                rest = rest[_PIECE:]
                continue
            rest = rest[len(rest[:_PIECE]) - len(stream.unused_data) :]
            if not any(rest[:_PIECE]):
                break
            stream = zlib.decompressobj(_ANY_HEADER)
    except zlib.error as error:
        return out, f"the compressed bytes are damaged ({error})"
    return out, None if stream.eof else "the compressed stream ends too early"
