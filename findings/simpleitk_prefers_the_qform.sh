#!/usr/bin/env bash
# SimpleITK 2.5.7 takes the qform of a NIfTI that has two forms, unless the code of the sform is 1; nibabel 5.4.2 takes the sform.
#
# Input: 4 x 3 x 2 voxels of 2 x 3 x 4 mm. The qform puts the first voxel at (10, 20, 30) mm, the sform at (1, 2, 3) mm, turned by
# 30 degrees, as after a registration. Both are valid; every pair of codes from 1 to 4 is tried.
#
# Seen:
#   sform code 1: SimpleITK takes the sform; 2, 3, 4: the qform. nibabel takes the sform of all
# What to do: write one placement into both, as autoseg does; it reads as nibabel does, and says where the two forms differ.
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

turn = np.radians(30)
qform, sform = np.diag([2.0, 3, 4, 1]), np.eye(4)
qform[:3, 3], sform[:3, 3] = (10, 20, 30), (1, 2, 3)
sform[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
sform[:3, :3] *= [2, 3, 4]
first = {10: "qform", 1: "sform"}  # x of the first voxel
for code in range(1, 5):
    found = set()
    for other in range(1, 5):
        image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), None)
        image.header.set_zooms((2, 3, 4))
        image.header.set_qform(qform, other)
        image.header.set_sform(sform, code)
        nibabel.save(image, "a.nii")
        assert round(nibabel.load("a.nii").affine[0, 3]) == 1, "the behaviour has changed"
        found.add(first[round(-SimpleITK.ReadImage("a.nii").GetOrigin()[0])])
    print(f"sform code {code}, qform codes 1 to 4: SimpleITK takes the {' or the '.join(found)}")
    assert found == {"sform" if code == 1 else "qform"}, "the behaviour has changed"
PYTHON
