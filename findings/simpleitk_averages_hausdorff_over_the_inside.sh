#!/usr/bin/env bash
# SimpleITK 2.5.7: the average Hausdorff distance of two balls is less the larger they are: 2 mm all around are 0.15 mm.
#
# Input: balls of radius 5, 25 and 50 mm as references, and as predictions balls that are 2 mm larger. Voxels of 1 mm.
# Expected: the same for each, as the average distance of their surfaces, for which surface-distance 0.1 gives 1.5 to 1.6 mm.
# Found: GetAverageHausdorffDistance gives 0.48, 0.15 and 0.08 mm. It averages over all voxels of the masks, not over those of
# their surfaces, and what lies in both masks counts as 0 mm. GetHausdorffDistance is right.
# Use: surface-distance, or distance maps of LabelContour. autoseg averages over surfaces.
# Fails as soon as the largest balls are more than 0.1 mm apart.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 surface-distance==0.1 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK
from surface_distance import compute_average_surface_distance, compute_surface_distances

found = []
for radius in (5, 25, 50):
    z, y, x = np.indices((2 * radius + 10,) * 3) - (radius + 4.5)
    distance = np.sqrt(z**2 + y**2 + x**2)
    masks = [distance < radius, distance < radius + 2]
    measured = SimpleITK.HausdorffDistanceImageFilter()
    measured.Execute(*(SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in masks))
    surfaces = compute_average_surface_distance(compute_surface_distances(*masks, (1, 1, 1)))
    found.append(measured.GetAverageHausdorffDistance())
    print(f"radius {radius}: average {found[-1]:.2f}, largest {measured.GetHausdorffDistance():.2f}; surfaces {np.round(surfaces, 2)}")
    assert 1.5 < min(surfaces) and max(surfaces) < 2.5
    assert 2 <= measured.GetHausdorffDistance() < 3
assert found[0] > 0.4 and found[1] < 0.2 and found[2] < 0.1, "the behaviour has changed"
PYTHON
