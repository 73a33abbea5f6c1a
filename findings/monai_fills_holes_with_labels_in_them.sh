#!/usr/bin/env bash
# MONAI 1.6.1: FillHoles erases a structure that lies inside another one: a tumour within its organ becomes organ.
#
# Input: an organ (1) of 343 voxels. In it lie a tumour (2) of 27 voxels and one voxel of background, which is a hole.
# Expected: the hole becomes 1 and the tumour stays, since the description of FillHoles says that a hole is background.
# Found: the tumour is gone, with the default labels and with applied_labels=[1]. One-hot channels of organ and tumour overlap.
# Use: fill only where the labels are 0, as scipy and one line do here. autoseg does so.
# Fails as soon as the tumour stays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.2.6 scipy==1.15.3
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from monai.transforms import FillHoles
from scipy.ndimage import binary_fill_holes

labels = np.zeros((1, 9, 9, 9), np.uint8)
labels[0, 1:8, 1:8, 1:8] = 1
labels[0, 3:6, 3:6, 3:6] = 2
labels[0, 2, 2, 2] = 0


def count(found):
    return [int((np.asarray(found) == value).sum()) for value in (0, 1, 2)]


right = np.where((labels == 0) & binary_fill_holes(labels[0] == 1), 1, labels)
default = FillHoles()(labels.copy())
organ_alone = FillHoles(applied_labels=[1])(labels.copy())
channels = np.asarray(FillHoles()(np.concatenate([labels == value for value in (0, 1, 2)]).astype(np.uint8)))
print("voxels of 0, 1, 2 before:", count(labels), "right:", count(right))
print("default:", count(default), "applied_labels=[1]:", count(organ_alone))
print("one-hot, voxels of each channel:", channels.sum(axis=(1, 2, 3)).tolist())
assert count(right) == [386, 316, 27]
assert count(default) == count(organ_alone) == [386, 343, 0], "the behaviour has changed"
PYTHON
