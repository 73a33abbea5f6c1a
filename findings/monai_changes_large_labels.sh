#!/usr/bin/env bash
# MONAI 1.6.1: LoadImage changes label values above 16 777 216: it converts what it reads to 32-bit floating-point numbers.
#
# Input: a NIfTI with the label values 16777217 and 614454277 (a region of the Allen mouse brain atlas), written by nibabel 5.4.2,
# which reads its own file back unchanged.
#
# Seen:
#   LoadImage: 0, 16777216, 614454272
# What to use: LoadImage(dtype=numpy.int64), or nibabel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.2.6 nibabel==5.4.2
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import nibabel
import numpy as np
from monai.transforms import LoadImage

labels = np.zeros((2, 3, 4), np.int32)
labels[0, 0, 0], labels[1, 1, 1] = 16777217, 614454277
nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), "a.nii.gz")
right = np.asarray(nibabel.load("a.nii.gz").dataobj)
found = LoadImage(image_only=True)("a.nii.gz").numpy().astype(np.int64)
whole = LoadImage(image_only=True, dtype=np.int64)("a.nii.gz").numpy()
print("LoadImage:", np.unique(found).tolist(), "with dtype=int64:", np.unique(whole).tolist())
assert (right == labels).all() and (whole == labels).all()
assert np.unique(found).tolist() == [0, 16777216, 614454272], "the behaviour has changed"
PYTHON
