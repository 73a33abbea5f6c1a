#!/usr/bin/env bash
# scikit-image 0.26.0: the triangles of a segmentation's surface face inward, its normals outward: the volume of the mesh is
# negative.
#
# Input: a box of 6 x 6 x 6 voxels in a mask. marching_cubes(mask, 0.5), and a mesh of what it returns in trimesh 5.2.0, as both
# describe it.
# Expected: triangles that are counter-clockwise seen from outside, as in STL, glTF and for trimesh, and a volume of about 208.
# Found: the volume is -208, and the normals that come with the vertices point against those of the triangles. The triangles
# follow the left-hand rule, which the description of gradient_direction names. Programs that go by the triangles take the body
# for a cavity.
# Use: gradient_direction="ascent", which winds the triangles the other way and alters nothing else; and the other one again if
# the axes are turned to (x, y, z) on the way. autoseg does so.
# Fails as soon as the volume is positive.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-image==0.26.0 trimesh==5.2.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import trimesh
from skimage.measure import marching_cubes

mask = np.zeros((12, 12, 12), np.uint8)
mask[3:9, 3:9, 3:9] = 1
found = {}
for direction in ("descent", "ascent"):
    vertices, faces, normals, _ = marching_cubes(mask, 0.5, gradient_direction=direction)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    outward = float(((vertices - 5.5) * normals).sum(axis=1).mean())
    found[direction] = mesh.volume, outward
    print(f"{direction}: volume {mesh.volume:.1f}, normals of the vertices point", "outward" if outward > 0 else "inward")
assert mask.sum() == 216
assert found["ascent"][0] > 200
assert found["descent"][1] > 0
assert found["descent"][0] < -200, "the behaviour has changed"
PYTHON
