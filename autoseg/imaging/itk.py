"""NRRD and MetaImage (.nrrd, .nhdr, .mha, .mhd) through SimpleITK. Only this file uses ITK's axes: LPS and (x, y, z).

SimpleITK trusts the header's number of voxels and reads on when compressed voxels are damaged, so both are checked here.
``itk_header`` reads what SimpleITK ignores.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.atomic import replacing
from autoseg.errors import FileError
from autoseg.imaging.crop import NOWHERE, crop, value_boxes
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.itk_header import Header, Segment, header_of
from autoseg.imaging.raw import REMEDY, AnyPath, Content, digest_of, inflate, refuse_beyond_memory

__all__ = [
    "description",
    "is_scaled",
    "layers_of",
    "read",
    "read_geometry",
    "read_labels",
    "read_segmentation",
    "segment_mask",
    "segment_names",
    "simpleitk",
    "write",
]

_TO_RAS = np.array([-1.0, -1.0, 1.0])
_ITK_SAYS = re.compile(r"ITK ERROR: \w+\(\w+\): ([^.]+)")


@cache
def simpleitk() -> Any:
    """SimpleITK, imported only when a file needs it; the import takes a tenth of a second."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # they go to standard error and cannot be caught
    return SimpleITK


def read(path: AnyPath) -> Content:
    """See ``files.read_file``; returns (data, geometry, notes, digest).

    Slope and offset of a MetaImage's intensities are applied, lengths in other units are converted to mm.
    """
    content, _ = _read(Path(path))
    return content


def read_labels(path: AnyPath) -> Content | tuple[np.ndarray, Geometry, tuple[str, ...], str, bool]:
    """As ``read``; from a 3D Slicer segmentation, one map with the values of ``segment_names``, and that its grid may cover
    only a part, since 3D Slicer stores only the extent of the segments.

    Raises:
        FileError: overlapping segments in several layers; voxels there that belong to no segment.
    """
    (data, geometry, notes, digest), header = _read(Path(path))
    segments = header.segments()
    if not segments:
        return data, geometry, notes, digest
    if len(data) == 1:
        return data, geometry, notes, digest, True
    merged, whole = np.zeros(geometry.shape, np.uint16), ((0, 0, 0), geometry.shape)
    boxes = [value_boxes(layer) if layer.dtype.kind in "iu" else None for layer in data]
    for value, segment in enumerate(segments, 1):
        layer = _layer_of(segment, data, path)
        places = boxes[segment.layer]
        box = whole if places is None else places.get(segment.value, NOWHERE)
        mask, there = crop(layer, *box) == segment.value, crop(merged, *box)
        if (others := np.unique(there[mask])).any():
            other = segments[int(others[-1]) - 1].name
            raise FileError(
                f"{path}: expected segments that do not overlap, found {other} and {segment.name} in the same voxels. Export "
                "each as a file of its own, or convert the data with `autoseg convert folders`, which makes regions of them."
            )
        there[mask] = value
    if (unnamed := (merged == 0) & (data != 0).any(axis=0)).any():
        found = ", ".join(str(value) for value in np.unique(data[:, unnamed]).tolist() if value)
        raise FileError(
            f"{path}: expected voxels of its segments, found the values {found} in {int(unnamed.sum())} others. Save it again."
        )
    return merged[None], geometry, (*notes, "Segments lie in several layers; they are numbered in their order."), digest, True


def segment_names(path: AnyPath) -> dict[str, int]:
    """{name: label value} of a 3D Slicer segmentation, {} for other files; the value is appended to repeated names.

    For segments in several layers the values are their numbers, as in ``read_labels``.
    """
    header, _ = header_of(Path(path), voxels=False)
    return {name: value for name, (value, _) in _named(header.segments()).items()}


def _named(segments: Sequence[Segment]) -> dict[str, tuple[int, Segment]]:
    """{name: (label value, segment)}, as ``segment_names``."""
    taken, layers = Counter(segment.name for segment in segments), _layers(segments)
    found = {}
    for number, segment in enumerate(segments, 1):
        value = segment.value if layers < 2 else number
        found[segment.name if taken[segment.name] == 1 else f"{segment.name} {value}"] = value, segment
    return found


def layers_of(path: AnyPath) -> int:
    """The number of layers of a 3D Slicer segmentation; 1 for other files."""
    return _layers(header_of(Path(path), voxels=False)[0].segments())


def _layers(segments: Sequence[Segment]) -> int:
    return len({segment.layer for segment in segments} | {0})


