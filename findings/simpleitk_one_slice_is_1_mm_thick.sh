#!/usr/bin/env bash
# SimpleITK 2.5.7 takes a single DICOM slice as 1 mm thick, whatever its SliceThickness says.
#
# The slice is valid and says SliceThickness 2.5. A volume of a structure on it is off by the same factor.
#
# Seen:
#   spacing (0.7, 0.8, 1.0) where SliceThickness is 2.5
# autoseg takes SliceThickness, and says so in a note.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6 pydicom==3.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import SimpleITK
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


slice_of(0, np.zeros((8, 10))).save_as("one.dcm", enforce_file_format=True)
spacing = SimpleITK.ReadImage("one.dcm").GetSpacing()
print(f"spacing {spacing} where SliceThickness is 2.5")
assert spacing == (0.7, 0.8, 1.0), "the behaviour has changed"
PYTHON
