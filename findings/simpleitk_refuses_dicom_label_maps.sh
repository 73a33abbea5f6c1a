#!/usr/bin/env bash
# SimpleITK 2.5.7 does not open a DICOM label map: Label Map Segmentation Storage, which the standard has had since 2024.
#
# The object (highdicom 0.28.2, two segments, a number for each voxel) is valid: highdicom reads it back as it was. The same labels
# as a binary segmentation are opened.
#
# Seen:
#   BINARY: opened
#   LABELMAP: Unable to determine ImageIO reader
# What to use: highdicom. autoseg reads both kinds and writes binary ones, which more programs know.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 highdicom==0.28.2 numpy==2.2.6 pydicom==3.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import highdicom
import SimpleITK
from pydicom.sr.codedict import codes
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


mask = np.zeros((5, 8, 10), np.uint8)
mask[:, 2:4, 2:6], mask[:, 5:7, 3:8] = 1, 2
described = [
    highdicom.seg.SegmentDescription(
        number, f"segment {number}", codes.SCT.Organ, codes.SCT.Liver, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    for number in (1, 2)
]
found = {}
for kind in ("BINARY", "LABELMAP"):
    highdicom.seg.Segmentation(
        source_images=[slice_of(z, np.zeros((8, 10))) for z in range(5)],
        pixel_array=mask,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid="1.2.9",
        series_number=9,
        sop_instance_uid="1.2.9.1",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="x",
        device_serial_number="x",
    ).save_as(f"{kind}.dcm")
    read = highdicom.seg.segread(f"{kind}.dcm").get_volume(combine_segments=True).array
    assert sorted(np.bincount(read.ravel())) == sorted(np.bincount(mask.ravel()))
    try:
        SimpleITK.ReadImage(f"{kind}.dcm")
        found[kind] = "opened"
    except RuntimeError as error:
        found[kind] = str(error).strip().splitlines()[-1]
    print(f"{kind}: {found[kind]}")
assert found["BINARY"] == "opened" and "Unable to determine ImageIO reader" in found["LABELMAP"], "the behaviour has changed"
PYTHON
