#!/usr/bin/env bash
# pydicom 3.0.2 gives a long decimal string back as bytes where it was written in explicit VR.
#
# A value of a text VR has a length of 16 bits in explicit VR. The standard's way out for longer ones (PS3.5, 6.2.2) is the VR UN,
# which pydicom writes, with a warning, for a contour of 3 000 points; on reading it does not look up that ContourData is DS. In
# implicit VR lengths have 32 bits, and the same contour comes back as numbers.
#
# Seen:
#   explicit VR: UN, bytes
#   implicit VR: DS, MultiValue
# What to do: write structure sets in implicit VR little endian, as autoseg does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage

found = {}
for name, syntax in (("explicit", ExplicitVRLittleEndian), ("implicit", ImplicitVRLittleEndian)):
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 3000
    contour.ContourData = [f"{i / 7:.4f}" for i in range(9000)]
    roi = Dataset()
    roi.ReferencedROINumber, roi.ContourSequence = 1, [contour]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID, ds.ROIContourSequence = RTStructureSetStorage, "1.2.3", [roi]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(f"{name}.dcm", enforce_file_format=True)
    element = pydicom.dcmread(f"{name}.dcm").ROIContourSequence[0].ContourSequence[0]["ContourData"]
    found[name] = (str(element.VR), type(element.value).__name__)
    print(f"{name} VR: {', '.join(found[name])}")
assert found == {"explicit": ("UN", "bytes"), "implicit": ("DS", "MultiValue")}, "the behaviour has changed"
PYTHON
