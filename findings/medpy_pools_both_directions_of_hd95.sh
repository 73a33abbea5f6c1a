#!/usr/bin/env bash
# MedPy 0.5.2 and surface-distance 0.1 call different numbers the 95th percentile of the Hausdorff distance: 0 and 32 mm for
# the same two masks.
#
# Input: a block as reference; the same block and a small one 30 mm beside it as prediction. Voxels of 1 mm.
# Expected: one number, since both say HD95 of two masks in mm.
# Found: MedPy puts the distances of both directions into one list and takes its percentile. The false piece is 4 % of that
# list, so HD95 is 0. surface-distance takes the percentile of each direction, weighted by area, and then the larger one: the
# piece is more than 5 % of the predicted surface, so HD95 is 32 mm. Both are right by their own definition.
# Use: name the library beside an HD95, and compare only values of one. autoseg takes the larger of both directions by area.
# Fails as soon as the two agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check medpy==0.5.2 surface-distance==0.1 numpy==2.2.6 scipy==1.15.3
cat >"$folder/look.py" <<'PY'
import numpy as np
from medpy.metric.binary import hd, hd95
from surface_distance import compute_robust_hausdorff, compute_surface_distances

reference = np.zeros((30, 30, 90), bool)
reference[5:25, 5:25, 10:30] = True
predicted = reference.copy()
predicted[12:18, 12:18, 60:66] = True
spacing = (1.0, 1.0, 1.0)
distances = compute_surface_distances(reference, predicted, spacing)
both = {"MedPy": hd95(predicted, reference, spacing), "surface-distance": compute_robust_hausdorff(distances, 95)}
largest = {"MedPy": hd(predicted, reference, spacing), "surface-distance": compute_robust_hausdorff(distances, 100)}
print("largest distance in mm:", {name: round(float(value), 1) for name, value in largest.items()})
print("HD95 in mm:", {name: round(float(value), 1) for name, value in both.items()})
assert both["MedPy"] == 0 and both["surface-distance"] > 30, "they agree more now: look at this finding"
PY
"$folder/venv/bin/python" "$folder/look.py"
