#!/usr/bin/env bash
# MONAI 1.6.1: KeepLargestConnectedComponent also cleans the mask that it is given: before and after have the same Dice.
#
# Input: a structure of 1000 voxels and a false piece of 216 as prediction. Dice is taken of the prediction and of what the
# transform returns. NormalizeIntensity is given an image.
# Expected: Dice 0.90 before and 1 after, as with FillHoles and RemoveSmallObjects, which leave their input as it is.
# Found: Dice 1 and 1, since the input is changed in place, array or tensor. A study of whether cleaning helps finds no
# difference. NormalizeIntensity leaves the image as it is, but with nonzero or channel_wise, which differ from the default in
# what they compute alone, it normalises it in place. The transforms of dictionaries do the same.
# Use: give a copy.
# Fails as soon as the prediction stays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 scipy==1.15.3 scikit-image==0.25.2 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import torch
from monai.transforms import FillHoles, KeepLargestConnectedComponent, KeepLargestConnectedComponentd, NormalizeIntensity, RemoveSmallObjects

reference = np.zeros((1, 20, 20, 20), np.uint8)
reference[0, 2:12, 2:12, 2:12] = 1
predicted = reference.copy()
predicted[0, 13:19, 13:19, 13:19] = 1


def dice(labels):
    labels = np.asarray(labels)
    return round(float(2 * ((labels == 1) & (reference == 1)).sum() / ((labels == 1).sum() + (reference == 1).sum())), 2)


def before_and_after(transform, labels):
    cleaned = transform(labels)
    return dice(labels), dice(cleaned)


found = {
    "array": before_and_after(KeepLargestConnectedComponent(), predicted.copy()),
    "tensor": before_and_after(KeepLargestConnectedComponent(), torch.from_numpy(predicted.copy())),
    "FillHoles": before_and_after(FillHoles(), predicted.copy()),
    "RemoveSmallObjects": before_and_after(RemoveSmallObjects(min_size=500), predicted.copy()),
}
case = {"label": predicted.copy()}
cleaned = KeepLargestConnectedComponentd("label")(case)
found["dictionary"] = dice(case["label"]), dice(cleaned["label"])
image = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
kept = {}
for options in ({}, {"nonzero": True}, {"channel_wise": True}):
    given = image.copy()
    NormalizeIntensity(**options)(given)
    kept[str(options)] = bool((given == image).all())
for name, pair in found.items():
    print(f"{name}: Dice before {pair[0]}, after {pair[1]}")
print("NormalizeIntensity keeps the image that it is given:", kept)
assert dice(predicted) == 0.9
assert found["FillHoles"] == (0.9, 0.9) and found["RemoveSmallObjects"] == (0.9, 1)
assert list(kept.values()) == [True, False, False], "the behaviour has changed"
assert found["array"] == found["tensor"] == found["dictionary"] == (1, 1), "the behaviour has changed"
PYTHON
