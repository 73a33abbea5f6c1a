#!/usr/bin/env bash
# VTK 9.7.2 shows a TIFF upside down beside the same picture as PNG: vtkTIFFReader puts the top row where VTK has the bottom one.
#
# Input: a picture of 3 x 4 pixels as PNG and as TIFF, written by Pillow 13.0.0. Only the first pixel of its top row is 2. VTK
# counts rows from the bottom.
#
# Seen:
#   PNG: the pixel is in row 2, the top one. TIFF: in row 0, the bottom one
# What to use: SetOrientationType(4) (ORIENTATION_BOTLEFT), with which TIFF is as PNG.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vtk==9.7.2 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import vtk
from PIL import Image
from vtk.util.numpy_support import vtk_to_numpy

pixels = np.zeros((3, 4), np.uint8)
pixels[0, 0] = 2


def row_of(reader, file):
    reader.SetFileName(file)
    reader.Update()
    image = reader.GetOutput()
    rows = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[1::-1])
    return int(np.argwhere(rows == 2)[0, 0])


for file in ("a.png", "a.tif"):
    Image.fromarray(pixels).save(file)
turned = vtk.vtkTIFFReader()
turned.SetOrientationType(4)
png, tif = row_of(vtk.vtkPNGReader(), "a.png"), row_of(vtk.vtkTIFFReader(), "a.tif")
print(f"PNG: row {png}, TIFF: row {tif}, TIFF with SetOrientationType(4): row {row_of(turned, 'a.tif')}")
assert row_of(turned, "a.tif") == png == 2
assert tif == 0, "the behaviour has changed"
PYTHON
