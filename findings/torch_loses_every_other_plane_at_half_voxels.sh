#!/usr/bin/env bash
# torch 2.13.0: labels that are moved by half a voxel lose every other plane: grid_sample(mode="nearest") rounds halves to even.
#
# Input: eight planes with the labels 0 to 7, sampled half a voxel further: at 0.5, 1.5, ... 6.5.
# Expected: each plane once: 1 2 3 4 5 6 7 (scipy 1.15.3, SimpleITK 2.5.7), or 0 to 6.
# Found: 0 2 2 4 4 6 6: planes 1, 3 and 5 are lost, 2, 4 and 6 are twice as thick. A vessel or a membrane of one voxel vanishes or
# doubles, by the parity of its index. Transforms that sample labels with grid_sample, such as those of MONAI 1.6.1 (Affine with a
# translation of 0.5), do the same. torch has std::nearbyint there (pytorch #97000).
# Use: interpolate the mask of each label and take the largest, as autoseg does; or move by another amount than a half.
# Fails as soon as every plane is there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 SimpleITK==2.5.7 numpy==2.2.6 scipy==1.15.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK
import torch
from scipy.ndimage import shift
from torch.nn.functional import affine_grid, grid_sample

labels = np.broadcast_to(np.arange(8, dtype=np.float32), (2, 2, 8)).copy()  # z, y, x
moved = torch.eye(3, 4)[None]
moved[0, 0, 3] = 0.5 * 2 / 8  # the image is 2 wide
grid = affine_grid(moved, (1, 1, *labels.shape), align_corners=False)
image = SimpleITK.GetImageFromArray(labels)
place = SimpleITK.TranslationTransform(3, (0.5, 0, 0))
found = {
    "torch": grid_sample(torch.from_numpy(labels)[None, None], grid, "nearest", "border", align_corners=False)[0, 0].numpy(),
    "scipy": shift(labels, (0, 0, -0.5), order=0, mode="nearest"),
    "SimpleITK": SimpleITK.GetArrayFromImage(SimpleITK.Resample(image, image, place, SimpleITK.sitkNearestNeighbor)),
}
planes = {name: values[0, 0, :7].astype(int).tolist() for name, values in found.items()}  # the eighth lies half outside
print(planes)
assert planes["scipy"] == planes["SimpleITK"] == [1, 2, 3, 4, 5, 6, 7]
assert planes["torch"] == [0, 2, 2, 4, 4, 6, 6], "the behaviour has changed"
PYTHON
