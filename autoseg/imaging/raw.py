"""Bytes of files, read once and checked during decompression.

Compressed formats end with a checksum that common readers never reach, since they stop after the last voxel. ``inflate`` reads
to the end of the stream and reports faults.
"""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from zlib_ng import zlib_ng

from autoseg.errors import REMEDY, FileError
from autoseg.imaging.geometry import Geometry
from autoseg.room import free_memory

__all__ = [
    "REMEDY",
    "AnyPath",
    "Content",
    "digest_of",
    "inflate",
    "is_dicom_start",
    "read_bytes",
    "read_image_bytes",
    "refuse_beyond_memory",
]

AnyPath = str | PathLike[str]
Content = tuple[np.ndarray, Geometry, tuple[str, ...], str]  # result of a format's reader, see ``files.FileContent``
_PIECE = 1 << 20
_AT_ONCE = 1 << 20  # bytes unpacked at a time: few enough to stay in a cache until they are copied
# first element of a DICOM file without signature: its groups (among the lowest numbers), VRs and longest value
_FIRST_GROUPS, _FIRST_KINDS, _LONGEST_FIRST, _LAST_FIRST = (0x0002, 0x0008), (b"UL", b"CS", b"UI", b"DA"), 256, 0x0020
# what is called an image and begins so: what it is, and what to do
_NO_IMAGES = (
    (b"<!doctype html", "a web page", "Download the file again, in a browser if the site asks for a login."),
    (b"<html", "a web page", "Download the file again, in a browser if the site asks for a login."),
    (b"version https://git-lfs", "a pointer of Git LFS to it", "Fetch the file itself with `git lfs pull`."),
    (b"/annex/objects/", "a pointer of git-annex to it", "Fetch the file itself with `git annex get`."),
    (b"pk\3\4", "a zip archive", "Unpack it."),
)
_MOST_PACKED = 1032  # bytes that deflate packs into one at most (zlib's technical details)
_ANY_HEADER = 47  # window bits: zlib detects whether the stream is gzip or zlib


def read_bytes(path: AnyPath, most: int | None = None) -> bytes:
    """All bytes of a file, or the first ``most``; ``FileError`` if it is empty or cannot be read."""
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


def read_image_bytes(path: AnyPath, most: int | None = None) -> bytes:
    """As ``read_bytes``, for formats that begin otherwise than web pages, archives and pointers to files: these are named."""
    raw = read_bytes(path, most)
    for start, what, remedy in _NO_IMAGES:
        if raw[: len(start)].lower() == start:
            raise FileError(f"{path}: expected an image, found {what}. {remedy}")
    return raw


def is_dicom_start(start: bytes) -> bool:
    """Whether the first bytes of a file, at least 132, are DICOM: with the signature, or without it but with an element of
    the lowest groups, as in old exports and raw network data."""
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


def inflate(raw: bytes | memoryview, most: int) -> tuple[memoryview, str | None]:
    """Decompress to the end and check the CRC and length of gzip, or the checksum of zlib.

    Args:
        raw: bytes of one or several gzip or zlib streams; zeros after the last one are padding.
        most: expected bytes; decompression stops soon after them, so that a small file cannot fill the memory.

    Returns:
        (memoryview, problem): the decompressed bytes, and a fault as a phrase, or None.
    """
    room = min(max(most, 0), _MOST_PACKED * len(raw))  # a damaged header may ask for anything
    out: Any = np.empty(room + 2 * _AT_ONCE, np.uint8)  # the system gives memory to those parts alone that are written
    stream, rest = zlib_ng.decompressobj(_ANY_HEADER), memoryview(raw)
    done, whole = 0, 0  # bytes so far, and those of the complete streams
    problem = None
    try:
        while True:
            piece = rest[:_PIECE]
            found = stream.decompress(piece, _AT_ONCE)
            out[done : done + len(found)] = np.frombuffer(found, np.uint8)
            done += len(found)
            if done > most + _AT_ONCE:
                problem = "more follow, so header and voxels do not belong together"
                break
            if not stream.eof:
                rest = rest[len(piece) - len(stream.unconsumed_tail) :]
                if not len(piece):
                    problem = "the compressed stream ends too early"
                    break
                continue
            rest, whole = rest[len(piece) - len(stream.unused_data) :], done
            if not any(rest[:_PIECE]):
                break
            stream = zlib_ng.decompressobj(_ANY_HEADER)
    except zlib_ng.error as error:
        problem = f"the compressed bytes are damaged ({error})"
        if whole and done == whole:
            problem = f"{len(rest)} bytes follow that are not compressed"
    return memoryview(out)[:done], problem


def refuse_beyond_memory(n_bytes: int, path: AnyPath) -> None:
    """``FileError`` if voxels would not fit into free memory; called before anything is allocated."""
    if n_bytes > _PIECE and (free := free_memory()) is not None and n_bytes > free:
        raise FileError(
            f"{path}: expected voxels that fit into memory, found {n_bytes / 2**30:.3g} GiB by its header; "
            f"{free / 2**30:.3g} GiB are free. Check whether the header is right, or use a machine with more memory."
        )
