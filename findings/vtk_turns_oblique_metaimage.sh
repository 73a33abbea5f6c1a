#!/usr/bin/env bash
# VTK 9.7.2 turns an oblique MetaImage the other way: it takes the rows of TransformMatrix for the axes' directions.
#
# Input: 4 x 3 x 2 voxels turned by 30 degrees about z, written by SimpleITK 2.5.7. A MetaImage lists the direction of its first
# axis first; SimpleITK reads its own file back so.
# Expected: voxel (1, 0, 0) at (0.866, 0.5, 0) mm.
# Found: vtkMetaImageReader places it at (0.866, -0.5, 0) mm; its direction matrix is the transposed one.
# Fails as soon as VTK places it where SimpleITK does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet vtk==9.7.2 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import SimpleITK
import vtk

turn = np.radians(30)
image = SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
image.SetDirection([np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1])
SimpleITK.WriteImage(image, "a.mha")
right = SimpleITK.ReadImage("a.mha").TransformIndexToPhysicalPoint((1, 0, 0))

reader = vtk.vtkMetaImageReader()
reader.SetFileName("a.mha")
reader.Update()
found = np.zeros(3)
reader.GetOutput().TransformIndexToPhysicalPoint([1, 0, 0], found)
print("VTK", vtk.vtkVersion.GetVTKVersion(), "SimpleITK", SimpleITK.__version__)
print("voxel (1, 0, 0): SimpleITK", np.round(right, 3).tolist(), "VTK", found.round(3).tolist())
assert np.allclose(right, [np.cos(turn), np.sin(turn), 0])
assert np.allclose(found, [np.cos(turn), -np.sin(turn), 0]), "VTK does otherwise now: look at this finding"
PY
echo "still so"
