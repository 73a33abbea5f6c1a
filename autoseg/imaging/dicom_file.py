"""One DICOM file: opened by pydicom, and every way in which it is damaged told in our words.

pydicom raises what it likes for files that are cut or scrambled, and unpacks deflated ones whatever their size; both end here.
"""

import warnings
import zlib
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from autoseg.errors import FileError, reason_of
from autoseg.imaging.raw import REMEDY, is_dicom_start

__all__ = ["open_dataset", "pixel_source"]

LARGEST_UNPACKED = 1 << 30  # bytes of a deflated file; zlib packs a thousand to one, so a small file could fill the memory
_PREAMBLE, _GROUP_LENGTH = 132, 12  # bytes before the file meta information, and of its first element
# transfer syntaxes by (whether kinds of values are left out, whether the lowest byte comes first)
_PLAIN = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
_PIECE = 1 << 16  # of which one step makes up to 64 MiB


def open_dataset(path: Path, called: str = "", **options: Any) -> FileDataset:
    """A file as pydicom reads it.

    Args:
        called: what messages call the file; its path where nothing is given.
        options: those of ``pydicom.dcmread``.

    Raises:
        FileError: no DICOM file, a damaged one, or one that unpacks to more than ``LARGEST_UNPACKED`` bytes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are odd but can be read
            if is_deflated(path) and _unpacks_to_more(path, LARGEST_UNPACKED):
                raise ValueError(f"it unpacks to more than {LARGEST_UNPACKED >> 20} MiB")
            dataset = pydicom.dcmread(path, force=is_dicom_start(_start_of(path)), **options)
            if "TransferSyntaxUID" not in dataset.file_meta:  # a file without signature does not say it; pydicom found out
                is_implicit, is_little = dataset.original_encoding
                dataset.file_meta.TransferSyntaxUID = _PLAIN[bool(is_implicit), is_little is not False]
            return dataset
    except Exception as error:  # pydicom raises what it likes
        reason = reason_of(error).replace(str(path), "it")
        raise FileError(
            f"{called or path}: expected a DICOM file, found one that cannot be read: {reason}. {REMEDY}"
        ) from error


def pixel_source(path: Path, called: str = "") -> Path | FileDataset:
    """What ``pydicom.pixels.pixel_array`` takes of a file: its path, or the whole of one where it looks in vain, since it is
    deflated or has no signature."""
    return open_dataset(path, called) if is_deflated(path) or not _has_signature(path) else path


def _has_signature(path: Path) -> bool:
    return _start_of(path)[128:132] == b"DICM"


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_PREAMBLE)


def is_deflated(path: Path) -> bool:
    """Whether all after the file meta information is compressed as a whole."""
    with path.open("rb") as file:
        start = file.read(_PREAMBLE + 1024)
    return start[128:132] == b"DICM" and DeflatedExplicitVRLittleEndian.encode() in start


def _unpacks_to_more(path: Path, limit: int) -> bool:
    raw = path.read_bytes()
    meta = int.from_bytes(raw[_PREAMBLE + 8 : _PREAMBLE + _GROUP_LENGTH], "little")
    size, stream = 0, zlib.decompressobj(-zlib.MAX_WBITS)
    for start in range(_PREAMBLE + _GROUP_LENGTH + meta, len(raw), _PIECE):
        size += len(stream.decompress(raw[start : start + _PIECE]))
        if size > limit or stream.eof:
            break
    return size > limit
