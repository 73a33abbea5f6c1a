#!/usr/bin/env bash
# SimpleITK 2.5.7: the surface of a cube in thick slices is less than that of a ball of its volume, and its roundness more than 1.
#
# Input: a cube of 20 mm, in voxels of 1 mm and in voxels of 0.5 x 0.5 x 5 mm. Its surface is 2400 mm2 by hand. No body of 8000 mm3 has
# less than a ball: 1934 mm2.
# Expected: about 2400 mm2, and a roundness (a ball's surface by the body's) of 0.81.
# Found: GetPerimeter says 2160 and 1788 mm2, GetRoundness 0.90 and 1.08. It counts where lines in 13 directions cross the border of
# the mask, which is right on average over all directions of a surface (a ball of radius 20 mm: 5009 of 5027 mm2), not for flat ones.
# Use: the area of a mesh, also for sphericity. Marching cubes of scikit-image give 2329 and 2347 mm2, but 5453 for the ball, whose
# steps they follow. autoseg measures its smoothed mesh: 2259 and 2176 mm2, since it rounds edges.
# Fails as soon as the roundness of the cube in thick slices is at most 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 scikit-image==0.25.2 numpy==2.2.6 scipy==1.15.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK
from skimage.measure import marching_cubes, mesh_surface_area


def measured(mask, spacing):
    """Surface and roundness in SimpleITK, surface in scikit-image; mask and spacing along z, y, x."""
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    shape = SimpleITK.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOn()
    shape.Execute(image)
    mesh = mesh_surface_area(*marching_cubes(mask, spacing=spacing)[:2])
    return round(shape.GetPerimeter(1)), round(shape.GetRoundness(1), 2), round(float(mesh))


thin = measured(np.pad(np.ones((20, 20, 20), bool), 2), (1.0, 1.0, 1.0))
thick = measured(np.pad(np.ones((4, 40, 40), bool), 2), (5.0, 0.5, 0.5))
ball = measured(sum(axis**2 for axis in np.ogrid[-22:23, -22:23, -22:23]) <= 20**2, (1.0, 1.0, 1.0))
print("cube in voxels of 1 mm:", thin, "in thick slices:", thick, "ball:", ball)
assert abs(ball[0] - 4 * np.pi * 20**2) < 50
assert thick[2] > 2300
assert thick[0] < (36 * np.pi * 8000**2) ** (1 / 3) and thick[1] > 1, "the behaviour has changed"
PYTHON
