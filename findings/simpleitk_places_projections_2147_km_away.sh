#!/usr/bin/env bash
# SimpleITK 2.5.7 projects along x unless told otherwise, and places what comes out 2147 km beside the patient.
#
# Input: 6 x 5 x 4 voxels of 1 x 2 x 3 mm at (5, 6, 7) mm.
# Expected: a projection along x is one voxel wide, as long as the image (6 mm), and has its centre: x = 7.5 mm.
# Found: it has the centre x = 2147483652.5 mm, and so have MeanProjection, SumProjection and the others, which take x if no
# axis is named. Along y and z the centre is wrong too: 6 instead of 10 mm, 8.5 instead of 11.5 mm. Values, sizes and spacings
# are right, so that a picture looks as it should; resampled to the scan nothing is left of it. Reported as SimpleITK #2625.
# Use: name the axis, and set the origin to the centre of the image along it.
# Fails as soon as one of the centres is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK

image = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6), np.float32))
image.SetSpacing((1.0, 2.0, 3.0))
image.SetOrigin((5.0, 6.0, 7.0))
centre = image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])
default = SimpleITK.MaximumProjection(image)
print("default: size", default.GetSize(), "origin", default.GetOrigin())
found = []
for axis, name in enumerate("xyz"):
    made = SimpleITK.MaximumProjection(image, axis)
    found.append(made.GetOrigin()[axis])
    print(f"along {name}: spacing {made.GetSpacing()}, {name} of the centre {found[-1]}, right is {centre[axis]}")
    assert made.GetSize()[axis] == 1
for other in (SimpleITK.MeanProjection, SimpleITK.SumProjection, SimpleITK.MedianProjection, SimpleITK.StandardDeviationProjection):
    assert other(image).GetOrigin() == default.GetOrigin()
assert centre == (7.5, 10, 11.5)
assert default.GetSize() == (1, 5, 4), "the behaviour has changed"
assert found == [2147483652.5, 6, 8.5], "the behaviour has changed"
PYTHON
