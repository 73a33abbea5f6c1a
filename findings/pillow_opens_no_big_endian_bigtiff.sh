#!/usr/bin/env bash
# Pillow 13.0.0 opens no big-endian BigTIFF, although it lists how one begins among the files that it reads.
#
# Input: a picture of 5 x 6 bytes as BigTIFF in both byte orders, written by tifffile 2026.3.3, which reads both back, as
# SimpleITK 2.5.7 does.
# Expected: the picture, twice.
# Found: the little-endian one is read; the other ends with UnidentifiedImageError "cannot identify image file".
# Fails as soon as it is read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 tifffile==2026.3.3 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import numpy as np
import PIL
import SimpleITK
import tifffile
from PIL import Image, UnidentifiedImageError

print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
warnings.simplefilter("ignore")
pixels = np.arange(30, dtype=np.uint8).reshape(5, 6)
found = {}
for order in "<>":
    tifffile.imwrite("a.tif", pixels, bigtiff=True, byteorder=order)
    assert (tifffile.imread("a.tif") == pixels).all()
    assert (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("a.tif")) == pixels).all()
    try:
        found[order] = bool((np.asarray(Image.open("a.tif")) == pixels).all())
    except UnidentifiedImageError as fault:
        found[order] = type(fault).__name__
print(found)
assert found == {"<": True, ">": "UnidentifiedImageError"}, "Pillow does otherwise now: look at this finding"
PY
echo "still so"
