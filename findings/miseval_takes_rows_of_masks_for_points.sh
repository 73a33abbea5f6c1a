#!/usr/bin/env bash
# miseval 1.3.0: the Hausdorff distance "HD" is no distance in the image, and the average one "AHD" is the largest.
#
# Input: a square of 20 x 20 pixels in 100 x 100; as predictions the same square 40 pixels further down, 40 pixels to the right, and
# 5 pixels wider.
# Expected: HD 40, 40 and 5; AHD is an average and so less than HD.
# Found: HD 0, 4.47 and 2.24: each row of the mask is taken for a point of 100 coordinates, and the distance is that between two sets
# of rows. A square that moves down has the same rows. AHD is 40, 40 and 5, the largest distance.
# Use: "AHD" under the name of HD; or surface-distance, MedPy, SimpleITK. scipy's directed_hausdorff says what is right here.
# Fails as soon as HD or AHD change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check miseval==1.3.0 hausdorff==0.2.6 dictances==1.5.3 numpy==2.2.6 scipy==1.15.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from miseval import evaluate
from scipy.spatial.distance import directed_hausdorff

truth = np.zeros((100, 100), int)
truth[20:40, 20:40] = 1
wider = truth.copy()
wider[20:40, 40:45] = 1
found = {}
for name, mask in {"down": np.roll(truth, 40, axis=0), "right": np.roll(truth, 40, axis=1), "wider": wider}.items():
    points = np.argwhere(truth), np.argwhere(mask)
    right = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
    found[name] = [round(float(value), 2) for value in (right, *(evaluate(truth, mask, metric=metric) for metric in ("HD", "AHD")))]
    print(name, "right, HD, AHD:", *found[name])
assert found == {"down": [40, 0, 40], "right": [40, 4.47, 40], "wider": [5, 2.24, 5]}, "the behaviour has changed"
PYTHON
