"""Images on disk. A format is a module with ``read``, ``read_geometry`` and ``write``, as in ``nifti``; ``FORMATS`` maps
endings to formats.
It also has ``read_labels`` if its numbers have another meaning as labels.

A scan can also be a ``DicomSeries``, or a file or folder with exactly one; DICOM needs the optional package pydicom.
Arrays are returned as (C, Z, Y, X) and geometry in RAS+ millimetres for every file type.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.errors import AutosegError, FileError, GeometryError, blamed_on
from autoseg.imaging import itk, nifti, pictures
from autoseg.imaging.crop import laid_on, turned_onto
from autoseg.imaging.dicom_series import DicomSeries
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.itk_header import Segment
from autoseg.imaging.raw import REMEDY, digest_of, is_dicom_start, read_bytes
from autoseg.imaging.resample import resample_anywhere
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.names import case_name, is_hidden
from autoseg.registry import Registry

__all__ = [
    "FORMATS",
    "PICTURES",
    "SEGMENTATION",
    "FileContent",
    "Drawing",
    "Segmentation",
    "description_of",
    "digest_on_disk",
    "ending_of",
    "has_grid",
    "is_dicom",
    "is_slicer_segmentation",
    "left_unread",
    "layers_of",
    "paths_of",
    "read_file",
    "read_geometry",
    "read_label_volume",
    "read_segmentation",
    "read_volume",
    "segment_names",
    "series_in",
    "stem_of",
    "write_label_volume",
    "write_volume",
]

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
FORMATS = Registry(
    "file format",
    {
        ".nii": nifti,
        ".nii.gz": nifti,
        ".nrrd": itk,
        ".nhdr": itk,
        ".mha": itk,
        ".mhd": itk,
        **dict.fromkeys(PICTURES, pictures),
    },
)
# image types that we cannot read; they are reported beside readable ones
_UNREAD_VOLUMES = (".img", ".img.gz", ".hdr", ".mgz", ".mgh", ".mnc", ".gipl", ".gipl.gz", ".par", ".vti", ".npy")
_UNREAD_PACKED = (".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip")
_UNREAD = (*_UNREAD_VOLUMES, *_UNREAD_PACKED, ".bmp", ".gif", ".jp2", ".webp", ".svs")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".dcm.gz")  # may contain scans
# what is behind the ending of a scan: unfinished downloads, copies, other packings; not a text about it
_BEHIND = re.compile(r"\.(nii|nii\.gz|nrrd|nhdr|mha|mhd|dcm)(~|[ ._(-].*)", re.IGNORECASE)
_TEXTS = (".json", ".txt", ".csv", ".tsv", ".md", ".md5", ".sha1", ".sha256", ".sha512", ".xml", ".html", ".log", ".sig", ".py")
SEGMENTATION = ".dcm"  # ending of DICOM label maps in a folder; the content decides whether a file is DICOM

AnyPath = str | PathLike[str]
Image = AnyPath | DicomSeries

# how far a scale in the header may move labels off whole numbers: 16-bit steps over their range (8-bit if NIfTI stores 8
# bits), but less than in interpolated maps
NEARLY_WHOLE, FARTHEST_OFF = 1e-3, 0.1
_SHEARED = "The axes of the grid are not at right angles (tilted gantry, affine registration); some viewers refuse such files."
_EXACT = 2**24  # float32 is exact for whole numbers up to here
_SLICER = ".seg"
_LABEL_TYPES = (np.uint8, np.uint16, np.int16, np.int32, np.uint32)


@dataclass(frozen=True, eq=False)
class FileContent:
    """The content of one file.

    Attributes:
        data: (C, Z, Y, X) in the file's own type, after slope and intercept; NaN stays NaN; may be read-only.
        geometry: the grid.
        notes: sentences about choices made in reading, such as which of two voxel sizes was used.
        digest: 16 hexadecimal digits, BLAKE2b of the bytes on disk.
        is_part: for labels: the file leaves out empty voxels at the borders, so the extent of the scan is unknown.
        colours: for labels: (value, (red, green, blue)) of the palette, for the values that occur; () without a palette.
    """

    data: np.ndarray
    geometry: Geometry
    notes: tuple[str, ...]
    digest: str
    is_part: bool = False
    colours: tuple[tuple[int, tuple[int, ...]], ...] = ()


def ending_of(path: AnyPath) -> str:
    """The known ending of a file name in lower case, the longest that fits: '.nii.gz' rather than '.gz'."""
    name = Path(path).name.lower()
    fitting = [ending for ending in FORMATS if name.endswith(ending)]
    if not fitting:
        raise FileError(f"{path}: expected a name that ends in one of {', '.join(sorted(FORMATS))}. Convert the file.")
    longest: str = max(fitting, key=len)
    return longest


def stem_of(path: AnyPath) -> str:
    """The name of a file without its known ending, including ``.dcm`` and ``.seg.nrrd``."""
    name = case_name(Path(path).name)
    if name.lower().endswith(SEGMENTATION):
        return Path(name).stem
    stem = name[: -len(ending_of(path))]
    return stem[: -len(_SLICER)] if is_slicer_segmentation(path) else stem


def left_unread(paths: Iterable[Path]) -> list[str]:
    """A sentence each about files of unreadable types, archives, and files with more behind the ending of a scan, so that the
    other files are not taken for everything."""
    names = sorted(path.name for path in paths if not is_hidden(path.name))
    unread, packed = ([name for name in names if name.lower().endswith(endings)] for endings in (_UNREAD, _ARCHIVES))
    known = (*FORMATS, SEGMENTATION, *_TEXTS)
    behind = [name for name in names if _BEHIND.search(name) and not name.lower().endswith(known)]
    said = []
    for found, why in (
        (unread, "a kind of image that is not read; convert it to .nii.gz"),
        (packed, "an archive, which is not looked into; unpack it if it holds scans"),
        (
            [name for name in behind if name not in (*unread, *packed)],
            "more behind the ending of a scan; rename it if it is one, or finish its download",
        ),
    ):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            said.append(f"{found[0]}{more}: {why}")
    return said


def is_slicer_segmentation(path: AnyPath) -> bool:
    """Whether a file has the name of a 3D Slicer segmentation, ``CASE.seg.nrrd``."""
    return Path(path).name.lower().endswith((f"{_SLICER}.nrrd", f"{_SLICER}.nhdr"))


def description_of(path: AnyPath) -> str:
    """The text that ``write_label_volume`` put into the header; "" if there is none, or no readable header."""
    file_format = FORMATS[ending_of(path)]
    try:
        with _blamed_on(path):
            return str(file_format.description(Path(path))) if hasattr(file_format, "description") else ""
    except AutosegError:
        return ""


def is_dicom(image: Image) -> bool:
    """Whether an image is read as DICOM: a series, a folder, or a file without a known ending that begins as DICOM."""
    if isinstance(image, DicomSeries) or Path(image).is_dir():
        return True
    path = Path(image)
    if path.name.lower().endswith(tuple(FORMATS)) or not path.is_file():
        return False
    with path.open("rb") as file:
        return is_dicom_start(file.read(132))


def has_grid(image: Image) -> bool:
    """False for a DICOM structure set, whose contours can only be drawn on the grid of a scan."""
    if isinstance(image, DicomSeries) or not is_dicom(image):
        return True
    with _blamed_on(image):
        return bool(_dicom().has_grid(Path(image)))


def paths_of(image: Image) -> tuple[Path, ...]:
    """The files of an image: one, or those of a DICOM series."""
    return image.paths if isinstance(image, DicomSeries) else (Path(image),)


def digest_on_disk(image: Image) -> str:
    """The ``digest`` that ``read_file`` returns, without decoding, except for headers with separate voxel files."""
    apart = (".mhd", ".nhdr")
    if isinstance(image, DicomSeries):
        return str(_dicom().digest_of_series(image))
    path = Path(image)
    return read_file(path).digest if path.name.lower().endswith(apart) else digest_of(read_bytes(path))


def series_in(source: AnyPath, *, inverts: bool = False, among: Iterable[Path] | None = None) -> Any:
    """Every DICOM series in a file, a folder or a tree, or in some of its files; see ``dicom_find.find_series``."""
    with _blamed_on(source):
        return _dicom().find_series(source, inverts=inverts, among=among)


def tell_series(path: Path) -> Any:
    """The DICOM series that a file belongs to; None if it is not an image of one; see ``dicom_find.tell_series``."""
    with _blamed_on(path):
        return _dicom().tell_series(path) if is_dicom(path) else None


def read_file(path: Image, *, as_label: bool = False, onto: Geometry | None = None) -> FileContent:
    """Read one file.

    Args:
        as_label: read label values, always exact: the numbers of a palette rather than its colours; the segment numbers of a
            DICOM segmentation.
        onto: grid of the scan that the file belongs to. A file with the same voxels but another order or direction of axes
            is reoriented to it, with a note. Labels of DICOM or 3D Slicer, which leave out empty voxels, are placed on it if
            their voxels are voxels of the scan. Contours of DICOM are drawn on it. Other files are unchanged.

    Raises:
        FileError: missing, unknown ending, truncated, damaged as shown by checksums or sizes, not an image.
    """
    file_format = _format_of(path)
    read = getattr(file_format, "read_labels", file_format.read) if as_label else file_format.read
    if as_label and onto is not None and not has_grid(path):
        with _blamed_on(path):
            return FileContent(*_dicom().read_contours(_as_image(path), onto))
    with _blamed_on(path):
        content = FileContent(*read(_as_image(path)))
        content.geometry.refuse_implausible()
    if as_label:
        content = _whole(content, path)
    elif content.geometry.is_sheared and not is_dicom(path):  # a DICOM series tells the angle of its gantry
        content = replace(content, notes=(*content.notes, _SHEARED))
    if onto is None:
        return content
    if not (as_label and _is_cropped(path)):
        return _turned(content, path, onto)
    laid = laid_on(content.data[0], content.geometry, onto)
    return content if laid is None else replace(content, data=laid[None], geometry=onto, is_part=False)


def _turned(content: FileContent, path: Image, onto: Geometry) -> FileContent:
    """The content reoriented to a grid of the same voxels with other axes; any other content unchanged."""
    turned = turned_onto(content.data, content.geometry, onto)
    if turned is None:
        return content
    data, grid = turned
    note = f"{_as_image(path).name}: the axes run {content.geometry.orientation}, those of the scan {onto.orientation}. "
    note += "The voxels are the same, and were reoriented to the scan."
    return replace(content, data=np.ascontiguousarray(data), geometry=grid, notes=(*content.notes, note))


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmentation of 3D Slicer or DICOM, read once for all structures in it.

    Attributes:
        path: the file.
        layers: its content, the data (L, Z, Y, X).
        segments: of each of ``segment_names``.
    """

    path: AnyPath
    layers: FileContent
    segments: dict[str, Any]

    def mask(self, name: str, onto: Geometry | None = None) -> FileContent:
        """One structure as a map of 0 and 1."""
        with _blamed_on(self.path):
            mask = itk.segment_mask(self.layers.data, self.segments[name], self.path).astype(np.uint8)
        laid = None if onto is None else laid_on(mask, self.layers.geometry, onto)
        if laid is None or onto is None:
            return replace(self.layers, data=mask[None])
        return replace(self.layers, data=laid[None], geometry=onto)


