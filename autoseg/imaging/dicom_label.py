"""A DICOM segmentation object as a label map: the value of a voxel is the number of its segment.

Frames lie where their positions say; writers leave empty ones out, so between two frames an empty slice
may stand, and the grid begins and ends with the structures. ``crop.laid_on`` brings it to that of the scan.
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels.utils import get_expected_length, iter_pixels

from autoseg.errors import FileError, GeometryError
from autoseg.imaging.dicom_find import header_of, planes_of
from autoseg.imaging.dicom_series import DicomSeries, Plane, stack_of
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.raw import REMEDY, digest_of, read_bytes

__all__ = ["kind_of", "read_segments", "segment_names"]

NEAR_MULTIPLE = 0.1  # of a slice


def kind_of(path: Path) -> str:
    """The modality of a DICOM file, such as SEG; "" where it says none."""
    return str((header_of(path) or {}).get("Modality", ""))


def segment_names(path: Path) -> dict[str, int]:
    """{name: segment number}; a name that occurs twice is followed by the number. Segment 0 is background.

    {} of a file that is no segmentation object.
    """
    if kind_of(path) != "SEG":
        return {}
    labels = {int(s.SegmentNumber): str(s.get("SegmentLabel") or "") for s in _dataset(path).get("SegmentSequence", ())}
    taken = list(labels.values())
    return {
        name if name and taken.count(name) == 1 else f"{name or 'segment'} {number}": number
        for number, name in sorted(labels.items())
        if number
    }


def read_segments(path: Path) -> tuple[NDArray[Any], Geometry, tuple[str, ...], str]:
    """See ``files.read_file``; returns (data (1, Z, Y, X), geometry, notes, digest).

    Fractions count from one half.

    Raises:
        FileError: segments that overlap; voxels that cannot be decoded.
        GeometryError: frames without a place, or no stack of parallel slices.
    """
    ds, names = _dataset(path), {number: name for name, number in segment_names(path).items()}
    planes = list(planes_of(path, header_of(path) or {}))
    if any(plane.position is None or plane.orientation is None for plane in planes):
        raise GeometryError(f"{path}: expected frames with a place in the patient, found some without. Export it as NIfTI.")
    slots, filled = _filled(planes, _spacing_mm(ds))
    stack = stack_of(DicomSeries(path.stem, str(path), filled))
    data = np.zeros(stack.geometry.shape, np.uint8 if max(names, default=0) < 256 else np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd values in elements that nobody here needs
        for z, numbers in zip(slots, _numbers(path, ds), strict=True):
            _paint(data[z], numbers, names, path)
    return data[None], stack.geometry, stack.notes, digest_of(read_bytes(path))


def _dataset(path: Path) -> FileDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path)


def _spacing_mm(ds: FileDataset) -> float | None:
    """SpacingBetweenSlices, or None."""
    for group in (*ds.get("SharedFunctionalGroupsSequence", ()), *ds.get("PerFrameFunctionalGroupsSequence", ())[:1]):
        for measures in group.get("PixelMeasuresSequence", ()):
            if measures.get("SpacingBetweenSlices"):
                return abs(float(measures.SpacingBetweenSlices))
    return None


def _filled(planes: list[Plane], spacing_mm: float | None) -> tuple[NDArray[np.intp], tuple[Plane, ...]]:
    """(number of the slice of each frame, one Plane for each slice), slices that have no frame included."""
    depths = np.array([plane.depth_mm for plane in planes])
    gaps = np.diff(np.unique(depths.round(2)))
    step = gaps.min() if gaps.size else spacing_mm or 1.0
    if spacing_mm and np.abs(gaps / spacing_mm - np.rint(gaps / spacing_mm)).max(initial=0) < NEAR_MULTIPLE:
        step = min(step, spacing_mm)
    slots = np.rint((depths - depths.min()) / step).astype(int)
    known, first = np.unique(slots, return_index=True)
    places = np.array([planes[i].position for i in first])
    if len(first) == 1:
        return slots, (replace(planes[0], thickness_mm=spacing_mm or planes[0].thickness_mm),)
    every = np.arange(known[-1] + 1)
    places = np.stack([np.interp(every, known, column) for column in places.T], axis=1)
    nearest = first[np.searchsorted(known, every, side="right") - 1]
    return slots, tuple(replace(planes[i], position=tuple(place)) for i, place in zip(nearest, places, strict=True))


def _numbers(path: Path, ds: FileDataset) -> Iterator[NDArray[Any]]:
    """(rows, columns) segment numbers of each frame."""
    shared = ds.get("SharedFunctionalGroupsSequence", ())
    highest = float(ds.get("MaximumFractionalValue", 1))
    kind, padding = ds.get("SegmentationType"), ds.get("PixelPaddingValue")
    frames = zip(_decoded(path, ds), ds.PerFrameFunctionalGroupsSequence, strict=True)
    for pixels, group in frames:
        if kind == "LABELMAP":
            yield np.where(pixels == padding, 0, pixels) if padding is not None else pixels
            continue
        (number,) = {
            int(one.ReferencedSegmentNumber)
            for part in (*shared, group)
            for one in part.get("SegmentIdentificationSequence", ())
        }
        inside = pixels >= highest / 2 if kind == "FRACTIONAL" else pixels != 0
        yield inside * np.uint16(number)


def _decoded(path: Path, ds: FileDataset) -> Iterator[NDArray[Any]]:
    """Pixels of each frame. Of bits that are missing at the end pydicom would make up some."""
    try:
        if not ds.file_meta.TransferSyntaxUID.is_compressed and len(ds.PixelData) < (expected := get_expected_length(ds)):
            raise ValueError(f"expected {expected} bytes of voxels, found {len(ds.PixelData)}")
        yield from iter_pixels(ds)
    except Exception as error:  # codecs raise what they like
        raise FileError(f"{path}: the frames cannot be decoded: {str(error).strip(' .')}. {REMEDY}") from error


def _paint(layer: NDArray[Any], numbers: NDArray[Any], names: dict[int, str], path: Path) -> None:
    """Put the segment numbers of a frame on the slice; refuse a voxel that has one already."""
    inside = numbers != 0
    if unknown := set(np.unique(numbers).tolist()) - {0, *names}:
        raise FileError(f"{path}: expected segments {sorted(names)}, found voxels of {sorted(unknown)}. {REMEDY}")
    twice = inside & (layer != 0) & (layer != numbers)
    if twice.any():
        pair = names[int(layer[twice][0])], names[int(numbers[twice][0])]
        raise FileError(
            f"{path}: expected one segment per voxel, found {pair[0]} and {pair[1]} in one. Export each segment as an "
            "object of its own: `autoseg convert folders` takes a folder of them for each case."
        )
    layer[inside] = numbers[inside]
