#!/usr/bin/env bash
# dcmrtstruct2nii 5 draws what lies below the scan at its top, and says nothing.
#
# Input: 8 axial slices, 3 mm apart, and a structure of 11 x 11 pixels that is outlined at -6, -3, 0, 3 and 6 mm: two of the
# outlines lie below the scan, as those of the whole series do when its lower slices were left out.
# Expected: 121 voxels in the slices 0, 1 and 2; or a refusal.
# Found: so, and 121 voxels in slices 6 and 7 as well. The slices -2 and -1 of an array are its last ones. An outline above the
# scan removes the whole structure, with a warning.
# Use: leave out the outlines beyond the scan first. With pydicom 3 dcmrtstruct2nii 5 does not run.
# Fails as soon as nothing is drawn at the top.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dcmrtstruct2nii==5 pydicom==2.4.4 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import os

import numpy as np
import SimpleITK
from dcmrtstruct2nii import dcmrtstruct2nii
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, RTStructureSetStorage


def start(kind, uid, series, modality):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.is_little_endian = made.is_implicit_VR = True
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
        made.save_as(f"{folder}/{number}.dcm", write_like_original=False)


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
    made.save_as(path, write_like_original=False)


logging.disable()
low, high = 9.7, 20.3
scan("scan", [(0, 0, 3 * n) for n in range(8)], (1, 0, 0, 0, 1, 0))
found = {}
for name, numbers in {"within": range(3), "below": range(-2, 3), "above": range(5, 9)}.items():
    contours = [[(low, low, 3 * n), (high, low, 3 * n), (high, high, 3 * n), (low, high, 3 * n)] for n in numbers]
    structure_set(f"{name}.dcm", contours, 8)
    os.mkdir(name)
    dcmrtstruct2nii(f"{name}.dcm", "scan", name)
    masks = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(f"{name}/{file}")) for file in os.listdir(name) if "mask" in file]
    found[name] = [np.count_nonzero(mask, axis=(1, 2)).tolist() for mask in masks]
for name, slices in found.items():
    print(f"outlines {name} the scan: voxels of each slice {slices}")
assert found["within"] == [[121, 121, 121, 0, 0, 0, 0, 0]]
assert found["above"] == []
assert found["below"] == [[121, 121, 121, 0, 0, 0, 121, 121]], "the behaviour has changed"
PYTHON