@dataclass(frozen=True, eq=False)
class Drawing:
    """A DICOM structure set, as ``Segmentation``: each structure is drawn where it is asked for."""

    path: AnyPath
    structures: Any
    segments: dict[str, int]

    def mask(self, name: str, onto: Geometry | None = None) -> FileContent:
        """One structure as a map of 0 and 1 on a grid, which it needs."""
        if onto is None:
            return read_file(self.path, as_label=True)  # an error that says so
        with _blamed_on(self.path):
            mask, notes = self.structures.mask(name, onto)
        return FileContent(mask[None], onto, notes, self.structures.digest)


def read_segmentation(path: AnyPath, only: Collection[str] | None = None) -> Segmentation | Drawing:
    """Read a segmentation of 3D Slicer, or of DICOM, or a structure set; see ``segment_names``.

    Args:
        only: names of the structures that will be asked for; None for all.
    """
    if not has_grid(path):
        with _blamed_on(path):
            structures = _dicom().read_structures(Path(path), only)
            return Drawing(path, structures, structures.values)
    if is_dicom(path):
        with _blamed_on(path):
            apart = _dicom().layers_of(Path(path)) > 1
            layers = FileContent(*_dicom().read_segments(Path(path), apart=apart, only=only))
            names = [(name, value) for name, value in segment_names(path).items() if only is None or name in only]
            return Segmentation(path, layers, {name: Segment(name, value, apart * n) for n, (name, value) in enumerate(names)})
    with _blamed_on(path):
        content, segments = itk.read_segmentation(path)
    return Segmentation(path, FileContent(*content), segments)


