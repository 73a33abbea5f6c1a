#!/usr/bin/env bash
# SimpleITK 2.5.7 opens a DICOM segmentation of two segments with a spacing of 1, 1, 1.
#
# The object (highdicom 0.28.2, binary, voxels of 0.7 x 0.8 x 2.5 mm) is valid: the frames of the second segment lie at the places of
# those of the first. Of an object with one segment the spacing is right. What is 1 in a segment is 255 in the image.
#
# Seen:
#   1 segment(s): size (10, 8, 5), spacing (0.7, 0.8, 2.5), values 0 255
#   2 segment(s): size (10, 8, 10), spacing (1.0, 1.0, 1.0), values 0 255
# highdicom and 3D Slicer give 0.7 x 0.8 x 2.5 for both. What to use: highdicom, 3D Slicer, `autoseg reconstruct`; or an object for
# each segment, as `autoseg predict --write seg_each` makes.
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
found = {}
for count in (1, 2):
    described = [
        highdicom.seg.SegmentDescription(
            number, f"segment {number}", codes.SCT.Organ, codes.SCT.Liver, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number in range(1, count + 1)
    ]
    highdicom.seg.Segmentation(
        source_images=[slice_of(z, np.zeros((8, 10))) for z in range(5)],
        pixel_array=np.where(mask <= count, mask, 0).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid="1.2.9",
        series_number=9,
        sop_instance_uid="1.2.9.1",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="x",
        device_serial_number="x",
    ).save_as(f"{count}.dcm")
    image = SimpleITK.ReadImage(f"{count}.dcm")
    found[count] = image.GetSpacing()
    values = np.unique(SimpleITK.GetArrayFromImage(image)).tolist()
    print(f"{count} segment(s): size {image.GetSize()}, spacing {image.GetSpacing()}, values", *values)
    assert values == [0, 255], "the behaviour has changed"
volume = highdicom.seg.segread("2.dcm").get_volume()
assert np.allclose(volume.spacing, (2.5, 0.8, 0.7)), volume.spacing
assert np.allclose(found[1], (0.7, 0.8, 2.5))
assert found[2] == (1.0, 1.0, 1.0), "the behaviour has changed"
PYTHON
