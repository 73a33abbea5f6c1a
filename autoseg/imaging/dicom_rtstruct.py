"""Labels as a DICOM structure set for radiotherapy: closed planar contours on every slice.

A contour runs half-way between the centres of voxels inside and outside, so a pixel belongs to a structure exactly if its
centre is inside. Holes follow the DICOM rule for ``CLOSED_PLANAR``: the outline enters through a channel of zero width, goes
round the hole and back (a keyhole), so that each contour is complete. As DICOM requires, it names patient and study.
"""

import datetime
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage
from skimage.measure import find_contours

from autoseg.atomic import replacing
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.crop import NOWHERE, crop, hull, value_boxes
from autoseg.imaging.dicom_codes import code_structure
from autoseg.imaging.dicom_headers import headers_of, plain_text, series_number, unique_identifier
from autoseg.imaging.dicom_seg import coded
from autoseg.imaging.dicom_series import DicomSeries, Plane, grid_plane
from autoseg.imaging.volume import LabelVolume

__all__ = ["outlines", "write_rtstruct"]

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # retired, but structure sets still refer to a study with it
_REPEATED = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
)


def write_rtstruct(
    path: Path,
    series: DicomSeries,
    labels: LabelVolume,
    structures: Mapping[str, Sequence[int]],
    *,
    model: str,
    version: str,
) -> tuple[str, ...]:
    """Write a structure set; arguments, result and errors as in ``dicom_seg.write_seg``."""
    headers, notes = headers_of(series)
    header_of = dict(zip(series.paths, headers, strict=True))
    steps_mm = np.stack(grid_plane(series.planes).steps_mm)
    identify = unique_identifier(series, labels, model, "RTSTRUCT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about identifiers that pydicom finds invalid, but the images have
        ds = _structure_set(headers[0], identify, model, version)
        images = [_reference(header_of[plane.path], plane) for plane in series.planes]
        ds.ReferencedFrameOfReferenceSequence = [_referenced_frame(headers[0], images)]
        ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
        digits, boxes = _digits(series.planes, labels.data.shape[1:], steps_mm), value_boxes(labels.data)
        for number, (name, colour) in enumerate(zip(structures, structure_colours(structures), strict=True), start=1):
            lower, upper = hull([boxes[value] for value in structures[name] if value in boxes]) or NOWHERE
            mask, here = np.isin(crop(labels.data, lower, upper), structures[name]), slice(lower[0], upper[0])
            contours = _contours(mask, lower[1:], series.planes[here], images[here], steps_mm, digits)
            roi, shape, observation = _structure(number, name, colour, contours, headers[0].FrameOfReferenceUID)
            ds.StructureSetROISequence.append(roi)
            ds.ROIContourSequence.append(shape)
            ds.RTROIObservationsSequence.append(observation)
        with replacing(path) as draft:
            ds.save_as(draft, enforce_file_format=True)
    return notes


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed polygons around the parts of a mask, holes cut out through keyholes.

    No edge of a polygon, keyholes included, passes through the centre of a voxel, so every inside test (even-odd, winding
    number) finds exactly the voxels of the mask.

    Args:
        mask: (rows, columns) bool.

    Returns:
        list of (N, 2) float64 arrays of (row, column), the first point not repeated; empty for an empty mask. Voxels that touch
        only at a corner belong to separate parts.
    """
    mask = np.pad(mask, 1)
    parts, _ = ndimage.label(mask)
    loops: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for loop in find_contours(mask.astype(float), 0.5):
        beside = np.floor(loop[0]).astype(int), np.ceil(loop[0]).astype(int)  # one inside, one outside
        loops[max(int(parts[tuple(index)]) for index in beside)].append(loop[:-1])
    both = mask[:-1] & mask[1:]  # half-way between two rows: whether the mask is on both sides
    walls = np.maximum.accumulate(np.where(both, -1, np.arange(mask.shape[1])), axis=1)  # the nearest on the left that is not
    polygons = []
    for _, own in sorted(loops.items()):
        own.sort(key=lambda loop: -np.ptp(loop[:, 0]))  # the outer one is the tallest
        polygons.append(_without_needless_points(own[0] if len(own) == 1 else _with_keyholes(own, mask, walls)) - 1)
    return polygons


def _with_keyholes(loops: list[NDArray[np.float64]], mask: NDArray[np.bool_], walls: NDArray[np.intp]) -> NDArray[np.float64]:
    """One closed polygon from the outer loop of a part, which comes first, and the loops of its holes.

    Each hole is joined, from the leftmost of its topmost points, to the next loop on its left. The channel runs half-way
    between two rows of voxels, only through voxels of the part. The other loop starts higher, or equally high and further
    left, so all paths end at the outer loop.
    """
    points = np.concatenate(loops)
    lengths = [len(loop) for loop in loops]
    ends = np.cumsum(lengths)
    follower = np.arange(1, len(points) + 1)
    follower[ends - 1] = ends - lengths
    index_of = {(row, column): index for index, (row, column) in enumerate(np.rint(2 * points).astype(int).tolist())}
    more, after = points.tolist(), follower.tolist()
    for loop in loops[1:]:
        top = loop[:, 0].min()
        row, column = int(top), int(loop[loop[:, 0] == top, 1].min())
        left = int(walls[row, column - 1])
        is_beside = not (mask[row, left] or mask[row + 1, left])  # else the other loop crosses here, between the two rows
        there = index_of[2 * row, 2 * left + 1] if is_beside else index_of[2 * row + 1, 2 * left]
        here, corner = index_of[2 * row + 1, 2 * column], [top, left + 1.0]
        begin = len(more)  # path: there, corner, here, round the hole, here, corner, there
        more += [corner, more[here], corner, more[there]]
        after += [begin + 1, after[here], begin + 3, after[there]]
        after[here], after[there] = begin + 2, begin
    walk = [0]
    while (index := after[walk[-1]]) != 0:
        walk.append(index)
    joined: NDArray[np.float64] = np.array([more[index] for index in walk])
    return joined


def _without_needless_points(polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Remove points in the middle of a straight line; exact, since coordinates are multiples of one half."""
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0] != 0
    kept: NDArray[np.float64] = polygon[turns | ((before * after).sum(axis=1) <= 0)]
    return kept


