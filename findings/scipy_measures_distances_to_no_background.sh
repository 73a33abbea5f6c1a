#!/usr/bin/env bash
# SciPy 1.17.1: distance_transform_edt of an array without any background returns distances to a point outside of it.
#
# Input: 3 x 3 voxels that are all 1, as the complement of a prediction that is empty: how far is each voxel from the
# structure?
# Expected: infinity, or an error.
# Found: 1, 1.414, 2.236 in the first row, as if (-1, 0) were the nearest background; no warning. Distances grow with the place
# in the array, so a missed structure gets a finite distance that depends on where the array is cropped.
# Use instead: `if not mask.any()` before the transform.
# Fails as soon as SciPy does otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import scipy
from scipy.ndimage import distance_transform_edt

empty = np.zeros((3, 3), bool)
found = distance_transform_edt(~empty)
rows, columns = np.indices(empty.shape)
print("SciPy", scipy.__version__)
print(found.round(3))
assert np.allclose(found, np.hypot(rows + 1, columns)), "SciPy does otherwise now: look at this finding"
one = empty.copy()
one[1, 1] = True
assert distance_transform_edt(~one).max() == np.sqrt(2)  # with a structure, distances are right
PY
echo "still so"
