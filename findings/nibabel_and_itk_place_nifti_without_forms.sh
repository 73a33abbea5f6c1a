#!/usr/bin/env bash
# nibabel 5.4.2 and SimpleITK 2.5.7 place a NIfTI without sform and qform differently.
#
# Input: 4 x 3 x 2 voxels of 2 x 3 x 4 mm, both codes 0, which the format allows ("method 1": voxel sizes alone).
# nibabel: x to the left, the middle of the image at the origin: voxel (0, 0, 0) at (3, -3, -2) mm in RAS.
# SimpleITK: the first voxel at the origin, x to the left and y to the back: (0, 0, 0) in LPS.
# They differ in the direction of y and by half the image. Fails as soon as both say the same, or either says something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import nibabel
import numpy as np
import SimpleITK

image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), None)
image.header.set_zooms((2, 3, 4))
image.header["sform_code"] = image.header["qform_code"] = 0
nibabel.save(image, "a.nii")
header = nibabel.load("a.nii").header
assert header["sform_code"] == header["qform_code"] == 0
first = nibabel.load("a.nii").affine @ [0, 0, 0, 1]
step = nibabel.load("a.nii").affine[:3, :3]
read = SimpleITK.ReadImage("a.nii")
half_turn = np.array([-1, -1, 1])  # LPS to RAS
other = half_turn * read.TransformIndexToPhysicalPoint((0, 0, 0))
along = half_turn[:, None] * np.reshape(read.GetDirection(), (3, 3)) * read.GetSpacing()
print("nibabel", nibabel.__version__, "first voxel in RAS", first[:3].tolist(), "steps", np.diag(step).tolist())
print("SimpleITK", SimpleITK.__version__, "first voxel in RAS", other.tolist(), "steps", np.diag(along).tolist())
assert np.allclose(first[:3], [3, -3, -2]), "nibabel does otherwise now: look at this finding"
assert np.allclose(np.diag(step), [-2, 3, 4]), "nibabel does otherwise now: look at this finding"
assert np.allclose(other, 0), "SimpleITK does otherwise now: look at this finding"
assert np.allclose(np.diag(along), [-2, -3, 4]), "SimpleITK does otherwise now: look at this finding"
PY
echo "still so"
