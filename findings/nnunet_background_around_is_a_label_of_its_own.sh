#!/usr/bin/env bash
# nnU-Net 2.8.1 (batchgenerators 0.25.5) makes structures larger where the scan is 0, when it resamples their labels.
#
# Before it resamples, it sets background where all channels are 0 to -1. Then 0 and -1 compete as two labels, each on its own, and a
# structure can win against both although most of the weight is background. The labels that a cascade's second stage reads, and those
# that it trains with, are made so.
#
# Input: an image of 12x12x12 voxels, 0 but for a slanted half, and a structure along the border between both, on the way to 17x17x17.
#
# Seen: voxels of the structure as nnU-Net resamples it, and without the -1:
#   891
#   881
# What to do: who wants the numbers of nnU-Net must set -1 as well, and 0 again after resampling.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nnunetv2==2.8.1 batchgenerators==0.25.5 torch==2.13.0 numpy==2.4.6
cd "$folder"
export nnUNet_raw="$folder" nnUNet_preprocessed="$folder" nnUNet_results="$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

z, y, x = np.indices((12, 12, 12))
image = np.where(z + y + x > 16, 100.0, 0.0)[None]
image[:, 0, 0, 0] = image[:, -1, -1, -1] = 100  # so that nothing is cropped
structure = (np.abs(z + y - x - 5) < 2).astype(np.int8)[None]
how = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": False}
_, marked, _ = crop_to_nonzero(image, structure.copy())
found = []
for labels in (marked, structure):
    resampled = resample_data_or_seg_to_shape(labels, (17, 17, 17), (1, 1, 1), (0.7, 0.7, 0.7), **how)
    found.append(int((resampled == 1).sum()))
    print(found[-1])
assert found == [891, 881], f"nnU-Net resamples labels otherwise now: {found}"
PYTHON
