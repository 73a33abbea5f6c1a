#!/usr/bin/env bash
# safetensors 0.8.0 scrambles the voxels of a volume that nibabel 5.4.2 read: what is loaded is not what was saved.
#
# Input: 2 x 3 x 4 voxels 0 to 23, read by nibabel, whose arrays are in Fortran order (the first axis fastest), like those of a file.
# Expected: the same values, as with numpy.save and with safetensors.torch, which refuses other orders; or a refusal here, too.
# Found: the bytes are written in the order of the memory and read in C order, without a word: 2 of 24 values are where they were.
# Reported as safetensors #825, which says that 0.7.0 saved them right.
# Use: numpy.ascontiguousarray before saving. autoseg saves weights of torch alone, and makes them contiguous.
# Fails as soon as the values are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 nibabel==5.4.2 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel
import numpy as np
from safetensors.numpy import load_file, save_file

nibabel.save(nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)), "scan.nii")
volume = np.asarray(nibabel.load("scan.nii").dataobj)
save_file({"as read": volume, "C order": np.ascontiguousarray(volume)}, "scan.safetensors")
loaded = load_file("scan.safetensors")
for name, values in loaded.items():
    print(name, values.shape, values.ravel().tolist(), "right:", int((values == volume).sum()), "of 24")
assert (loaded["C order"] == volume).all()
assert (np.sort(loaded["as read"].ravel()) == np.arange(24)).all()
assert (loaded["as read"].ravel() == volume.ravel("F")).all(), "the behaviour has changed"
PYTHON
