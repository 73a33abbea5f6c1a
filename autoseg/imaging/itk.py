"""NRRD and MetaImage (.nrrd, .nhdr, .mha, .mhd) through SimpleITK. The only file that knows ITK's axes: LPS and (x, y, z).

SimpleITK raises when voxels are missing, but reads on where compressed ones are damaged, so those streams are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from autoseg.atomic import replacing
from autoseg.errors import FileError
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.raw import REMEDY, AnyPath, Content, digest_of, inflate, read_bytes

__all__ = ["description", "read", "read_geometry", "write"]

_TO_RAS = np.array([-1.0, -1.0, 1.0])
_HEADER_END = re.compile(rb"^ElementDataFile[^\n]*\n|\n\r?\n", re.MULTILINE)
_DATA_FILE = re.compile(rb"^(?:ElementDataFile *=|data ?file:) *([^\r\n]*?) *\r?$", re.MULTILINE | re.IGNORECASE)
_ITK_SAYS = re.compile(r"ITK ERROR: \w+\(\w+\): ([^.]+)")
_IS_PACKED = re.compile(rb"^(?:CompressedData *= *True|encoding: *gz(?:ip)?) *\r?$", re.MULTILINE | re.IGNORECASE)


def read(path: AnyPath) -> Content:
    """See ``files.read_file``; returns (data, geometry, notes, digest)."""
    digest = _checked_digest(Path(path))
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise FileError(f"{path}: expected a complete image, found: {_told(error)} {REMEDY}") from error
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
        array = array[:, None] if image.GetDimension() == 2 else array
    if array.dtype.kind not in "iuf":
        raise FileError(f"{path}: expected integers or real numbers, found {array.dtype}. Convert the file.")
    geometry = _geometry_of(image)
    return np.ascontiguousarray(array.reshape(-1, *geometry.shape)), geometry, (), digest


def read_geometry(path: AnyPath) -> Geometry:
    """The grid alone; no voxels are read."""
    return _geometry_of(_information(path))


def description(path: AnyPath) -> str:
    """The text in the header's field of this name."""
    header = _information(path)
    return str(header.GetMetaData("description")) if header.HasMetaDataKey("description") else ""


def write(path: Path, array: np.ndarray, geometry: Geometry, like: Path | None = None, description: str = "") -> None:
    """Write (Z, Y, X) or (C, Z, Y, X) voxels, compressed; with ``like``, on exactly the grid numbers of that file.

    Args:
        description: for the header, as its field of this name.
    """
    is_vector = array.ndim == 4 and len(array) > 1
    array = np.moveaxis(array, 0, -1) if is_vector else array.reshape(array.shape[-3:])
    origin, spacing, direction = _itk_grid(geometry)
    if like is not None:
        source = _information(like)
        origin, spacing, direction = source.GetOrigin(), source.GetSpacing(), source.GetDirection()
        if source.GetDimension() == 2:
            array = array[0]
        elif source.GetDimension() == 4:
            origin, spacing, direction = origin[:3], spacing[:3], np.reshape(direction, (4, 4))[:3, :3].ravel().tolist()
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=is_vector)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    if description:
        image.SetMetaData("description", description)
    with replacing(path) as target:
        try:
            SimpleITK.WriteImage(image, str(target), useCompression=True)
        except RuntimeError as error:
            raise FileError(f"{path}: cannot be written: {_told(error)} Look at the rights and the room there.") from error


def _information(path: AnyPath) -> Any:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FileError(f"{path}: expected an image header, found: {_told(error)} {REMEDY}") from error
    return reader


def _geometry_of(image: Any) -> Geometry:
    """The grid of a SimpleITK image or reader of two to four dimensions; one slice gets a thickness of 1 mm."""
    n = image.GetDimension()
    k = min(n, 3)
    size, spacing, origin, direction = np.ones(3, int), np.ones(3), np.zeros(3), np.eye(3)
    size[:k], spacing[:k], origin[:k] = image.GetSize()[:k], image.GetSpacing()[:k], image.GetOrigin()[:k]
    direction[:k, :k] = np.reshape(image.GetDirection(), (n, n))[:k, :k]
    columns = (direction * spacing)[:, ::-1]  # one for each of z, y, x
    return Geometry.from_affine(size[::-1], np.column_stack([columns, origin]) * _TO_RAS[:, None])


def _itk_grid(geometry: Geometry) -> tuple[list[float], Sequence[float], list[float]]:
    """(origin, spacing, direction) as SimpleITK takes them."""
    origin = geometry.affine[:3, 3] * _TO_RAS
    direction = geometry.directions[:, ::-1] * _TO_RAS[:, None]
    return origin.tolist(), geometry.spacing_mm[::-1], direction.ravel().tolist()


def _checked_digest(path: Path) -> str:
    """Digest of all bytes that belong to the image; ``FileError`` if they are compressed and damaged."""
    raw = read_bytes(path)
    end = _HEADER_END.search(raw)
    header, payload = (raw[: end.end()], memoryview(raw)[end.end() :]) if end else (raw, b"")
    named = _DATA_FILE.search(header)
    is_apart = False
    if named and named[1].upper() != b"LOCAL":
        is_apart = True
        apart = path.parent / named[1].decode(errors="replace")
        if not apart.is_file():
            raise FileError(
                f"{path}: expected its voxels in one file beside it, {apart.name}, found none. Copy both, or write .mha."
            )
        payload = read_bytes(apart)
    if _IS_PACKED.search(header) and b"skip:" not in header:  # NRRD may say that the stream begins later
        out, problem = inflate(payload)
        if problem:
            raise FileError(f"{path}: expected a complete compressed image, found {len(out)} good bytes; {problem}. {REMEDY}")
    return digest_of(raw, payload) if is_apart else digest_of(raw)


def _told(error: Exception) -> str:
    """What SimpleITK says is wrong, without where in its sources; its own reasons come last, those of ITK with its ERROR."""
    said = _ITK_SAYS.search(str(error))
    last = str(error).strip().splitlines()[-1].replace("sitk::ERROR: ", "")
    return (said[1] if said else last).strip().rstrip(".") + "."
