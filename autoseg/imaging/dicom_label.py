"""A DICOM segmentation object as a label map: each voxel has the number of its segment.

Frames are placed by their positions. Writers leave out empty frames, so there may be empty slices between two frames, and the
grid covers only the stored slices: the extent of the scan is unknown. ``crop.laid_on`` brings it to the grid of the scan.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import get_expected_length, iter_pixels

from autoseg.errors import FileError, GeometryError, blamed_on
from autoseg.imaging.dicom_file import open_dataset
from autoseg.imaging.dicom_find import header_of, planes_of
from autoseg.imaging.dicom_series import DicomSeries, Plane, depths_mm, repeats, stack_of
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.raw import REMEDY, digest_of, read_bytes, refuse_beyond_memory

__all__ = ["distinct_names", "kind_of", "layers_of", "read_segments", "segment_names", "text_of"]

NEAR_MULTIPLE = 0.1  # of a slice
MOST_SLICES = 1 << 15  # in a plausible scan


@dataclass(frozen=True)
class _Segment:
    """``value`` in the label map is the segment number, or the first free value if that is 0, our background."""

    name: str
    value: int


def kind_of(path: Path) -> str:
    """The modality of a DICOM file, such as SEG; "" if not stated."""
    return str((header_of(path) or {}).get("Modality", ""))


def segment_names(path: Path) -> dict[str, int]:
    """{name: value in the label map}, ordered by value, without the background.

    The number is appended to repeated names. {} for a file that is not a segmentation object.
    """
    if kind_of(path) != "SEG":
        return {}
    with blamed_on(path, "a segmentation object that is whole"):
        segments = _segments(open_dataset(path, stop_before_pixels=True))
    names = distinct_names({number: segment.name for number, segment in segments.items()})
    return {names[number]: one.value for number, one in sorted(segments.items(), key=lambda item: item[1].value)}


def distinct_names(called: Mapping[int, str]) -> dict[int, str]:
    """{number: name}; the number is appended to a name that is missing, or that several have."""
    taken, names = Counter(called.values()), dict(called)
    for number, name in called.items():
        if not name or taken[name] > 1:
            names[number] = f"{name or 'segment'} {number}"
            while names[number] in taken:
                names[number] += f" {number}"
    return names


def text_of(item: Dataset | None, keyword: str) -> str:
    """The text of an element, "" if missing; a backslash, which separates values in DICOM, belongs to it."""
    value = item.get(keyword) if item else None
    several = value if isinstance(value, MultiValue) else [value or ""]
    return "\\".join(map(str, several)).strip()


def layers_of(path: Path) -> int:
    """The number of segments if the object says that some overlap, else 1."""
    ds = open_dataset(path, stop_before_pixels=True)
    return len(_segments(ds)) if ds.get("SegmentsOverlap") == "YES" else 1


def read_segments(
    path: Path, *, apart: bool = False, only: Collection[str] | None = None
) -> tuple[NDArray[Any], Geometry, tuple[str, ...], str, bool]:
    """See ``files.read_file``; returns (data (1, Z, Y, X), geometry, notes, digest, True: the grid covers only a part).

    Fractional values count as inside from one half.

    Args:
        apart: data is (S, Z, Y, X) instead, each segment in a layer of its own, in the order of ``segment_names``.
        only: names of the segments that get a layer; None for all.

    Raises:
        FileError: overlapping segments; frames without a segment number; voxels that cannot be decoded.
        GeometryError: frames without a position, or no stack of parallel slices.
    """
    with blamed_on(path, "a segmentation object that is whole"):
        ds, names = open_dataset(path), {value: name for name, value in segment_names(path).items()}
        planes = list(planes_of(path, header_of(path) or {}))
        if not planes or not all(plane.position and plane.orientation and plane.spacing_mm for plane in planes):
            raise GeometryError(f"{path}: expected frames with a place in the patient, found some without. Export it as NIfTI.")
        slots, filled = _filled(planes, _spacing_mm(ds), path)
        stack = stack_of(DicomSeries(path.stem, str(path), filled))
        segments, notes, data, known = _segments(ds), [*stack.notes], None, {0, *names}
        layers = [value for value, name in names.items() if only is None or name in only]
        for z, values in zip(slots, _frames(path, ds, segments), strict=True):
            if data is None:
                kind = np.dtype(np.min_scalar_type(max([255, *names])))
                shape = (len(layers) if apart else 1, *stack.geometry.shape)
                refuse_beyond_memory(math.prod(shape) * kind.itemsize, path)
                data = np.zeros(shape, kind)
            here = np.unique(values).tolist()
            if unknown := set(here) - known:
                raise FileError(f"{path}: expected segments {sorted(names)}, found voxels of {sorted(unknown)}. {REMEDY}")
            for layer in [layers.index(value) for value in here if value in layers] if apart else [0]:
                _paint(data[layer, z], values, names, path)
        assert data is not None
    if 0 in segments:
        notes.append(f"Segment 0 ({segments[0].name}) has the value {segments[0].value} here, since 0 is background.")
    return data, stack.geometry, tuple(notes), digest_of(read_bytes(path)), True


def _segments(ds: FileDataset) -> dict[int, _Segment]:
    """{segment number: _Segment} of all segments except the background.

    Background is the segment of the padding value, and any segment coded as background. Another segment with the
    number 0 is an ordinary structure.
    """
    from pydicom.sr.codedict import codes  # takes a fifth of a second

    padding, background = ds.get("PixelPaddingValue"), codes.DCM.Background
    names = {
        int(item.SegmentNumber): text_of(item, "SegmentLabel")
        for item in ds.get("SegmentSequence") or ()
        if item.SegmentNumber != padding
        and not any(code.get("CodeValue") == background.value for code in item.get("SegmentedPropertyTypeCodeSequence") or ())
    }
    return {number: _Segment(name, number or max(names) + 1) for number, name in names.items()}


def _spacing_mm(ds: FileDataset) -> float | None:
    """SpacingBetweenSlices, or None."""
    shared, each = ds.get("SharedFunctionalGroupsSequence") or (), ds.get("PerFrameFunctionalGroupsSequence") or ()
    for group in (*shared, *each[:1]):
        for measures in group.get("PixelMeasuresSequence") or ():
            if measures.get("SpacingBetweenSlices"):
                return abs(float(measures.SpacingBetweenSlices))
    return None


def _filled(planes: list[Plane], spacing_mm: float | None, path: Path) -> tuple[NDArray[np.intp], tuple[Plane, ...]]:
    """(slice number of each frame, one Plane for each slice), including slices without a frame."""
    depths = depths_mm(planes)
    order = np.argsort(depths, kind="stable")
    same = repeats(depths[order], planes[0], spacing_mm or np.inf)
    gaps = np.diff(depths[order][np.r_[True, ~same]])
    step = gaps.min() if gaps.size else spacing_mm or 1.0
    if spacing_mm and np.abs(gaps / spacing_mm - np.rint(gaps / spacing_mm)).max(initial=0) < NEAR_MULTIPLE:
        step = min(step, spacing_mm)
    if np.ptp(depths) / step > MOST_SLICES:
        raise GeometryError(
            f"{path}: expected frames of a stack, found some {np.ptp(depths):.4g} mm apart in steps of {step:.4g} mm. {REMEDY}"
        )
    slots = np.rint((depths - depths.min()) / step).astype(int)
    known, first = np.unique(slots, return_index=True)
    places = np.array([planes[i].position for i in first])
    if len(first) == 1:
        return slots, (replace(planes[0], thickness_mm=spacing_mm or planes[0].thickness_mm),)
    every = np.arange(known[-1] + 1)
    places = np.stack([np.interp(every, known, column) for column in places.T], axis=1)
    nearest = first[np.searchsorted(known, every, side="right") - 1]
    return slots, tuple(replace(planes[i], position=tuple(place)) for i, place in zip(nearest, places, strict=True))


def _frames(path: Path, ds: FileDataset, segments: dict[int, _Segment]) -> Iterator[NDArray[Any]]:
    """Yields the label values (rows, columns) of each frame."""
    shared = ds.get("SharedFunctionalGroupsSequence") or ()
    highest = float(ds.get("MaximumFractionalValue") or (1 << int(ds.get("BitsStored") or 8)) - 1)
    kind, padding = ds.get("SegmentationType"), ds.get("PixelPaddingValue")
    largest = max((segment.value for segment in segments.values()), default=0)
    frames = zip(_decoded(path, ds), ds.PerFrameFunctionalGroupsSequence, strict=True)
    for frame, (pixels, group) in enumerate(frames, start=1):
        if kind == "LABELMAP":
            values = pixels.astype(np.promote_types(pixels.dtype, np.min_scalar_type(largest)))
            if 0 in segments:
                values[pixels == 0] = segments[0].value
            if padding is not None:
                values[pixels == padding] = 0
            yield values
            continue
        value = segments[_segment_of(path, frame, [*shared, group], segments)].value
        inside = pixels >= highest / 2 if kind == "FRACTIONAL" else pixels != 0
        yield inside * np.min_scalar_type(value).type(value)


def _segment_of(path: Path, frame: int, groups: list[Dataset], segments: dict[int, _Segment]) -> int:
    """The segment number of a frame; it may be missing in an object with one segment."""
    numbers = {int(one.ReferencedSegmentNumber) for group in groups for one in group.get("SegmentIdentificationSequence") or ()}
    if not numbers and len(segments) == 1:
        return next(iter(segments))
    if len(numbers) != 1 or not numbers <= set(segments):
        listed = ", ".join(map(str, sorted(numbers))) or "none"
        raise FileError(
            f"{path}: expected one of the segments {', '.join(map(str, sorted(segments))) or '(none is described)'} for frame "
            f"{frame}, found {listed}. "
            "Export it again, or as NIfTI."
        )
    return next(iter(numbers))


def _decoded(path: Path, ds: FileDataset) -> Iterator[NDArray[Any]]:
    """The pixels of each frame. Missing bits at the end are an error; pydicom would fill them in."""
    try:
        is_packed = ds.file_meta.TransferSyntaxUID.is_compressed
        if not is_packed and len(ds.PixelData) < (expected := get_expected_length(ds)):
            raise ValueError(f"expected {expected} bytes of voxels, found {len(ds.PixelData)}")
        yield from _bits(ds) if ds.BitsAllocated == 1 and not is_packed else iter_pixels(ds)
    except Exception as error:  # codecs raise many types
        raise FileError(f"{path}: the frames cannot be decoded: {str(error).strip(' .')}. {REMEDY}") from error


def _bits(ds: FileDataset) -> Iterator[NDArray[np.uint8]]:
    """(rows, columns) of 0 and 1 for each frame. Frames are stored without gaps, so most start within a byte, where pydicom
    cannot extract them singly."""
    shape, raw = (int(ds.Rows), int(ds.Columns)), np.frombuffer(ds.PixelData, np.uint8)
    size = math.prod(shape)
    for first in range(0, int(ds.get("NumberOfFrames") or 1) * size, size):
        pieces = np.unpackbits(raw[first // 8 : (first + size + 7) // 8], bitorder="little")
        yield pieces[first % 8 : first % 8 + size].reshape(shape)


def _paint(layer: NDArray[Any], values: NDArray[Any], names: dict[int, str], path: Path) -> None:
    """Put the values of a frame on its slice; an error if a voxel already has another value."""
    inside = values != 0
    twice = inside & (layer != 0) & (layer != values)
    if twice.any():
        pair = names[int(layer[twice][0])], names[int(values[twice][0])]
        raise FileError(
            f"{path}: expected one segment per voxel, found {pair[0]} and {pair[1]} in one. Export each segment as an "
            "object of its own: `autoseg convert folders` takes a folder of them for each case."
        )
    layer[inside] = values[inside]
