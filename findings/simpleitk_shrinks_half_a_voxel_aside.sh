#!/usr/bin/env bash
# SimpleITK 2.5.7: Shrink by 2 or 4 moves an image with an even number of voxels by half a voxel.
#
# Input: 16 voxels of 5 mm whose values are their own places in mm, and a ball of label 1. Shrunk by 2 and by 4.
# Expected: a value lies at its place, as with BinShrink and Resample; the centre of the ball stays.
# Found: each value lies 2.5 mm beside its place and the ball with it. The new grid is centred on the old one, so that its first
# voxel lies between two old ones; the value is that of the later of the two. With 15 or 17 voxels nothing moves. Masks that
# were made on a shrunken scan, and transforms that were registered there, are off by as much.
# Use: BinShrink for scans, Resample for labels.
# Fails as soon as the values lie at their places.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK


def image_of(values):
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((5.0, 5.0, 5.0))
    return image


def off(image):
    """By how many mm the values lie beside their places, along x."""
    places = image.GetOrigin()[0] + image.GetSpacing()[0] * np.arange(image.GetSize()[0])
    return np.unique(SimpleITK.GetArrayFromImage(image)[0, 0] - places).tolist()


def centre(image):
    measured = SimpleITK.LabelShapeStatisticsImageFilter()
    measured.Execute(image)
    return np.round(measured.GetCentroid(1), 2).tolist()


found = {}
for size in (15, 16, 17):
    scan = image_of(np.broadcast_to(np.arange(size, dtype=np.float32) * 5, (4, 4, size)).copy())
    found[size] = off(SimpleITK.Shrink(scan, (2, 2, 2))) + off(SimpleITK.Shrink(scan, (4, 2, 2)))
    print(size, "voxels, by 2 and by 4: off by", *found[size], "mm; BinShrink:", *off(SimpleITK.BinShrink(scan, (2, 2, 2))))
    assert off(SimpleITK.BinShrink(scan, (2, 2, 2))) == [0]
z, y, x = np.indices((16, 16, 16)) - 7.5
ball = image_of(((z**2 + y**2 + x**2) < 25).astype(np.uint8))
print("centre of the ball before", centre(ball), "after", centre(SimpleITK.Shrink(ball, (2, 2, 2))))
assert centre(ball) == [37.5, 37.5, 37.5]
assert found[15][0] == found[17][0] == 0
assert found[16] == [2.5, 2.5], "the behaviour has changed"
PYTHON