def _contours(
    mask: NDArray[np.bool_],
    first: Sequence[int],
    planes: Sequence[Plane],
    images: Sequence[Dataset],
    steps_mm: NDArray[np.float64],
    digits: int,
) -> list[Dataset]:
    """Items of a ContourSequence; the mask (planes, rows, columns) begins at row and column ``first`` of the images."""
    contours = []
    for layer, plane, image in zip(mask, planes, images, strict=True):
        for polygon in outlines(layer) if layer.any() else ():
            points_mm = np.asarray(plane.position) + (polygon + first) @ steps_mm
            contour = Dataset()
            contour.ContourImageSequence = [image]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points_mm)
            contour.ContourData = [f"{value:.{digits}f}" for value in points_mm.ravel()]
            contours.append(contour)
    return contours


def _digits(planes: Sequence[Plane], shape: tuple[int, ...], steps_mm: NDArray[np.float64]) -> int:
    """Decimal places of a coordinate: 1e-4 of a pixel, within the 16 characters of a decimal string."""
    corners = (
        np.array([plane.position for plane in planes])[:, None]
        + np.array([(0, 0), shape, (0, shape[1]), (shape[0], 0)]) @ steps_mm
    )
    before = len(f"-{np.abs(corners).max():.0f}.")
    wanted = np.clip(4 - np.floor(np.log10(np.linalg.norm(steps_mm, axis=1).min())), 4, 9)
    return int(min(wanted, 16 - before))


def _structure_set(header: Dataset, identify: Callable[[str], str], model: str, version: str) -> Dataset:
    """The object without its structures."""
    now = datetime.datetime.now()
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    # in explicit VR a decimal string ends at 64 kB, about 2 300 points; implicit VR has no such limit
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, identify("instance")
    for name in _REPEATED:
        setattr(ds, name, header.get(name))
    ds.Modality, ds.SeriesInstanceUID, ds.InstanceNumber = "RTSTRUCT", identify("series"), 1
    ds.SeriesNumber, ds.SeriesDescription = series_number(header, 2000), "autoseg segmentation"
    ds.Manufacturer = ds.ManufacturerModelName = "autoseg"
    ds.SoftwareVersions, ds.OperatorsName = version, ""
    ds.StructureSetLabel, ds.StructureSetName = "autoseg", plain_text(f"autoseg, {model}")
    ds.StructureSetDate = ds.InstanceCreationDate = now.strftime("%Y%m%d")
    ds.StructureSetTime = ds.InstanceCreationTime = now.strftime("%H%M%S")
    ds.ApprovalStatus = "UNAPPROVED"
    return ds


def _structure(
    number: int, name: str, colour: Sequence[int], contours: list[Dataset], frame: str
) -> tuple[Dataset, Dataset, Dataset]:
    """(item of StructureSetROISequence, of ROIContourSequence, of RTROIObservationsSequence)."""
    roi = Dataset()
    roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, frame
    roi.ROIName, roi.ROIGenerationAlgorithm = plain_text(name), "AUTOMATIC"
    shape = Dataset()
    shape.ReferencedROINumber, shape.ROIDisplayColor = number, list(colour)
    if contours:
        shape.ContourSequence = contours
    observation = Dataset()
    observation.ObservationNumber, observation.ReferencedROINumber = number, number
    observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
    observation.RTROIIdentificationCodeSequence = [coded(code_structure(name).kind)]
    return roi, shape, observation


def _reference(header: Dataset, plane: Plane) -> Dataset:
    """The image that a contour lies on."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if int(header.get("NumberOfFrames") or 1) > 1:
        item.ReferencedFrameNumber = plane.frame + 1
    return item


def _referenced_frame(header: Dataset, images: list[Dataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = header.SeriesInstanceUID, images
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = header.FrameOfReferenceUID, [study]
    return frame
