"""Labels as a DICOM segmentation object, through highdicom: a binary segment per structure, on the segmented images.

As DICOM requires, the object names the patient and study of its images, so it is as confidential as they are.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from autoseg.atomic import replacing
from autoseg.errors import FileError
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.crop import numbered
from autoseg.imaging.dicom_codes import code_structure
from autoseg.imaging.dicom_headers import headers_of, plain_text, series_number, unique_identifier
from autoseg.imaging.dicom_series import DicomSeries, depths_mm, grid_plane
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume

__all__ = ["write_seg"]

T = TypeVar("T")


def write_seg(
    path: Path,
    series: DicomSeries,
    labels: LabelVolume,
    structures: Mapping[str, Sequence[int]],
    *,
    model: str,
    version: str,
) -> tuple[str, ...]:
    """Write a segmentation object.

    Args:
        series: the DicomSeries that was segmented.
        labels: LabelVolume on its grid.
        structures: {name: its label values}; they may overlap. An absent structure keeps its (empty) segment. The object of
            a single structure has all frames of the images; with several structures, only those that are not empty.
        model: what produced the labels, such as the name and digest of a model.
        version: of autoseg.

    Returns:
        Sentences about header values of the images that were left empty.

    Raises:
        FileError: the images lack elements that the object must repeat, or have invalid ones.
    """
    headers, notes = headers_of(series)
    if len(headers) > 1 and any(plane.frame for plane in series.planes):
        raise FileError(
            f"{series}: a segmentation object refers to one file of many frames, found {len(headers)}. Use rtstruct"
        )
    first = headers[0]
    frames = int(first.get("NumberOfFrames") or 1)
    _state_geometry(headers, series, labels.geometry)
    identify = unique_identifier(series, labels, model, " ".join(["SEG", *(structures if len(structures) == 1 else ())]))
    try:
        segmentation = _quietly(
            highdicom.seg.Segmentation,
            source_images=headers,
            pixel_array=_masks(series, labels, tuple(structures.values()), frames),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(structures, model, version, identify),
            omit_empty_frames=len(structures) > 1 or frames not in (1, len(series.planes)),  # SimpleITK stacks frames
            series_instance_uid=identify("series"),
            series_number=series_number(first, 1000),
            sop_instance_uid=identify("instance"),
            instance_number=1,
            manufacturer="autoseg",
            manufacturer_model_name="autoseg",
            software_versions=version,
            device_serial_number="none",
            content_label="SEGMENTATION",
            content_description=plain_text(f"autoseg, {model}"),
            series_description="autoseg segmentation",
        )
    except Exception as error:  # headers that highdicom rejects, with many types
        reason = str(error).strip(" .") or type(error).__name__
        raise FileError(
            f"{series}: no segmentation object can refer to these images: {reason}. Ask for rtstruct or for NIfTI only."
        ) from error
    with replacing(path) as draft:
        _quietly(segmentation.save_as, draft)
    return notes


def _quietly(make: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call without pydicom's warnings about invalid names and identifiers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args, **options)


def _state_geometry(headers: list[FileDataset], series: DicomSeries, geometry: Geometry) -> None:
    """Correct the headers, which highdicom copies: one orientation, and slice thickness equal to slice distance."""
    plane = grid_plane(series.planes)
    assert plane.spacing_mm is not None
    assert plane.orientation is not None
    depths = depths_mm(series.planes)
    distance = float(depths[-1] - depths[0]) / (len(depths) - 1) if len(depths) > 1 else geometry.spacing_mm[0]
    measures = highdicom.PixelMeasuresSequence(plane.spacing_mm, distance, distance)
    orientation = highdicom.PlaneOrientationSequence("PATIENT", plane.orientation)
    for header in headers:
        if "SharedFunctionalGroupsSequence" in header:
            shared = header.SharedFunctionalGroupsSequence[0]
            shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = measures, orientation
        else:
            header.update(measures[0])
            header.update(orientation[0])


def _masks(series: DicomSeries, labels: LabelVolume, groups: Sequence[Sequence[int]], frames: int) -> NDArray[Any]:
    """Segment numbers (planes, rows, columns); if structures overlap, one mask for each (planes, rows, columns, segments).

    Planes are in the order of the images: of the files, or of the frames of a single file. Frames outside this volume
    are empty.
    """
    values = sorted({value for group in groups for value in group})
    order = range(len(labels.data)) if frames == 1 else [plane.frame for plane in series.planes]
    shape = (max(frames, len(labels.data)), *labels.data.shape[1:])
    if len(values) == sum(len(group) for group in groups):
        segments = {value: number for number, group in enumerate(groups, start=1) for value in group}
        table = np.array([0, *(segments[value] for value in values)], np.uint16 if len(groups) > 255 else np.uint8)
        masks: NDArray[Any] = np.zeros(shape, table.dtype)
        masks[order] = table[numbered(labels.data, values)]
        return masks
    masks = np.zeros((*shape, len(groups)), np.uint8)  # filled in place: these may take most of the memory
    for number, group in enumerate(groups):
        masks[order, ..., number] = np.isin(labels.data, group)
    return masks


def _descriptions(
    structures: Mapping[str, Sequence[int]], model: str, version: str, identify: Callable[[str], str]
) -> list[highdicom.seg.SegmentDescription]:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=plain_text(f"autoseg, {model}"), family=codes.DCM.ArtificialIntelligence, version=version
    )
    descriptions = []
    for number, (name, colour) in enumerate(zip(structures, structure_colours(structures), strict=True), start=1):
        code = code_structure(name)
        description = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=plain_text(name),
            segmented_property_category=code.category,
            segmented_property_type=code.kind,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=identify(f"segment {number}"),
            tracking_id=plain_text(name),
            display_color=highdicom.color.CIELabColor.from_rgb(*colour),
        )
        if code.side:
            kind = description.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [coded(code.side)]
        descriptions.append(description)
    return descriptions


def coded(code: Code) -> Dataset:
    """A code as an item of a sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
