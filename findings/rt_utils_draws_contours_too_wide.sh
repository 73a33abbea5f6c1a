#!/usr/bin/env bash
# rt-utils 1.2.7 draws contours half a pixel too wide on every side.
#
# The structure set is valid: a square of 10 x 10 mm on pixels of 1 mm, shifted by tenths of a pixel. It holds the centres of exactly
# 10 x 10 pixels wherever it lies. rt-utils rounds its corners to pixels and fills them, their borders included.
#
# Seen:
#   widths of the drawn square in pixels: 11 11 11 11 11 11 11 11 11 11
# so that an area of 100 mm2 becomes 121. What to use: a test of which centres a contour holds, as scikit-image's polygon2mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rt-utils==1.2.7 opencv-python==4.11.0.86 numpy==2.2.6 pydicom==3.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os

from pydicom.uid import RTStructureSetStorage
from rt_utils import RTStructBuilder
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def slice_of(z, pixels, spacing=(0.8, 0.7)):
    """A CT slice of 2.5 mm at its place."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"1.2.3.{z + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "A^B", "1", "", ""
    ds.StudyID, ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName = "", "", "", "", ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.PositionReferenceIndicator = "CT", 1, z + 1, ""
    ds.Manufacturer, ds.KVP, ds.AcquisitionNumber, ds.PatientPosition = "", None, None, "HFS"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * z]
    ds.PixelSpacing, ds.SliceThickness = list(spacing), 2.5
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
    ds.PixelData = pixels.astype("<i2").tobytes()
    return ds


def structure_set(path, low, high):
    """A square from low to high mm on the slice at 2.5 mm."""

    def item(**elements):
        ds = Dataset()
        for name, value in elements.items():
            setattr(ds, name, value)
        return ds

    ds = item(
        SOPClassUID=RTStructureSetStorage,
        SOPInstanceUID="1.2.8.1",
        Modality="RTSTRUCT",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.8",
    )
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "A^B", "1", "", ""
    ds.StudyID, ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName = "", "", "", "", ""
    ds.Manufacturer, ds.SeriesNumber, ds.OperatorsName = "", None, ""
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime, ds.ApprovalStatus = "square", "", "", "UNAPPROVED"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID="1.2.3.2")
    series = item(SeriesInstanceUID="1.2.4", ContourImageSequence=[image])
    study = item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID="1.2.3", RTReferencedSeriesSequence=[series]
    )
    ds.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID="1.2.5", RTReferencedStudySequence=[study])]
    ds.StructureSetROISequence = [
        item(ROINumber=1, ROIName="square", ReferencedFrameOfReferenceUID="1.2.5", ROIGenerationAlgorithm="")
    ]
    corners = [low, low, 2.5, high, low, 2.5, high, high, 2.5, low, high, 2.5]
    contour = item(
        ContourImageSequence=[image],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=4,
        ContourData=[f"{value:.2f}" for value in corners],
    )
    ds.ROIContourSequence = [item(ReferencedROINumber=1, ContourSequence=[contour])]
    ds.RTROIObservationsSequence = [
        item(ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="", ROIInterpreter="")
    ]
    ds.save_as(path, enforce_file_format=True)


os.mkdir("scan")
for z in range(3):
    slice_of(z, np.zeros((40, 40)), (1.0, 1.0)).save_as(f"scan/{z}.dcm", enforce_file_format=True)
widths = []
for tenths in range(10):
    shift = tenths / 10 + 0.05
    structure_set("contours.dcm", 10 + shift, 20 + shift)
    mask = RTStructBuilder.create_from("scan", "contours.dcm").get_roi_mask_by_name("square")
    widths.append(int(mask[:, :, 1].any(axis=0).sum()))
print("widths of the drawn square in pixels:", *widths)
assert widths == [11] * 10, "the behaviour has changed"
PYTHON
