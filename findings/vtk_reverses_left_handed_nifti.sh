#!/usr/bin/env bash
# VTK 9.7.2 hands out the slices of a left-handed NIfTI in reverse order, and its image has no place in the patient.
#
# Input: 4 x 3 x 2 voxels of 2 x 3 x 4 mm whose x runs to the left and whose other axes run to the front and the head (most CT and
# MR in NIfTI are stored so), written by nibabel 5.4.2.
# Expected: voxel (0, 0, 0) first, as nibabel and SimpleITK have it, at (10, 20, 30) mm.
# Found: vtkNIFTIImageReader begins with voxel (0, 0, 1); origin 0 and identity directions stand in the image, so that who shows
# it without the reader's SFormMatrix shows it mirrored. That matrix is right for the reversed order.
# Fails as soon as VTK keeps the order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet vtk==9.7.2 nibabel==5.4.2 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import nibabel
import numpy as np
import vtk
from vtk.util.numpy_support import vtk_to_numpy

print("VTK", vtk.vtkVersion.GetVTKVersion(), "nibabel", nibabel.__version__)
voxels = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
firsts = {}
for name, side in (("right-handed", 1), ("left-handed", -1)):
    affine = np.diag([2.0 * side, 3, 4, 1])
    affine[:3, 3] = 10, 20, 30
    nibabel.save(nibabel.Nifti1Image(voxels, affine), "a.nii")
    reader = vtk.vtkNIFTIImageReader()
    reader.SetFileName("a.nii")
    reader.Update()
    image = reader.GetOutput()
    firsts[name] = int(vtk_to_numpy(image.GetPointData().GetScalars())[0])
    sform = reader.GetSFormMatrix()
    print(name, "first voxel", firsts[name], "origin", image.GetOrigin(), "z of the sform", sform.GetElement(2, 2))
    assert image.GetOrigin() == (0, 0, 0), "VTK places the image now: look at this finding"
assert firsts == {"right-handed": voxels[0, 0, 0], "left-handed": voxels[0, 0, 1]}, "VTK does otherwise now: look at this finding"
PY
echo "still so"