def _is_cropped(path: Image) -> bool:
    """Whether a label map may leave out empty borders."""
    return is_dicom(path) or (not isinstance(path, DicomSeries) and is_slicer_segmentation(path))


def _whole(content: FileContent, path: Image) -> FileContent:
    """Round label values that differ from whole numbers only by rounding, such as after a scale in the header.

    Raises:
        FileError: float32 values beyond the exact range.
    """
    if content.data.dtype.kind != "f":
        return content
    worst, lowest, highest = 0.0, 0.0, 0.0
    for part in content.data:
        if not np.isfinite(part).all():
            return content
        lowest, highest = min(lowest, float(part.min())), max(highest, float(part.max()))
        worst = max(worst, float(np.abs(part - np.rint(part)).max()))
    largest = max(highest, -lowest)
    if content.data.dtype == np.float32 and largest > _EXACT:
        raise FileError(
            f"{path}: expected label values that float32 holds exactly, up to {_EXACT}; found {largest:.0f}, "
            "which may stand for several values. Save the labels as whole numbers (uint32)."
        )
    if not 0 < worst <= min(FARTHEST_OFF, max(NEARLY_WHOLE, (highest - lowest) / 2 ** _bits_of_a_scale(path))):
        return content
    cause = ", because of a scale in the header" if _is_scaled(path) else ""
    note = f"Label values are up to {worst:.2g} off whole numbers{cause}; they are rounded."
    return replace(content, data=np.rint(content.data), notes=(*content.notes, note))


