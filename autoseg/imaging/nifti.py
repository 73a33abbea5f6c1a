"""NIfTI-1 and NIfTI-2 in a single file (.nii, .nii.gz): nibabel reads the header; the voxels are read here.

A header can give voxel positions in three ways: sform, qform, and voxel sizes alone (pixdim). They may contradict each
other; ``grid_of`` states the rule, and each deviation from the plain case becomes a note.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from zlib_ng import gzip_ng, zlib_ng

from autoseg.atomic import replacing
from autoseg.errors import FileError
from autoseg.imaging.geometry import Geometry, spans_space
from autoseg.imaging.raw import REMEDY, AnyPath, Content, digest_of, inflate, read_image_bytes, refuse_beyond_memory

__all__ = ["bits_of_a_number", "description", "grid_of", "is_scaled", "read", "read_geometry", "write"]

_HEADERS: dict[int, Any] = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_GZIP_MAGIC = b"\x1f\x8b"
_UNIT_MM = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}
APART = 0.5  # of a voxel: how far two forms may place it apart without a note
_SILENT = logging.getLogger("autoseg.imaging.nifti")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def read(path: AnyPath) -> Content:
    """See ``files.read_file``; returns (data, geometry, notes, digest). The data may be read-only."""
    raw = read_image_bytes(path)
    digest = digest_of(raw)
    content, problem = _unpacked(raw, path) if raw.startswith(_GZIP_MAGIC) else (raw, None)
    del raw
    if problem and len(content) < min(_HEADERS):
        raise FileError(f"{path}: expected a NIfTI header, found {len(content)} good bytes; {problem}. {REMEDY}")
    header = _header_of(content, path)
    mended = _repaired(header, path)
    start = header.get_data_offset()
    expected = start + _n_bytes(header)
    if problem or len(content) != expected:
        kind = "decompressed bytes" if isinstance(content, memoryview) else "bytes"
        raise FileError(
            f"{path}: expected {expected} {kind}, found {len(content)}; {problem or _odd_size(content, expected)}. {REMEDY}"
        )
    geometry, notes = _grid_of(header, mended, path)
    return _voxels(content, start, header, path), geometry, (*notes, *_unscaled(header)), digest


def read_geometry(path: AnyPath) -> Geometry:
    """The grid alone; only the start of the file is read."""
    return grid_of(_read_header(path), path)[0]


def bits_of_a_number(path: AnyPath) -> int:
    """How many bits each stored number has, before slope and intercept."""
    return 8 * int(_read_header(path).get_data_dtype().itemsize)


def is_scaled(path: AnyPath) -> bool:
    """Whether slope and intercept change the stored numbers."""
    return _read_header(path).get_slope_inter() not in ((None, None), (1, 0))


def description(path: AnyPath) -> str:
    """The text in the header."""
    return bytes(_read_header(path)["descrip"]).rstrip(b"\0").decode("ascii", "replace")


def grid_of(header: Any, path: AnyPath) -> tuple[Geometry, tuple[str, ...]]:
    """The grid that a header describes.

    1. Directions and origin come from the sform if its code is above 0 and it is invertible, else from the qform under the
       same conditions, else from ITK's default: x to the left, y to the back, z to the head, origin 0. In that case each
       pixdim must be a length, except along an axis of one voxel, for which 1 mm is assumed.
    2. Voxel sizes are the lengths of the columns of that matrix, unless pixdim contradicts it and is plausible: some
       length differs from its pixdim by more than 1 %, all three pixdim are finite and positive, and they are not all
       exactly 1 (the value of an unfilled header). Then the columns are scaled to pixdim, as in ITK; the origin is
       unchanged.
    3. Metres and micrometres are converted to mm if the header states them.

    Returns:
        (Geometry, notes): one note for every step that deviates from the plain case.
    """
    return _grid_of(header, _repaired(header, path), path)


def _grid_of(header: Any, mended: Any, path: AnyPath) -> tuple[Geometry, tuple[str, ...]]:
    """As ``grid_of``; ``mended`` is the header after ``_repaired``."""
    with np.errstate(all="ignore"):  # a damaged header may hold anything
        affine, notes = _affine_of(header, mended, path)
    return Geometry.from_affine(_size(header)[2::-1], affine[:3, [2, 1, 0, 3]]), notes


def write(path: Path, array: np.ndarray, geometry: Geometry, like: Path | None = None, description: str = "") -> None:
    """Write (Z, Y, X) or (C, Z, Y, X) voxels.

    Args:
        like: a NIfTI file on the same grid whose header is kept; only data type, scaling, display range, intent and number of
            channels change. Header extensions and texts about files and the database are not copied, since they may name the
            patient.
        description: up to 80 characters for the header of a new file.
    """
    header = _new_header(array, geometry) if like is None else _like_header(array, like)
    if description:
        header["descrip"] = description.encode("ascii", "replace")[:80]
    values = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    with replacing(path) as target, open(target, "wb") as plain:
        if target.name.lower().endswith(".gz"):
            with gzip_ng.GzipNGFile("", "wb", compresslevel=4, fileobj=plain, mtime=0) as packed:
                _write_parts(packed, header, values)
        else:
            _write_parts(plain, header, values)


def _unpacked(raw: bytes, path: AnyPath) -> tuple[memoryview, str | None]:
    """As ``inflate``, up to the number of voxels in the header; of a damaged header the first bytes, by which it is refused."""
    most = max(_HEADERS)
    with contextlib.suppress(FileError, HeaderDataError, KeyError, zlib_ng.error):
        header = _header_of(zlib_ng.decompressobj(31).decompress(raw[: 1 << 16], max(_HEADERS)), path)
        most = int(header.get_data_offset()) + _n_bytes(header)
    refuse_beyond_memory(most, path)
    return inflate(raw, most)


def _n_bytes(header: Any) -> int:
    """Bytes of the voxels."""
    return int(header.get_data_dtype().itemsize) * math.prod(_size(header))


def _write_parts(stream: IO[bytes] | gzip_ng.GzipNGFile, header: Any, values: np.ndarray) -> None:
    stream.write(header.binaryblock)
    stream.write(bytes(4))  # no extensions
    content: Any = values.reshape(-1).view(np.uint8)
    stream.write(content)


def _read_header(path: AnyPath) -> Any:
    """The header as stored; an error for faults that nibabel cannot repair."""
    try:
        with open(path, "rb") as plain:
            is_packed = plain.read(2) == _GZIP_MAGIC
        with gzip_ng.open(path) if is_packed else open(path, "rb") as stream:
            header = _header_of(stream.read(max(_HEADERS)), path)
    except (OSError, EOFError, zlib_ng.error) as error:
        raise FileError(f"{path}: expected a NIfTI header, found: {error}. {REMEDY}") from error
    _repaired(header, path)
    return header


def _header_of(content: bytes | memoryview, path: AnyPath) -> Any:
    """The header as stored, after the basic checks."""
    start = bytes(content[:4])
    if start.startswith(_GZIP_MAGIC):
        raise FileError(f"{path}: expected a file packed once, found one packed twice by gzip. Unpack it once.")
    kind = _HEADERS.get(int.from_bytes(start, "little")) or _HEADERS.get(int.from_bytes(start, "big"))
    if kind is None or len(content) < kind.sizeof_hdr:
        raise FileError(f"{path}: expected a NIfTI header, found {len(content)} bytes that begin with {start.hex()}. {REMEDY}")
    header = kind(bytes(content[: kind.sizeof_hdr]), check=False)
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7 or (header["dim"][1 : n_axes + 1] < 1).any():
        raise FileError(f"{path}: expected 1 to 7 axes of positive length, found dim {header['dim'].tolist()}. {REMEDY}")
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise FileError(
            f"{path}: expected header and voxels in one file, found magic {bytes(header['magic'])!r}. Convert it to .nii.gz."
        )
    if not np.isfinite(header["vox_offset"]):
        raise FileError(f"{path}: expected the place of the first voxel, found vox_offset {header['vox_offset']}. {REMEDY}")
    return header


def _repaired(header: Any, path: AnyPath) -> Any:
    """A copy repaired by nibabel; ``FileError`` if that is not possible."""
    header = header.copy()
    try:
        with np.errstate(all="ignore"):
            header.check_fix(logger=_SILENT, error_level=40)
            header.get_slope_inter()
    except HeaderDataError as error:
        raise FileError(f"{path}: the NIfTI header is damaged: {error}. {REMEDY}") from error
    return header


def _size(header: Any) -> tuple[int, int, int, int]:
    """(X, Y, Z, C): the axes of the file, the ones after z merged."""
    n_axes = int(header["dim"][0])
    size = [*(int(n) for n in header["dim"][1 : n_axes + 1]), 1, 1, 1][: max(3, n_axes)]
    x, y, z, *more = size
    return x, y, z, math.prod(more)


def _affine_of(header: Any, mended: Any, path: AnyPath) -> tuple[np.ndarray, tuple[str, ...]]:
    """((4, 4) matrix from (x, y, z) indices to RAS+ mm, notes), by the rule of ``grid_of``."""
    notes: list[str] = []
    stated = np.array(header["pixdim"][1:4], float)
    pixdim = np.array(mended["pixdim"][1:4], float)  # 1 where the file has 0
    affine = _best_form(mended, _size(header)[:3], notes)
    if affine is None:
        notes += _check_sizes(stated, _size(header), path)
        pixdim[~np.isfinite(pixdim)] = 1  # along an axis of one voxel
        notes.append(
            "The header has neither a valid sform nor a valid qform: orientation is assumed and only voxel sizes are known."
        )
        affine = np.diag([-pixdim[0], -pixdim[1], pixdim[2], 1.0])
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (np.abs(lengths / pixdim - 1) > 0.01).any():
        sizes = "x".join(f"{v:.4g}" for v in pixdim), "x".join(f"{v:.4g}" for v in lengths)
        if (stated > 0).all() and np.isfinite(pixdim).all() and (pixdim != 1).any():
            affine[:3, :3] *= pixdim / lengths
            notes.append(f"Voxel size {sizes[0]} mm (x, y, z) is taken from pixdim; the affine says {sizes[1]} mm.")
        else:
            notes.append(f"Voxel size {sizes[1]} mm (x, y, z) is taken from the affine; pixdim is not filled in.")
    unit = _UNIT_MM.get(int(mended["xyzt_units"]) & 7)
    if unit:
        affine[:3] *= unit[1]
        notes.append(f"Lengths in the header are in {unit[0]}; they are converted to mm.")
    return affine, tuple(notes)


def _check_sizes(pixdim: np.ndarray, size: Sequence[int], path: AnyPath) -> list[str]:
    """Refuse voxels without a size; returns sentences about axes of one voxel, along which 1 mm is assumed."""
    unknown = [axis for axis in range(3) if not 0 < abs(pixdim[axis]) < np.inf]
    if [axis for axis in unknown if size[axis] > 1]:
        sizes = " x ".join(f"{length:.4g}" for length in pixdim)
        raise FileError(
            f"{path}: expected voxel sizes above 0 mm in pixdim, since there is no sform or qform; found {sizes} mm (x, y, z). "
            "Export the file again, with its spacing."
        )
    return [f"The voxel size along {'xyz'[axis]}, where there is one voxel, is not given; 1 mm is assumed." for axis in unknown]


def _best_form(header: Any, size: tuple[int, ...], notes: list[str]) -> np.ndarray | None:
    """The (4, 4) matrix of the first usable form, or None. ``size`` in voxels along x, y and z."""
    usable = []
    for name in ("sform", "qform"):
        if header[f"{name}_code"] <= 0:
            continue
        try:
            matrix = getattr(header, f"get_{name}")()
        except (HeaderDataError, ValueError):  # a quaternion longer than 1
            matrix = np.full((4, 4), np.nan)
        if np.isfinite(matrix).all() and spans_space(matrix[:3, :3]):
            usable.append(matrix)
        else:
            notes.append(f"The {name} of the header is not an invertible matrix and is ignored.")
    if len(usable) == 2:
        directions = [matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in usable]
        if np.abs(directions[0] - directions[1]).max() > 0.01:
            notes.append("sform and qform give different orientations; the sform is used.")
        elif (apart := _voxels_apart(usable, directions, size)) > APART:
            notes.append(f"sform and qform place the voxels up to {apart:.3g} voxels apart; the sform is used.")
    return usable[0] if usable else None


def _voxels_apart(forms: Sequence[np.ndarray], directions: Sequence[np.ndarray], size: Sequence[int]) -> float:
    """The largest distance, along an axis, of the corners of a volume (x, y, z) in two forms, whose voxel sizes do not count:
    those of the second are used for both."""
    steps = np.linalg.norm(forms[1][:3, :3], axis=0)
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in size]))) * steps
    placed = [corners @ turn.T + form[:3, 3] for form, turn in zip(forms, directions, strict=True)]
    return float(np.abs(placed[0] - placed[1]).max() / steps.min())


def _odd_size(content: bytes | memoryview, expected: int) -> str:
    return "the file is cut short" if len(content) < expected else "the header and the voxels do not belong together"


def _voxels(content: bytes | memoryview, start: int, header: Any, path: AnyPath) -> np.ndarray:
    """(C, Z, Y, X) in native byte order, slope and intercept applied."""
    dtype, size = header.get_data_dtype(), _size(header)
    array: np.ndarray = np.frombuffer(content, dtype, offset=start).reshape(size[::-1])
    if dtype.names:  # colours
        parts = len(dtype.names)
        array = np.moveaxis(array.view(dtype[0]).reshape(*size[::-1], parts), -1, 1).reshape(-1, *size[2::-1])
    elif dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileError(f"{path}: expected integers or real numbers, found {dtype}. Convert the file.")
    slope, intercept = header.get_slope_inter()
    if slope is not None and (slope, intercept) != (1, 0):
        wide = np.float32 if array.dtype.kind in "iu" and array.dtype.itemsize <= 2 else np.float64
        with np.errstate(all="ignore"):
            scaled: np.ndarray = array.astype(wide) * wide(slope) + wide(intercept)
            return scaled
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _unscaled(header: Any) -> tuple[str, ...]:
    """A note about an intercept that does not count."""
    intercept = float(header["scl_inter"])
    if header["scl_slope"] != 0 or intercept == 0 or not np.isfinite(intercept):
        return ()
    return (f"The slope is 0, so the stored numbers count, as NIfTI says; SimpleITK would add the intercept of {intercept:g}.",)


def _new_header(array: np.ndarray, geometry: Geometry) -> Any:
    header = _HEADERS[540 if max(array.shape) > 32767 else 348]()
    affine = geometry.affine[:, [2, 1, 0, 3]]
    header.set_data_dtype(array.dtype)
    _set_size(header, array.shape, 3)
    header["pixdim"][1:4] = geometry.spacing_mm[::-1]
    header.set_sform(affine, 1)
    if not geometry.is_sheared:  # a qform cannot shear
        header.set_qform(affine, 1)
    header.set_xyzt_units("mm")
    return header


def _like_header(array: np.ndarray, like: Path) -> Any:
    header = _read_header(like)
    if header.endianness != "<":
        header = header.as_byteswapped("<")
    header.set_data_dtype(array.dtype)
    _set_size(header, array.shape, int(header["dim"][0]))
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("none")
    for text in {"aux_file", "db_name"} & set(header.keys()):
        header[text] = b""
    return header


def _set_size(header: Any, shape: tuple[int, ...], n_axes: int) -> None:
    """Sizes, offset and scaling for (C, Z, Y, X) or (Z, Y, X) voxels; a file of one slice stays two-dimensional."""
    channels = shape[:-3] if shape[0] > 1 else ()
    n_axes = 4 if channels else min(n_axes, 3)
    header["dim"] = [n_axes, *shape[:-4:-1], *channels, *[1] * (4 - len(channels))]
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    header["scl_slope"], header["scl_inter"] = 1, 0
