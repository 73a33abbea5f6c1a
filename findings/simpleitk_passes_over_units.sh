#!/usr/bin/env bash
# SimpleITK 2.5.7 converts lengths of NIfTI to millimetres, and passes over the units of NRRD and MetaImage.
#
# Input: a voxel of 0.2 x 0.3 x 0.4 cm. NRRD says so in "space units", MetaImage in DistanceUnits; NIfTI, which knows metres, has
# 0.002 x 0.003 x 0.004 m. The MetaImage also has an intensity slope of 2 and an offset of 5; its stored number is 100.
#
# Seen:
#   NIfTI (2, 3, 4), NRRD (0.2, 0.3, 0.4), MetaImage (0.2, 0.3, 0.4), its intensity 100
# Right are 2 x 3 x 4 mm and 205. nibabel 5.4.2 passes over the unit of NIfTI. What to do: convert before; autoseg converts all three
# and says so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

voxel = np.full((2, 2, 2), 100, "<i2")
nifti = nibabel.Nifti1Image(voxel, np.diag([0.002, 0.003, 0.004, 1]))
nifti.header.set_xyzt_units("meter")
nibabel.save(nifti, "a.nii")
nrrd = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 2 2 2
space directions: (0.2,0,0) (0,0.3,0) (0,0,0.4)
space units: "cm" "cm" "cm"
kinds: domain domain domain
endian: little
encoding: raw
space origin: (0,0,0)

"""
Path("a.nrrd").write_bytes(nrrd.encode() + voxel.tobytes())
meta = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
DistanceUnits = cm
ElementToIntensityFunctionSlope = 2
ElementToIntensityFunctionOffset = 5
ElementSpacing = 0.2 0.3 0.4
DimSize = 2 2 2
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
Path("a.mha").write_bytes(meta.encode() + voxel.tobytes())
images = {name: SimpleITK.ReadImage(name) for name in ("a.nii", "a.nrrd", "a.mha")}
spacings = {name: np.round(image.GetSpacing(), 6).tolist() for name, image in images.items()}
intensity = images["a.mha"].GetPixel(0, 0, 0)
zooms = [round(float(zoom), 6) for zoom in nibabel.load("a.nii").header.get_zooms()]
print(*spacings.items(), f"intensity {intensity}", f"nibabel {zooms}")
centimetres = [0.2, 0.3, 0.4]
assert spacings == {"a.nii": [2, 3, 4], "a.nrrd": centimetres, "a.mha": centimetres}, "the behaviour has changed"
assert intensity == 100, "the behaviour has changed"
assert zooms == [0.002, 0.003, 0.004], "the behaviour has changed"
PYTHON
