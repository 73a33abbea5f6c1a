#!/usr/bin/env bash
# SimpleITK 2.5.7 adds the intercept of a NIfTI whose slope is 0; nibabel 5.4.2 does not.
#
# Input: int16 voxels 0 to 23, scl_slope 0, scl_inter -1024. By the NIfTI standard a slope of 0 means that the stored numbers
# are not scaled.
# Expected: 0 to 23, as nibabel reads them.
# Found: SimpleITK reads -1024 to -1001, so the same file has two sets of intensities.
# Use instead: nibabel, or write slope 1 and the intercept that is meant.
# Fails as soon as SimpleITK does otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(4, 3, 2), np.eye(4))
nibabel.save(image, "a.nii")
content = bytearray(Path("a.nii").read_bytes())
content[112:120] = np.array([0, -1024], "<f4").tobytes()  # scl_slope and scl_inter
Path("a.nii").write_bytes(content)
plain = np.asarray(nibabel.load("a.nii").dataobj)
found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("a.nii"))
print("SimpleITK", SimpleITK.__version__, "nibabel", nibabel.__version__)
print("nibabel", plain.min(), "to", plain.max(), "SimpleITK", found.min(), "to", found.max())
assert (plain.min(), plain.max()) == (0, 23)
assert (found.min(), found.max()) == (-1024, -1001), "SimpleITK does otherwise now: look at this finding"
PY
echo "still so"
