"""Voxels of a DICOM series, read with pydicom and its installed codecs."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from autoseg.errors import FileError
from autoseg.imaging import dicom_label
from autoseg.imaging.dicom_contours import read_contours, read_structures, structure_names
from autoseg.imaging.dicom_file import pixel_source
from autoseg.imaging.dicom_find import find_series, tell_series
from autoseg.imaging.dicom_label import kind_of, layers_of, read_segments
from autoseg.imaging.dicom_series import DicomSeries, Plane, stack_of
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.raw import REMEDY, digest_of, read_bytes, refuse_beyond_memory

__all__ = [
    "digest_of_series",
    "find_series",
    "has_grid",
    "is_scaled",
    "layers_of",
    "only_series",
    "read",
    "read_contours",
    "read_geometry",
    "read_labels",
    "read_segments",
    "read_structures",
    "segment_names",
    "tell_series",
]

# voxels (C, Z, Y, X), their grid, notes, digest
Content = tuple[NDArray[Any], Geometry, tuple[str, ...], str]


def read(source: DicomSeries | Path) -> Content:
    """See ``files.read_file``; returns (data, geometry, notes, digest).

    Slope and intercept of each slice are applied: integers stay integers if all slopes are 1, else float32. If the image is
    meant to be displayed inverted, values are still the stored ones, with a note; see ``DicomSeries.inverts``. Colour images
    have three channels.

    Args:
        source: DicomSeries, or the path of a file or folder with exactly one.
    """
    series = only_series(source)
    stack = stack_of(series)
    data: NDArray[Any] | None = None
    for z, (plane, values) in enumerate(_stored(series)):
        if data is None:
            shape, kind = (plane.samples, len(series.planes), *plane.shape), _type(series, values.dtype)
            refuse_beyond_memory(math.prod(shape) * kind.itemsize, str(series))
            data = np.empty(shape, kind)
        data[:, z] = _rescaled(values, plane, data.dtype)
    assert data is not None
    return data, stack.geometry, stack.notes, digest_of_series(series)


def digest_of_series(series: DicomSeries) -> str:
    """The digest that ``read`` returns, without decoding the files.

    Raises:
        FileError: an unreadable file, named as in the series.
    """
    try:
        turned = [b"inverts"] if series.inverts and any(plane.is_inverted for plane in series.planes) else []
        digest: str = digest_of(*(digest_of(read_bytes(path)).encode() for path in series.paths), *turned)
    except FileError as fault:
        raise FileError(f"{series}: {_called(str(fault), series)}") from fault
    return digest


def _called(text: str, series: DicomSeries) -> str:
    """A message without file paths, which may identify the patient."""
    for plane in series.planes:
        text = text.replace(str(plane.path), plane.called)
    return text


def read_labels(source: DicomSeries | Path) -> Content | tuple[NDArray[Any], Geometry, tuple[str, ...], str, bool]:
    """As ``read``; from a segmentation object, the numbers of its segments, and that its grid covers only a part."""
    if isinstance(source, DicomSeries):
        return read(source)
    if not has_grid(source):
        raise FileError(
            f"{source}: expected labels of voxels, found contours (RTSTRUCT), which need the grid of their scan. Give both to "
            "`autoseg convert folders`, or export the labels as SEG or NIfTI."
        )
    return read_segments(source) if source.is_file() and kind_of(source) == "SEG" else read(source)


def is_scaled(source: DicomSeries | Path) -> bool:
    """Whether a slope or an intercept changes the stored values of a series."""
    return any((plane.slope, plane.intercept) != (1, 0) for plane in only_series(source).planes)


def has_grid(source: Path) -> bool:
    """False for a structure set, whose contours are drawn on the grid of a scan (``read_contours``)."""
    return not (source.is_file() and kind_of(source) == "RTSTRUCT")


def segment_names(path: Path) -> dict[str, int]:
    """{name: value in the label map} of a segmentation object or a structure set; {} for any other file."""
    return dicom_label.segment_names(path) if has_grid(path) else structure_names(path)


def read_geometry(source: DicomSeries | Path) -> Geometry:
    """The grid alone; no voxels are read."""
    return stack_of(only_series(source)).geometry


def only_series(source: DicomSeries | Path) -> DicomSeries:
    """The series itself, or the only one in a file or folder.

    Raises:
        FileError: no series, or several, which are listed.
    """
    if isinstance(source, DicomSeries):
        return source
    found = find_series(source)
    if len(found.series) != 1:
        listed = "".join(f"\n  {series}{f' ({series.origin})' * bool(series.origin)}" for series in found.series) or "none"
        left = "".join(f"\n  left out: {sentence}" for sentence in found.left_out)
        raise FileError(f"{source}: expected one DICOM series, found {listed}{left}\nGive the folder of one series.")
    return found.series[0]


def _stored(series: DicomSeries) -> Iterator[tuple[Plane, NDArray[Any]]]:
    """Each plane with its stored values (samples, rows, columns), inverted if the series asks for it."""
    path: Path | None = None
    source: Path | Dataset = Path()
    header = Dataset()
    for plane in series.planes:
        try:
            if plane.path != path:
                path, source = plane.path, pixel_source(plane.path, plane.called)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about invalid values in elements not used here
                array = pixel_array(source, index=plane.frame, ds_out=header)
        except Exception as error:  # codecs raise many types
            reason = _called(str(error).strip(" ."), series) or type(error).__name__
            raise FileError(
                f"{series}: the voxels of {plane.called} cannot be decoded: {reason}. {REMEDY} If it is a codec that is "
                "missing: pip install python-gdcm pyjpegls"
            ) from error
        expected = (*plane.shape, plane.samples) if plane.samples > 1 else plane.shape
        if array.shape != expected:
            raise FileError(f"{series}: {plane.called}: expected voxels of shape {expected}, found {array.shape}. {REMEDY}")
        if series.inverts and plane.is_inverted:
            array = _turned_round(array, source if isinstance(source, Dataset) else header)
        yield plane, np.moveaxis(array, -1, 0) if plane.samples > 1 else array[None]


def _turned_round(values: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """Inverted values: the largest value of the stored bits becomes the smallest, and so on."""
    bits = int(header.get("BitsStored") or 8 * values.itemsize)
    last = (1 << bits) - 1 if values.dtype.kind == "u" else -1
    turned: NDArray[Any] = last - values
    return turned


def _type(series: DicomSeries, stored: np.dtype[Any]) -> np.dtype[Any]:
    """An integer type for every rescaled value, if all are whole numbers; else float32."""
    is_whole = all(
        plane.slope == 1 and plane.intercept.is_integer() and abs(plane.intercept) < 2**30 for plane in series.planes
    )
    if stored.kind not in "iu" or not is_whole:
        return np.dtype(np.float32)
    return np.dtype(np.int32 if stored.itemsize <= 2 else np.int64)


def _rescaled(values: NDArray[Any], plane: Plane, kind: np.dtype[Any]) -> NDArray[Any]:
    rescaled: NDArray[Any] = (
        values * plane.slope + plane.intercept  # float64
        if kind.kind == "f"
        else np.add(values, int(plane.intercept), dtype=kind)
    )
    return rescaled