def _is_scaled(path: Image) -> bool:
    """Whether the header of a file has a slope or an intercept for its numbers."""
    file_format = _format_of(path)
    return hasattr(file_format, "is_scaled") and bool(file_format.is_scaled(_as_image(path)))


def _bits_of_a_scale(path: Image) -> int:
    """Bits of the stored numbers, which a scale in the header may have spread over the range of the labels."""
    if isinstance(path, DicomSeries) or _format_of(path) is not nifti:
        return 16
    return min(16, nifti.bits_of_a_number(path))


def read_geometry(path: Image) -> Geometry:
    """The grid of a file, without its voxels."""
    with _blamed_on(path):
        geometry: Geometry = _format_of(path).read_geometry(_as_image(path))
        geometry.refuse_implausible()
    return geometry


def read_volume(paths: Image | Iterable[Image], *, resample: bool = False, onto: Geometry | None = None) -> Volume:
    """The image in one file, or in a sequence of files with one or more channels each, as float32.

    Its ``notes`` are sentences about choices made in reading.

    Args:
        resample: resample files on other grids to the grid of the first, by cubic splines; outside their volume their
            smallest value is used.
        onto: as in ``read_file``, for the first file; the others are reoriented to the first one.

    Raises:
        FileError: as ``read_file``.
        GeometryError: the files have different grids, without ``resample``.
    """
    paths = [paths] if isinstance(paths, str | PathLike | DicomSeries) else list(paths)
    contents = [read_file(paths[0], onto=onto)]
    first = contents[0].geometry
    contents += [read_file(path, onto=first) for path in paths[1:]]
    notes = list(dict.fromkeys(note for content in contents for note in content.notes))
    arrays = [content.data for content in contents]
    for i, content in enumerate(contents):
        if content.geometry.is_same_grid(first):
            continue
        if not resample:
            raise GeometryError(
                f"the channels of an image must share one grid\n  {paths[0]}: {first}\n  {paths[i]}: {content.geometry}\n"
                f"{_difference(first, content.geometry)}"
                "Resample one onto the other, as `autoseg predict --resample-channels` does."
            )
        arrays[i] = resample_anywhere(content.data, content.geometry, first)
        notes.append(
            f"{_as_image(paths[i]).name}: {content.geometry}, resampled onto the grid of {_as_image(paths[0]).name}, {first}."
        )
    if len(arrays) == 1 and arrays[0].dtype == np.float32 and arrays[0].flags.carray:
        return Volume(arrays[0], first, tuple(notes))
    data = np.empty((sum(len(array) for array in arrays), *first.shape), np.float32)
    with np.errstate(over="ignore"):  # becomes infinite, which is refused where it matters
        return Volume(np.concatenate(arrays, out=data, casting="unsafe"), first, tuple(notes))


def segment_names(path: AnyPath) -> dict[str, int]:
    """{name: label value} stored in a segmentation of DICOM or 3D Slicer, or a structure set; {} for other files."""
    with _blamed_on(path):
        if not is_dicom(path):
            return itk.segment_names(path) if Path(path).name.lower().endswith((".nrrd", ".nhdr")) else {}
        names: dict[str, int] = _dicom().segment_names(Path(path))
        return names


def layers_of(path: AnyPath) -> int:
    """The number of layers of a segmentation of 3D Slicer or DICOM, which may overlap; 1 for other files."""
    with _blamed_on(path):
        if is_dicom(path):
            return int(_dicom().layers_of(Path(path)))
        return itk.layers_of(path) if is_slicer_segmentation(path) else 1