def read_segmentation(path: AnyPath) -> tuple[Content, dict[str, Segment]]:
    """The layers (L, Z, Y, X) of a 3D Slicer segmentation, and {name: segment}, as ``segment_names``; for ``segment_mask``."""
    content, header = _read(Path(path))
    return content, {name: segment for name, (_, segment) in _named(header.segments()).items()}


def segment_mask(layers: np.ndarray, segment: Segment, path: AnyPath) -> np.ndarray:
    """(Z, Y, X) bool of a segment, even if others overlap it; ``path`` is for messages."""
    mask: np.ndarray = _layer_of(segment, layers, path) == segment.value
    return mask


def read_geometry(path: AnyPath) -> Geometry:
    """The grid alone; no voxels are read."""
    header, _ = header_of(Path(path), voxels=False)
    return _grid_of(_information(Path(path)), header)[0]


def is_scaled(path: AnyPath) -> bool:
    """Whether slope and offset of a MetaImage change the stored numbers."""
    return header_of(Path(path), voxels=False)[0].intensity() != (1.0, 0.0)


def _read(path: Path) -> tuple[Content, Header]:
    header, raw = header_of(path)
    geometry, notes = _grid_of(_information(path), header)
    unpacked = _checked(header)
    if unpacked is not None and header.lacks_packed_size:
        array = np.frombuffer(unpacked, f"{header.order}{header.kind}").reshape(*geometry.shape, header.channels)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        data: np.ndarray = np.moveaxis(array, -1, 0)
        notes.append("The header does not say how long the compressed voxels are; all bytes after it are used.")
    else:
        data = _decoded(path)
    slope, offset = header.intensity()
    if (slope, offset) != (1.0, 0.0):
        data = (data.astype(np.float64) * slope + offset).astype(np.float32 if data.dtype.itemsize <= 2 else np.float64)
        notes.append(f"Intensities are the stored numbers times {slope:g} plus {offset:g}, as the header says.")
    digest = digest_of(raw, header.payload) if header.apart else digest_of(raw)
    return (np.ascontiguousarray(data.reshape(-1, *geometry.shape)), geometry, tuple(notes), digest), header


def _decoded(path: Path) -> np.ndarray:
    """(C, Z, Y, X) or (Z, Y, X), or one axis less for a slice, as SimpleITK reads it."""
    try:
        image = _reader(path).Execute()
    except RuntimeError as error:
        raise FileError(f"{path}: expected a complete image, found: {_told(error)} {REMEDY}") from error
    array: np.ndarray = simpleitk().GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
        array = array[:, None] if image.GetDimension() == 2 else array
    if array.dtype.kind not in "iuf":
        raise FileError(f"{path}: expected integers or real numbers, found {array.dtype}. Convert the file.")
    return array


def _layer_of(segment: Segment, layers: np.ndarray, path: AnyPath) -> np.ndarray:
    """The layer (Z, Y, X) of a segment."""
    if segment.layer >= len(layers):
        raise FileError(f"{path}: expected {segment.name} in layer {segment.layer}, found {len(layers)} layers. Save it again.")
    layer: np.ndarray = layers[segment.layer]
    return layer


def _grid_of(image: Any, header: Header) -> tuple[Geometry, list[str]]:
    """The grid in mm, and sentences about what SimpleITK ignores."""
    spacing, origin = list(image.GetSpacing()), list(image.GetOrigin())
    notes = []
    if ranges := [] if header.is_meta else header.axis_ranges()[-len(spacing) :]:
        for axis, found in enumerate(ranges):
            if found is not None:
                origin[axis], spacing[axis] = found
        notes.append("Voxel sizes are taken from axis mins and axis maxs, since the header has no spacings.")
    if unit := header.unit():
        name, factor = unit
        spacing, origin = [factor * v for v in spacing], [factor * v for v in origin]
        notes.append(f"Lengths in the header are in {name}; they are converted to mm.")
    if unsized := header.unsized_axes():
        notes.append(f"The header gives no voxel size along {', '.join(unsized)}; 1 mm is assumed.")
    if not header.names_space():
        notes.append(
            "The header does not say how its axes lie in the patient: x to the left, y to the back, z to the head is assumed."
        )
    return _geometry_of(image, spacing, origin), notes


