"""One DICOM file, opened by pydicom; any damage becomes one of our errors.

pydicom raises various exceptions for damaged files, and unpacks deflated ones of any size; both are handled here.
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

LARGEST_UNPACKED = 1 << 30  # bytes of a deflated file; zlib compresses up to 1000:1, so a small file could fill the memory
_PREAMBLE, _GROUP_LENGTH = 132, 12  # bytes before the file meta information, and of its first element
# transfer syntaxes by (implicit VR, little endian)
_PLAIN = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
_PIECE = 1 << 16  # bytes of input; one step unpacks up to 64 MiB


def open_dataset(path: Path, called: str = "", **options: Any) -> FileDataset:
    """Read a file with pydicom.

    Args:
        called: name of the file in messages; its path if empty.
        options: those of ``pydicom.dcmread``.

    Raises:
        FileError: not a DICOM file, damaged, or unpacks to more than ``LARGEST_UNPACKED`` bytes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid but readable values
            if is_deflated(path) and _unpacks_to_more(path, LARGEST_UNPACKED):
                raise ValueError(f"it unpacks to more than {LARGEST_UNPACKED >> 20} MiB")
            dataset = pydicom.dcmread(path, force=is_dicom_start(_start_of(path)), **options)
            if "TransferSyntaxUID" not in dataset.file_meta:  # missing in a file without signature; pydicom has inferred it
                is_implicit, is_little = dataset.original_encoding
                dataset.file_meta.TransferSyntaxUID = _PLAIN[bool(is_implicit), is_little is not False]
            return dataset
    except Exception as error:  # pydicom raises many types
        reason = reason_of(error).replace(str(path), "it")
        raise FileError(
            f"{called or path}: expected a DICOM file, found one that cannot be read: {reason}. {REMEDY}"
        ) from error


def pixel_source(path: Path, called: str = "") -> Path | FileDataset:
    """The argument for ``pydicom.pixels.pixel_array``: the path, or the whole dataset if the file is deflated or has no
    signature, which that function cannot read."""
    return open_dataset(path, called) if is_deflated(path) or not _has_signature(path) else path


def _has_signature(path: Path) -> bool:
    return _start_of(path)[128:132] == b"DICM"


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_PREAMBLE)


def is_deflated(path: Path) -> bool:
    """Whether everything after the file meta information is compressed."""
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
