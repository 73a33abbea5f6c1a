#!/usr/bin/env bash
# kornia 0.9.0: connected_components breaks a structure that is wider than about a hundred pixels into thousands of components.
#
# Input: discs with a radius of 20, 40, 60 and 100 pixels, each in a picture of 256 x 256; a liver in a CT slice is as large.
# Expected: one component in each picture, as scipy 1.15.3 finds.
# Found: 1, 1, 19 and 5699 components. Labels spread by a pixel per iteration, there are 100 of them (num_iterations), and what
# has not met by then is returned as it is. The largest component is half of the disc.
# Use: num_iterations as large as the longest way through a structure, or scipy, cc3d, scikit-image.
# Fails as soon as the largest disc is one component.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kornia==0.9.0 scipy==1.15.3 torch==2.13.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch
from kornia.contrib import connected_components
from scipy.ndimage import label

y, x = np.indices((256, 256)) - 128
found = {}
for radius in (20, 40, 60, 100):
    disc = y**2 + x**2 < radius**2
    mask = torch.from_numpy(disc).float()[None, None]
    labels = connected_components(mask)
    found[radius] = int(labels.unique().numel()) - 1
    largest = int(labels[labels > 0].unique(return_counts=True)[1].max())
    print(f"radius {radius}: {found[radius]} components by kornia, {label(disc)[1]} by scipy; largest {largest} of {disc.sum()} pixels")
    assert label(disc)[1] == 1
patient = connected_components(mask, num_iterations=600)
print("with 600 iterations:", int(patient.unique().numel()) - 1)
assert patient.unique().numel() == 2
assert found[20] == 1
assert found[100] > 1000, "the behaviour has changed"
PYTHON
