#!/usr/bin/env bash
# SimpleITK 2.5.7 opens a NIfTI whose axes are not at right angles only if it also has a qform, and then without the shear.
#
# Input: 4 x 3 x 2 voxels of 2 x 3 x 4 mm whose slices are shifted by 0.5 mm each, as by a tilted gantry, written by nibabel 5.4.2,
# which reads the file back as it was. A qform cannot say this, so there is none; in a second file it has the slices straight above
# each other.
#
# Seen:
#   sform alone: "ITK only supports orthonormal direction cosines"
#   with a qform: opened, the shift is 0 mm
# What to use: nibabel; or NRRD, in which SimpleITK keeps the shear. autoseg reads both, and writes the sform alone: a refusal is
# better than labels at the wrong place.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK


def shift(image):
    """How far the second slice lies from the first along y, in mm."""
    first, second = (image.TransformIndexToPhysicalPoint((0, 0, z)) for z in range(2))
    return abs(second[1] - first[1])


affine = np.diag([2.0, 3, 4, 1])
affine[1, 2] = 0.5
image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), affine)
image.set_sform(affine, 1)
image.header["qform_code"] = 0
nibabel.save(image, "sform.nii")
assert np.allclose(nibabel.load("sform.nii").affine, affine)
try:
    SimpleITK.ReadImage("sform.nii")
except RuntimeError as error:
    print("sform alone:", str(error).strip().splitlines()[-1])
    assert "orthonormal" in str(error), "the behaviour has changed"
else:
    raise SystemExit("the behaviour has changed")
image.set_qform(np.diag([2.0, 3, 4, 1]), 1)
nibabel.save(image, "both.nii")
assert np.allclose(nibabel.load("both.nii").affine, affine)
read = SimpleITK.ReadImage("both.nii")
print(f"with a qform: shift {shift(read):g} mm")
assert shift(read) == 0, "the behaviour has changed"
read.SetDirection([1, 0, 0, 0, 1, 0.124035, 0, 0, 0.992278])
SimpleITK.WriteImage(read, "sheared.nrrd")
kept = shift(SimpleITK.ReadImage("sheared.nrrd"))
print(f"NRRD: shift {kept:.3f} mm of {shift(read):.3f}")
assert np.isclose(kept, shift(read)) and kept > 0.4, "the behaviour has changed"
PYTHON
