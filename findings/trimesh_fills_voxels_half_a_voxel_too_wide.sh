#!/usr/bin/env bash
# trimesh 5.2.0: a mask made of a mesh is half a voxel too wide on all sides: a ball of 10 mm becomes 21 % larger.
#
# Input: balls with a radius of 5, 10 and 20 mm, and a box of 4 x 4 x 4 mm, as masks with voxels of 1 mm: voxelized(1).fill().
# Expected: the voxels whose centres lie in the mesh, and so about its volume (485, 4139 and 33371); 64 voxels for the box.
# Found: 44, 21 and 10 % more for the balls, and 125 voxels for the box: each voxel that the surface touches is part of the
# mask, and voxels have their centres at whole multiples of their size. fill only adds what lies inside.
# Use: the voxels whose centres are inside, as vtkPolyDataToImageStencil of VTK 9.7.2 finds them (4139 for 10 mm).
# Fails as soon as a mask has the volume of its mesh, within 10 %.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trimesh==5.2.0 scipy==1.15.3 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import trimesh

found = {}
for radius in (5, 10, 20):
    ball = trimesh.creation.icosphere(4, radius)
    z, y, x = np.indices((2 * radius + 1,) * 3) - radius
    centres = int((z**2 + y**2 + x**2 < radius**2).sum())
    made = ball.voxelized(1.0).fill()
    found[radius] = made.filled_count / ball.volume
    print(f"ball of {radius} mm: volume {ball.volume:.0f}, voxels with their centre inside {centres}, found {made.filled_count}")
    assert abs(centres / ball.volume - 1) < 0.1
box = trimesh.creation.box((4, 4, 4))
box.apply_translation((0.5, 0.5, 0.5))
made = box.voxelized(1.0).fill()
print(f"box of 4 mm: volume {box.volume:.0f}, found {made.filled_count}")
assert found[5] > 1.4 and found[10] > 1.15 and found[20] > 1.08, "the behaviour has changed"
assert made.filled_count == 125, "the behaviour has changed"
PYTHON
