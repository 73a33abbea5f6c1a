#!/usr/bin/env bash
# seg-metrics 1.2.8 gives a structure that was missed the distances of a perfect one: HD, HD95 and mean distance are 0 mm.
#
# Input: a cube as reference; an empty prediction, and one of a single voxel in the corner of the image.
# Expected: an empty prediction is no better than any other wrong one, or its distances are not defined.
# Found: 0 mm, since the distance map of an empty mask is set to 0 everywhere. The voxel in the corner gets an HD95 of 22 mm. A warning
# names precision and recall alone.
# Use: look at Dice first, which is 0. SimpleITK 2.5.7 refuses the distance to an empty mask; autoseg scores it with the diagonal of
# the image.
# Fails as soon as one of the three distances is not 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check seg-metrics==1.2.8 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK
from seg_metrics.seg_metrics import write_metrics

reference = np.zeros((20, 20, 20), np.uint8)
reference[5:15, 5:15, 5:15] = 1
empty = np.zeros_like(reference)
corner = empty.copy()
corner[0, 0, 0] = 1
found = {}
for name, predicted in {"perfect": reference, "empty": empty, "corner": corner}.items():
    (row,) = write_metrics([1], gdth_img=reference, pred_img=predicted, spacing=(1, 1, 1), metrics=["dice", "hd", "hd95", "msd"])
    found[name] = [round(float(row[metric][0]), 2) for metric in ("dice", "hd", "hd95", "msd")]
    print(name, "Dice, HD, HD95, mean distance:", *found[name])
refused = False
try:
    SimpleITK.HausdorffDistanceImageFilter().Execute(*map(SimpleITK.GetImageFromArray, (reference, empty)))
except RuntimeError:
    refused = True
assert refused
assert found["perfect"] == [1, 0, 0, 0]
assert found["empty"] == [0, 0, 0, 0], "the behaviour has changed"
assert found["corner"][0] == 0 and found["corner"][2] > 20
PYTHON
