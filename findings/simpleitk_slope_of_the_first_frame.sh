#!/usr/bin/env bash
# SimpleITK 2.5.7 applies the rescale slope of the first frame of an enhanced CT to all of its frames.
#
# Each frame has a PixelValueTransformationSequence of its own, as the standard has it, with slopes 2, 3, 4 and 5; all stored
# values are 100. The object holds what a reader of voxels needs; what tells how it was scanned is left out.
#
# Seen:
#   values 200 200 200 200, right are 200 300 400 500
# pydicom gives stored values and leaves the slopes to the caller; autoseg applies those of each frame.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6 pydicom==3.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import SimpleITK
from pydicom.uid import EnhancedCTImageStorage
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


def item(**elements):
    ds = Dataset()
    for name, value in elements.items():
        setattr(ds, name, value)
    return [ds]


ds = slice_of(0, np.zeros((8, 10)))
orientation, spacing = ds.ImageOrientationPatient, ds.PixelSpacing
for name in (
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
):
    delattr(ds, name)
ds.SOPClassUID, ds.NumberOfFrames = EnhancedCTImageStorage, 4
ds.PixelData = np.full((4, 8, 10), 100, "<i2").tobytes()
ds.SharedFunctionalGroupsSequence = item(
    PlaneOrientationSequence=item(ImageOrientationPatient=orientation),
    PixelMeasuresSequence=item(PixelSpacing=spacing, SliceThickness=2.5),
)
ds.DimensionOrganizationSequence = item(DimensionOrganizationUID="1.2.6")
ds.DimensionIndexSequence = item(
    DimensionOrganizationUID="1.2.6", DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111
)
ds.PerFrameFunctionalGroupsSequence = [
    item(
        PlanePositionSequence=item(ImagePositionPatient=[0, 0, 2.5 * z]),
        PixelValueTransformationSequence=item(RescaleSlope=z + 2, RescaleIntercept=0, RescaleType="HU"),
        FrameContentSequence=item(StackID="1", InStackPositionNumber=z + 1, DimensionIndexValues=[z + 1]),
    )[0]
    for z in range(4)
]
ds.save_as("frames.dcm", enforce_file_format=True)
values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("frames.dcm"))[:, 0, 0].tolist()
print("values", *values, "right are 200 300 400 500")
assert values == [200, 200, 200, 200], "the behaviour has changed"
PYTHON