def read_label_volume(path: Image, onto: Geometry | None = None) -> LabelVolume:
    """The label values in a file. Floating-point values are accepted if all are whole. ``onto`` as in ``read_file``.

    Raises:
        FileError: as ``read_file``; several channels; a value that is not an integer.
    """
    content = read_file(path, as_label=True, onto=onto)
    if len(content.data) != 1:
        raise FileError(f"{path}: expected one label per voxel, found {len(content.data)} channels. Merge them into one.")
    data = content.data[0]
    if data.dtype.kind == "f":
        odd = ~np.isfinite(data)
        odd |= data != np.rint(data)
        if odd.any():
            raise FileError(
                f"{path}: expected whole numbers as labels, found {data[odd][0]} and {odd.sum() - 1} more. If it was "
                "resampled, do that again with nearest neighbour; else save it as whole numbers, without a scale in the header."
            )
        data = data.astype(_label_type(data, path))
    return LabelVolume(data, content.geometry, content.is_part)


def write_label_volume(volume: LabelVolume, path: AnyPath, like: Image | None = None, description: str = "") -> None:
    """Write labels in the smallest integer type that fits; the file is complete or absent.

    Args:
        like: path of the scan that the labels belong to. If both have the same format, its header is kept (NIfTI: codes,
            matrices, pixdim, units, texts; ITK: origin, spacing, direction). Otherwise a new header is written.
        description: a sentence for the header, up to 80 characters; pictures have none.

    Raises:
        GeometryError: ``like`` has another grid.
        FileError: the file cannot be written; values beyond 32 bits.
    """
    _write(volume.data.astype(_label_type(volume.data, path), copy=False), volume.geometry, path, like, description)


def write_volume(volume: Volume, path: AnyPath, like: Image | None = None) -> None:
    """Write intensities, float32; several channels become a 4D NIfTI or a vector image. ``like`` as for labels."""
    _write(volume.data.astype(np.float32, copy=False), volume.geometry, path, like)


def _write(array: np.ndarray, geometry: Geometry, path: AnyPath, like: Image | None, description: str = "") -> None:
    file_format = FORMATS[ending_of(path)]
    if like is not None:
        grid = read_geometry(like)
        if not grid.is_same_grid(geometry):
            raise GeometryError(
                f"{path}: expected the grid of {like}\n  there {grid}\n  here  {geometry}\n"
                f"{_difference(grid, geometry)}Bring the result back to the grid of the scan before it is written."
            )
        like = _as_image(like) if _format_of(like) is file_format else None
    more = {"description": description} if description and file_format is not pictures else {}
    file_format.write(Path(path), array, geometry, like, **more)


def _format_of(image: Image) -> Any:
    """The module that reads an image."""
    with _blamed_on(image):
        return _dicom() if isinstance(image, DicomSeries) or is_dicom(image) else FORMATS[ending_of(image)]


def _dicom() -> Any:
    try:
        from autoseg.imaging import dicom_read
    except ImportError as error:
        raise FileError(f"DICOM needs packages that are not installed ({error.name}): pip install {error.name}") from error
    except Exception as error:  # a broken package, or a folder of the same name imported as one
        raise FileError(
            f"DICOM needs packages that can be imported, found {type(error).__name__}: {error}. Install them again, "
            "or start from another folder: Python mistakes folders beside a script, or where it was started, for packages"
        ) from error
    return dicom_read


@contextmanager
def _blamed_on(image: Image) -> Iterator[None]:
    """Raise library errors, and errors that name no file (such as an implausible grid), as faults of the image being read."""
    try:
        with blamed_on(image, "an image that can be read"):
            yield
    except AutosegError as fault:
        if str(image) in str(fault) or str(fault).startswith("series "):  # the title of a DICOM series
            raise
        remedy = f". {REMEDY}" if isinstance(fault, GeometryError) else ""
        raise FileError(f"{image}: {fault}{remedy}") from fault


def _as_image(image: Image) -> Path | DicomSeries:
    return image if isinstance(image, DicomSeries) else Path(image)


def _difference(a: Geometry, b: Geometry) -> str:
    """The distance of two grids of equal shape, as a sentence, since their printed form may be the same."""
    return f"Corners lie up to {a.distance_mm(b):.3g} mm apart. " if a.shape == b.shape else ""


def _label_type(values: np.ndarray, path: Image) -> type[np.integer[Any]]:
    """The first of ``_LABEL_TYPES`` that holds all values; uint8 for none."""
    lowest, highest = (values.min(), values.max()) if values.size else (0, 0)
    for kind in _LABEL_TYPES:
        if np.iinfo(kind).min <= lowest and highest <= np.iinfo(kind).max:
            return kind
    raise FileError(f"{path}: expected label values within 32 bits, found {lowest} to {highest}. Renumber the structures.")
