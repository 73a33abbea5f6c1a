#!/usr/bin/env bash
# pymeshlab 2025.7.post1 keeps the transform of a GLB's root node apart, and loses it when it saves an STL: millimetres and metres
# of one file differ by a thousand.
#
# Input: a box of 20 x 30 x 40 in a GLB whose root node scales by 0.001, written by trimesh 5.2.0. glTF is in metres, and the
# transform of a node is part of the format.
# Expected: 0.02 x 0.03 x 0.04, as trimesh reads it back.
# Found: vertex_matrix() is 20 x 30 x 40, transformed_vertex_matrix() and the measured volume are in metres, and the STL that
# save_current_mesh writes is 20 x 30 x 40 again. Of a GLB whose vertices are in metres themselves, as autoseg writes it, the STL is
# right.
# Fails as soon as one of them changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pymeshlab==2025.7.post1 trimesh==5.2.0 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import pymeshlab
import trimesh

scene = trimesh.Scene(base_frame="world")
scene.graph.update(frame_from="world", frame_to="root", matrix=np.diag([0.001, 0.001, 0.001, 1]))
scene.add_geometry(trimesh.creation.box((20, 30, 40)), parent_node_name="root")
scene.export("a.glb")
meshes = pymeshlab.MeshSet()
meshes.load_new_mesh("a.glb")
meshes.save_current_mesh("a.stl")
mesh = meshes.current_mesh()
right, saved = trimesh.load("a.glb").extents, trimesh.load("a.stl").extents
plain, turned = (np.ptp(points, axis=0) for points in (mesh.vertex_matrix(), mesh.transformed_vertex_matrix()))
print("trimesh", trimesh.__version__, right.tolist(), "pymeshlab", plain.tolist(), turned.tolist(), "as STL", saved.tolist())
assert np.allclose(right, [0.02, 0.03, 0.04])
assert np.allclose(turned, right), "pymeshlab does otherwise now: look at this finding"
assert np.allclose(plain, 1000 * right), "pymeshlab does otherwise now: look at this finding"
assert np.allclose(saved, 1000 * right), "pymeshlab does otherwise now: look at this finding"
trimesh.Scene(trimesh.creation.box((0.02, 0.03, 0.04))).export("b.glb")
meshes.load_new_mesh("b.glb")
meshes.save_current_mesh("b.stl")
print("vertices in metres", trimesh.load("b.stl").extents.tolist())
assert np.allclose(trimesh.load("b.stl").extents, right)
PY
echo "still so"
