#!/usr/bin/env bash
# rt-utils 1.2.7 cuts masks of oblong images: it exchanges the numbers of rows and columns, and loses what lies outside.
#
# Input: slices of 40 rows and 60 columns with square pixels. A structure in rows 10 to 14 and columns 45 to 54, drawn by rt-utils
# itself. pydicom finds its contour in the file at columns 45 to 54.
#
# Seen:
#   get_roi_mask_by_name: an array of (60, 40, 3) instead of (40, 60, 3), without a voxel of the structure
# Square images are not affected. What to use: another reader for the contours, such as scikit-image's points_in_poly.
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
    slice_of(z, np.zeros((40, 60)), (1.0, 1.0)).save_as(f"scan/{z}.dcm", enforce_file_format=True)
mask = np.zeros((40, 60, 3), bool)  # rows, columns, slices
mask[10:15, 45:55, 1] = True
built = RTStructBuilder.create_new("scan")
built.add_roi(mask=mask, name="box")
built.save("contours.dcm")
contour = pydicom.dcmread("contours.dcm").ROIContourSequence[0].ContourSequence[0]
columns = np.reshape(contour.ContourData, (-1, 3)).astype(float)[:, 0]
found = RTStructBuilder.create_from(dicom_series_path="scan", rt_struct_path="contours.dcm").get_roi_mask_by_name("box")
print(f"contour at columns {columns.min():g} to {columns.max():g}; mask {found.shape}, {int(found.sum())} voxels")
assert (columns.min(), columns.max()) == (45, 54)
assert found.shape == (60, 40, 3) and not found.any(), "the behaviour has changed"
PYTHON
