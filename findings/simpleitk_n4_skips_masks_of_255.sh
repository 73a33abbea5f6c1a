#!/usr/bin/env bash
# SimpleITK 2.5.7: N4 corrects nothing within a mask whose voxels are 255, and says nothing.
#
# Input: an image whose brightness grows threefold from left to right, with noise of 5 %; masks of the whole image, of 1, 2 and 255.
# Masks of 255 are what SimpleITK itself opens from DICOM segmentations and what many programs write.
# Expected: the same result for all, as the description of the filter has it: all voxels of the mask that are not 0 are used.
# Found: with 1 the standard deviation falls from 31 to 5. With 2 or 255 the image comes back bit for bit. UseMaskLabel is on from the
# start, against the same description, and MaskLabel is 1, so that other values are outside.
# Use: mask != 0 as the mask, or UseMaskLabelOff().
# Fails as soon as the image is corrected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK

values = np.random.default_rng(0).normal(100, 5, (8, 16, 16)) * np.linspace(0.5, 1.5, 16)
image = SimpleITK.GetImageFromArray(values.astype(np.float32))
before = SimpleITK.GetArrayFromImage(image)


def corrected(value, every=False):
    method = SimpleITK.N4BiasFieldCorrectionImageFilter()
    if every:
        method.UseMaskLabelOff()
    mask = SimpleITK.GetImageFromArray(np.full(values.shape, value, np.uint8))
    return SimpleITK.GetArrayFromImage(method.Execute(image, mask))


found = {"1": corrected(1), "2": corrected(2), "255": corrected(255), "255, UseMaskLabelOff": corrected(255, every=True)}
print("standard deviation before:", round(float(before.std()), 1))
for name, after in found.items():
    print("mask of", name, "after:", round(float(after.std()), 1), "unchanged:", bool((after == before).all()))
assert found["1"].std() < 8 and found["255, UseMaskLabelOff"].std() < 8
assert (found["2"] == before).all() and (found["255"] == before).all(), "the behaviour has changed"
PYTHON
