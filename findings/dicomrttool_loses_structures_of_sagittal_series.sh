#!/usr/bin/env bash
# DicomRTTool 6.2.0 loses structures that were outlined in a sagittal series: the mask is empty, or one slice has all of it.
#
# Input: 8 sagittal slices, 3 mm apart, with a square of 11 x 11 pixels outlined in slices 2 to 5, and in 2 to 6; the same in
# axial slices.
# Expected: 121 voxels in each of these slices.
# Found: so for axial slices. For sagittal ones the mask is empty with four outlines; with five its first slice has 121 voxels
# and the others have none. Each outline belongs to the slice whose z is next to its own, z of ImagePositionPatient, which is
# the same for all sagittal slices; so all are drawn in the first one, where two of them cancel each other out.
# Use: another reader for series that are not axial, such as dcmrtstruct2nii 5, and look at the volumes that come out.
# Fails as soon as the voxels are in their slices.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check DicomRTTool==6.2.0 pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import os

import numpy as np
from DicomRTTool.ReaderWriter import DicomReaderWriter
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, RTStructureSetStorage


def start(kind, uid, series, modality):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.SeriesInstanceUID, made.Modality = kind, uid, series, modality
    made.StudyInstanceUID, made.FrameOfReferenceUID = "1.2.3", "1.2.5"
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "A^B", "1", "", ""
    made.StudyID, made.StudyDate, made.StudyTime, made.AccessionNumber, made.ReferringPhysicianName = "", "", "", "", ""
    made.StudyDescription, made.SeriesDescription, made.SeriesNumber, made.Manufacturer = "a", modality, 1, ""
    return made


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def scan(folder, places, orientation):
    """Slices of 40 x 40 pixels of 1 mm, 3 mm apart."""
    os.makedirs(folder)
    for number, place in enumerate(places):
        made = start(CTImageStorage, f"1.2.4.{number + 1}", "1.2.4", "CT")
        made.ImageType, made.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], number + 1
        made.ImagePositionPatient, made.ImageOrientationPatient = list(place), list(orientation)
        made.PixelSpacing, made.SliceThickness, made.Rows, made.Columns = [1, 1], 3, 40, 40
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
        made.RescaleSlope, made.RescaleIntercept, made.PixelData = 1, 0, bytes(2 * 40 * 40)
        made.save_as(f"{folder}/{number}.dcm", enforce_file_format=True)


def structure_set(path, contours, n_slices):
    """A structure, each of whose contours is a list of (x, y, z)."""
    made = start(RTStructureSetStorage, "1.2.6.1", "1.2.6", "RTSTRUCT")
    made.StructureSetLabel, made.StructureSetDate, made.StructureSetTime = "a", "", ""
    slices = [item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=f"1.2.4.{n + 1}") for n in range(n_slices)]
    series = item(SeriesInstanceUID="1.2.4", ContourImageSequence=slices)
    study = item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID="1.2.3", RTReferencedSeriesSequence=[series])
    made.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID="1.2.5", RTReferencedStudySequence=[study])]
    roi = item(ROINumber=1, ReferencedFrameOfReferenceUID="1.2.5", ROIName="organ", ROIGenerationAlgorithm="MANUAL")
    made.StructureSetROISequence = [roi]
    observation = item(ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="ORGAN", ROIInterpreter="")
    made.RTROIObservationsSequence = [observation]
    drawn = [
        item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points), ContourData=[f"{v:g}" for p in points for v in p])
        for points in contours
    ]
    made.ROIContourSequence = [item(ReferencedROINumber=1, ROIDisplayColor=[255, 0, 0], ContourSequence=drawn)]
    made.save_as(path, enforce_file_format=True)


def voxels_of_each_slice(folder, places, orientation, contours):
    scan(folder, places, orientation)
    structure_set(f"{folder}/structures.dcm", contours, len(places))
    reader = DicomReaderWriter(verbose=False)
    reader.walk_through_folders(folder)
    reader.set_contour_names_and_associations(["organ"])
    reader.set_index(0)
    reader.get_images_and_mask()
    return np.asarray(reader.mask, int).sum(axis=(1, 2)).tolist()


logging.disable()
low, high = 9.7, 20.3
corners = [(low, low), (high, low), (high, high), (low, high)]
found = {}
for last in (5, 6):
    axial = [[(a, b, 3 * n) for a, b in corners] for n in range(2, last + 1)]
    sagittal = [[(3 * n, a, -b) for a, b in corners] for n in range(2, last + 1)]
    found[last] = (
        voxels_of_each_slice(f"axial{last}", [(0, 0, 3 * n) for n in range(8)], (1, 0, 0, 0, 1, 0), axial),
        voxels_of_each_slice(f"sagittal{last}", [(3 * n, 0, 0) for n in range(8)], (0, 1, 0, 0, 0, -1), sagittal),
    )
    print(f"slices 2 to {last}: axial {found[last][0]}, sagittal {found[last][1]}")
assert found[5][0] == [0, 0, 121, 121, 121, 121, 0, 0]
assert found[6][0] == [0, 0, 121, 121, 121, 121, 121, 0]
assert sum(found[5][1]) == 0, "the behaviour has changed"
assert sorted(found[6][1]) == [0] * 7 + [121], "the behaviour has changed"
PYTHON