def _checked(header: Header) -> memoryview | None:
    """The unpacked voxels of a compressed file.

    Raises:
        FileError: fewer or more bytes than stated in the header, or damaged ones; SimpleITK would read on.
    """
    path, expected = header.path, header.n_bytes
    if header.is_packed:
        payload = header.payload
        for _ in range(max(0, header.skipped("line skip"))):
            payload = payload[bytes(payload).find(b"\n") + 1 :]
        skipped = 0 if header.is_meta else max(0, header.skipped("byte skip"))
        refuse_beyond_memory(expected, path)
        out, problem = inflate(payload, most=skipped + expected)
        if problem:
            raise FileError(f"{path}: expected a complete compressed image, found {len(out)} good bytes; {problem}. {REMEDY}")
        if len(out) != skipped + expected:
            found = max(0, len(out) - skipped)
            raise FileError(
                f"{path}: expected {expected} bytes of voxels as the header says, found {found} in the compressed "
                f"data. {REMEDY}"
            )
        return out[skipped:] if skipped else out
    least = expected // int(header.kind[1]) if header.is_text else expected  # at least one digit per number
    if header.fields.get("encoding", "raw").lower() in ("bzip2", "bz2"):
        raise FileError(f"{path}: expected voxels that are raw, text or packed by gzip, found bzip2. Save it again with gzip.")
    if len(header.payload) < least:
        raise FileError(f"{path}: expected {least} bytes of voxels as the header says, found {len(header.payload)}. {REMEDY}")
    refuse_beyond_memory(expected, path)
    return None


def description(path: AnyPath) -> str:
    """The header field ``description``."""
    header = _information(Path(path))
    return str(header.GetMetaData("description")) if header.HasMetaDataKey("description") else ""


def write(path: Path, array: np.ndarray, geometry: Geometry, like: Path | None = None, description: str = "") -> None:
    """Write (Z, Y, X) or (C, Z, Y, X) voxels, compressed; with ``like``, with exactly the grid numbers of that file.

    Args:
        description: text for the header field of this name.
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
    image = simpleitk().GetImageFromArray(np.ascontiguousarray(array), isVector=is_vector)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    if description:
        image.SetMetaData("description", description)
    with replacing(path) as target:
        try:
            simpleitk().WriteImage(image, str(target), useCompression=True)
        except RuntimeError as error:
            raise FileError(
                f"{path}: cannot be written: {_told(error)} Check the permissions and the free space there."
            ) from error


def _reader(path: Path) -> Any:
    """A reader for the format of the ending, in any letter case: ITK itself does not recognise ``.MHA``.

    The only place that passes a file to ITK, after checking that its header is well formed.
    """
    header_of(path, voxels=False)[0].refuse_malformed()
    reader = simpleitk().ImageFileReader()
    reader.SetImageIO("MetaImageIO" if str(path).lower().endswith((".mha", ".mhd")) else "NrrdImageIO")
    reader.SetFileName(str(path))
    return reader


def _information(path: Path) -> Any:
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FileError(f"{path}: expected an image header, found: {_told(error)} {REMEDY}") from error
    return reader


def _geometry_of(image: Any, spacing_mm: Sequence[float], origin_mm: Sequence[float]) -> Geometry:
    """The grid of a SimpleITK image or reader with two to four dimensions; a single slice is 1 mm thick."""
    n = image.GetDimension()
    k = min(n, 3)
    size, spacing, origin, direction = np.ones(3, int), np.ones(3), np.zeros(3), np.eye(3)
    size[:k], spacing[:k], origin[:k] = image.GetSize()[:k], spacing_mm[:k], origin_mm[:k]
    direction[:k, :k] = np.reshape(image.GetDirection(), (n, n))[:k, :k]
    columns = (direction * spacing)[:, ::-1]  # one for each of z, y, x
    return Geometry.from_affine(size[::-1], np.column_stack([columns, origin]) * _TO_RAS[:, None])


def _itk_grid(geometry: Geometry) -> tuple[list[float], Sequence[float], list[float]]:
    """(origin, spacing, direction) for SimpleITK."""
    origin = geometry.affine[:3, 3] * _TO_RAS
    direction = geometry.directions[:, ::-1] * _TO_RAS[:, None]
    return origin.tolist(), geometry.spacing_mm[::-1], direction.ravel().tolist()


def _told(error: Exception) -> str:
    """The reason in a SimpleITK error, without source positions: the last line, or ITK's line with ERROR."""
    said = _ITK_SAYS.search(str(error))
    last = str(error).strip().splitlines()[-1].replace("sitk::ERROR: ", "")
    return (said[1] if said else last).strip().rstrip(".") + "."
