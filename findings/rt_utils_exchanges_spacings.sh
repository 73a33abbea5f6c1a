#!/usr/bin/env bash
# rt-utils 1.2.7 exchanges the distances of rows and of columns.
#
# DICOM's PixelSpacing is the distance between rows, then that between columns (PS3.3, 10.7.1.3). The slices are valid: rows are
# 0.5 mm apart, columns 2 mm. A mask of columns 20 to 29 and rows 10 to 14 lies at x 40 to 58 and y 5 to 7 mm.
#
# Seen:
#   written at x 10 to 14.5 and y 20 to 28 mm
# Square pixels are not concerned.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rt-utils==1.2.7 opencv-python==4.11.0.86 numpy==2.2.6 pydicom==3.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os

import pydicom
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


os.mkdir("scan")
for z in range(3):
    slice_of(z, np.zeros((40, 40)), (0.5, 2.0)).save_as(f"scan/{z}.dcm", enforce_file_format=True)
mask = np.zeros((40, 40, 3), bool)  # rows, columns, slices
mask[10:15, 20:30, 1] = True
built = RTStructBuilder.create_new("scan")
built.add_roi(mask=mask, name="box")
built.save("contours.dcm")
contour = pydicom.dcmread("contours.dcm").ROIContourSequence[0].ContourSequence[0]
points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
(x0, y0, _), (x1, y1, _) = points.min(axis=0), points.max(axis=0)
print(f"written at x {x0:g} to {x1:g} and y {y0:g} to {y1:g} mm")
assert np.allclose((x0, x1, y0, y1), (10, 14.5, 20, 28)), "the behaviour has changed"
PYTHON
