"""Labels as a DICOM structure set for radiotherapy: closed planar contours on every slice.

A contour runs half-way between the centres of voxels inside and outside, so a pixel belongs to a structure exactly if its
centre lies within. Holes are cut out as DICOM asks for ``CLOSED_PLANAR``: the outline goes in through a channel without width,
round the hole and back (a keyhole), so that each contour stands for itself. As DICOM asks, it names the patient and the study.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from autoseg.atomic import replacing
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.dicom_codes import code_structure
from autoseg.imaging.dicom_read import headers_of, unique_identifier
from autoseg.imaging.dicom_seg import coded
from autoseg.imaging.dicom_series import DicomSeries, Plane
from autoseg.imaging.volume import LabelVolume

__all__ = ["outlines", "write_rtstruct"]

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # retired, and what structure sets still name a study by
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
) -> None:
    """Write a structure set; arguments and errors as of ``dicom_seg.write_seg``."""
    headers = headers_of(series)
    header_of = dict(zip(series.paths, headers, strict=True))
    identify = unique_identifier(series, labels, model, "RTSTRUCT")
    ds = _structure_set(headers[0], identify, model, version)
    images = [_reference(header_of[plane.path], plane) for plane in series.planes]
    ds.ReferencedFrameOfReferenceSequence = [_referenced_frame(headers[0], images)]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, (name, colour) in enumerate(zip(structures, structure_colours(structures), strict=True), start=1):
        contours = _contours(np.isin(labels.data, structures[name]), series.planes, images)
        for sequence, item in zip(
            (ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence),
            _structure(number, name, colour, contours, headers[0].FrameOfReferenceUID),
            strict=True,
        ):
            sequence.append(item)
    with replacing(path) as draft:
        ds.save_as(draft, enforce_file_format=True)


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed polygons around the parts of a mask, holes cut out through keyholes.

    Args:
        mask: (rows, columns) bool.

    Returns:
        list of (N, 2) float64 arrays of (row, column), the first point not repeated; empty for an empty mask. Voxels that only
        touch at a corner belong to parts of their own.
    """
    parts, _ = ndimage.label(mask)
    polygons = []
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        part = np.pad(parts[box] == number, 1).astype(float)
        loops = [loop[:-1] for loop in find_contours(part, 0.5)]
        loops.sort(key=lambda loop: np.ptp(loop[:, 0]))  # the outer one is the tallest
        polygon = loops.pop()
        while loops:
            polygon = _with_keyhole(polygon, loops)
        polygons.append(_without_needless_points(polygon) + [box[0].start - 1, box[1].start - 1])
    return polygons


def _with_keyhole(polygon: NDArray[np.float64], loops: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Join the nearest of the loops to a polygon and take it from the list."""
    tree = cKDTree(polygon)
    near = [tree.query(loop) for loop in loops]  # (distances, indices) of each loop's points
    nearest = int(np.argmin([distances.min() for distances, _ in near]))
    loop, (distances, indices) = loops.pop(nearest), near[nearest]
    there = int(distances.argmin())
    here = int(indices[there])
    return np.concatenate([polygon[: here + 1], loop[there:], loop[: there + 1], polygon[here:]])


def _without_needless_points(polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points in the middle of a straight line left out; coordinates are multiples of one half, so this is exact."""
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0] != 0
    kept: NDArray[np.float64] = polygon[turns | ((before * after).sum(axis=1) <= 0)]
    return kept


def _contours(mask: NDArray[np.bool_], planes: Sequence[Plane], images: Sequence[Dataset]) -> list[Dataset]:
    """Items of a ContourSequence."""
    contours = []
    for layer, plane, image in zip(mask, planes, images, strict=True):
        for polygon in outlines(layer) if layer.any() else ():
            points_mm = np.asarray(plane.position) + polygon @ np.stack(plane.steps_mm)
            contour = Dataset()
            contour.ContourImageSequence = [image]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points_mm)
            contour.ContourData = [f"{value:.4f}" for value in points_mm.ravel()]  # a decimal string has 16 characters
            contours.append(contour)
    return contours


def _structure_set(header: Dataset, identify: Callable[[str], str], model: str, version: str) -> Dataset:
    """The object without its structures."""
    now = datetime.datetime.now()
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, identify("instance")
    for name in _REPEATED:
        setattr(ds, name, header.get(name))
    ds.Modality, ds.SeriesInstanceUID, ds.InstanceNumber = "RTSTRUCT", identify("series"), 1
    ds.SeriesNumber, ds.SeriesDescription = 2000 + int(header.get("SeriesNumber") or 0), "autoseg segmentation"
    ds.Manufacturer = ds.ManufacturerModelName = "autoseg"
    ds.SoftwareVersions, ds.OperatorsName = version, ""
    ds.StructureSetLabel, ds.StructureSetName = "autoseg", f"autoseg, {model}"[:64]
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
    roi.ROIName, roi.ROIGenerationAlgorithm = name[:64], "AUTOMATIC"
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
