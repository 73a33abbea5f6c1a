#!/usr/bin/env bash
# pydicom 3.0.2 cannot take single frames out of a segmentation whose frames do not end with a byte.
#
# Input: two frames of 5 x 6 pixels of one bit, 60 bits in a row, as DICOM packs them (PS3.5, 8.1.1).
# Expected: iter_pixels and pixel_array(index=1) give the second frame, as pixel_array without an index does.
# Found: ValueError: cannot reshape array of size 26 into shape (5,6). As many bytes are taken as a frame has bits for, also where it
# begins within a byte. Sizes whose number of pixels leaves 3, 5, 6 or 7 over after division by 8 are concerned.
# Use: pixel_array of the whole, or numpy.unpackbits of the frame's own bytes.
# Fails as soon as the frame is given.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pydicom==3.0.2 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import iter_pixels, pack_bits, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

print("pydicom", pydicom.__version__)


def segmentation(rows, columns):
    values = np.random.default_rng(0).integers(0, 2, (2, rows, columns)).astype(np.uint8)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = SegmentationStorage, "1.2.3"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 1, 0
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, 2
    ds.PixelData = pack_bits(values)
    ds.save_as("a.dcm", enforce_file_format=True)
    return values


assert all((a == b).all() for a, b in zip(segmentation(5, 8), iter_pixels("a.dcm"), strict=True))
values = segmentation(5, 6)
assert (pixel_array("a.dcm") == values).all()
for name, read in (("iter_pixels", lambda: list(iter_pixels("a.dcm"))[1]), ("index", lambda: pixel_array("a.dcm", index=1))):
    try:
        read()
        said = ""
    except ValueError as error:
        said = str(error)
    print(name, "->", said)
    assert said == "cannot reshape array of size 26 into shape (5,6)", "pydicom does otherwise now: look at this finding"
PY
echo "still so"
