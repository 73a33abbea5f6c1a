#!/usr/bin/env bash
# SimpleITK 2.5.7 turns the values of a MONOCHROME1 series round, and keeps neither the stored ones nor a word about it.
#
# The slice is valid: 12 bits, values 0, 1 and 100. MONOCHROME1 says how to show them, small ones bright.
#
# Seen:
#   stored 0 1 100, as MONOCHROME2 0 1 100, as MONOCHROME1 4095 4094 3995
# pydicom gives the stored values for both. autoseg takes the stored ones with a note, and turns them round on request.
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


values = {}
for kind in ("MONOCHROME2", "MONOCHROME1"):
    ds = slice_of(0, np.array([[0, 1, 100]] * 8))
    ds.PhotometricInterpretation = kind
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    ds.save_as(f"{kind}.dcm", enforce_file_format=True)
    values[kind] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(f"{kind}.dcm"))[0, 0].tolist()
print("stored 0 1 100,", ", ".join(f"as {kind} {' '.join(map(str, found))}" for kind, found in values.items()))
assert values == {"MONOCHROME2": [0, 1, 100], "MONOCHROME1": [4095, 4094, 3995]}, "the behaviour has changed"
PYTHON
