"""Voxels of a DICOM series, through pydicom and the codecs that it finds installed."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import generate_uid

from autoseg.errors import FileError
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.dicom_label import kind_of, read_segments, segment_names
from autoseg.imaging.dicom_series import DicomSeries, Plane, stack_of
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.raw import REMEDY, digest_of, read_bytes
from autoseg.imaging.volume import LabelVolume

__all__ = ["headers_of", "only_series", "read", "read_geometry", "read_labels", "segment_names", "unique_identifier"]

# voxels (C, Z, Y, X), their grid, notes, digest
Content = tuple[NDArray[Any], Geometry, tuple[str, ...], str]

# what derived objects repeat: must have a value, and may be empty
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)


def read(source: DicomSeries | Path) -> Content:
    """See ``files.read_file``; returns (data, geometry, notes, digest).

    Slope and intercept of each slice are applied: integers stay integers where all slopes are 1, else float32. Values are the
    stored ones also where the image is meant to be shown inverted. Colour images have three channels.

    Args:
        source: DicomSeries, or the path of a file or folder that holds exactly one.
    """
    series = only_series(source)
    stack = stack_of(series)
    data: NDArray[Any] | None = None
    for z, plane in enumerate(series.planes):
        values = _values(series, plane)
        if data is None:
            data = np.empty((plane.samples, len(series.planes), *plane.shape), _type(series, values.dtype))
        data[:, z] = _rescaled(values, plane, data.dtype)
    assert data is not None
    return data, stack.geometry, stack.notes, digest_of(*(digest_of(read_bytes(path)).encode() for path in series.paths))


def read_labels(source: DicomSeries | Path) -> Content:
    """As ``read``; of a segmentation object the numbers of its segments."""
    if isinstance(source, DicomSeries):
        return read(source)
    kind = kind_of(source) if source.is_file() else ""
    if kind == "RTSTRUCT":
        raise FileError(f"{source}: expected labels of voxels, found contours (RTSTRUCT). Export them as SEG or NIfTI.")
    return read_segments(source) if kind == "SEG" else read(source)


def read_geometry(source: DicomSeries | Path) -> Geometry:
    """The grid alone; no voxels are read."""
    return stack_of(only_series(source)).geometry


def only_series(source: DicomSeries | Path) -> DicomSeries:
    """The series itself, or the only one in a file or folder.

    Raises:
        FileError: none, or several, which are listed.
    """
    if isinstance(source, DicomSeries):
        return source
    found = find_series(source)
    if len(found.series) != 1:
        listed = "".join(f"\n  {series}{f' ({series.origin})' * bool(series.origin)}" for series in found.series) or "none"
        left = "".join(f"\n  left out: {sentence}" for sentence in found.left_out)
        raise FileError(f"{source}: expected one DICOM series, found {listed}{left}\nGive the folder of one series.")
    return found.series[0]


def headers_of(series: DicomSeries) -> list[FileDataset]:
    """Everything but the voxels of each file, in the order of the planes, for objects that refer to it.

    Texts are decoded and will be written as UTF-8; elements that such objects repeat exist, if need be empty. Images without a
    frame of reference (some anonymisers remove it) get one that follows from their series.

    Raises:
        FileError: an identifier is missing that such objects must repeat.
    """
    headers = []
    for path, called in {plane.path: plane.called for plane in series.planes}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True)
            header.decode()
        missing = [name for name in _NEEDED if not header.get(name)]
        if missing:
            raise FileError(
                f"{series}: {called} has no {', '.join(missing)}, which DICOM results must repeat. Ask for NIfTI only."
            )
        if not header.get("FrameOfReferenceUID"):
            header.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference", header.SeriesInstanceUID])
        header.SpecificCharacterSet = "ISO_IR 192"
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
        headers.append(header)
    return headers


def unique_identifier(series: DicomSeries, labels: LabelVolume, model: str, kind: str) -> Callable[[str], str]:
    """A function from a word to a UID: the same for the same images, labels and model, and for no others."""
    about = [kind, model, *(plane.uid for plane in series.planes), digest_of(np.ascontiguousarray(labels.data).view(np.uint8))]
    return lambda word: generate_uid(entropy_srcs=[word, *about])


def _values(series: DicomSeries, plane: Plane) -> NDArray[Any]:
    """(samples, rows, columns) as stored."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd values in elements that nobody here needs
            array = pixel_array(plane.path, index=plane.frame)
    except Exception as error:  # codecs raise what they like
        raise FileError(
            f"{series}: the voxels of {plane.called} cannot be decoded: {str(error).strip() or type(error).__name__}. "
            f"{REMEDY} If it is a codec that is missing: pip install autoseg[dicom]"
        ) from error
    expected = (*plane.shape, plane.samples) if plane.samples > 1 else plane.shape
    if array.shape != expected:
        raise FileError(f"{series}: {plane.called}: expected voxels of shape {expected}, found {array.shape}. {REMEDY}")
    return np.moveaxis(array, -1, 0) if plane.samples > 1 else array[None]


def _type(series: DicomSeries, stored: np.dtype[Any]) -> np.dtype[Any]:
    """An integer type that surely holds every rescaled value, where all of them are whole; else float32."""
    is_whole = all(plane.slope == 1 and plane.intercept.is_integer() for plane in series.planes)
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
