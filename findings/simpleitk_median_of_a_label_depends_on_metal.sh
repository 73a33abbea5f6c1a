#!/usr/bin/env bash
# SimpleITK 2.5.7: the median of a label depends on voxels outside it: 60 HU become 90 HU by one filter and 29 HU by another.
#
# Input: a CT with a liver of 60 HU (standard deviation 10) in air of -1000 HU; the same with 9 voxels of metal (30000).
# Expected: 60 HU in both, as numpy.median has it.
# Found: with the metal LabelIntensityStatistics gives 90 HU and LabelStatistics 29 HU; without it 63 and 61 HU. Both read the
# median off a histogram with few bins over the range of the whole image, here bins of more than 100 HU. The means are right.
# Under 40 HU a liver is called fatty.
# Use: numpy.median of the voxels of the label.
# Fails as soon as one of the medians is closer to 60 HU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK

labels = np.zeros((20, 40, 40), np.uint8)
labels[5:15, 10:30, 10:30] = 1
plain = np.full(labels.shape, -1000, np.int16)
plain[labels == 1] = np.random.default_rng(0).normal(60, 10, np.count_nonzero(labels)).round()
metal = plain.copy()
metal[2, :3, :3] = 30000
mask = SimpleITK.GetImageFromArray(labels)
found = {}
for name, scan in {"without metal": plain, "with metal": metal}.items():
    image = SimpleITK.GetImageFromArray(scan)
    intensity, statistics = SimpleITK.LabelIntensityStatisticsImageFilter(), SimpleITK.LabelStatisticsImageFilter()
    intensity.Execute(mask, image)
    statistics.Execute(image, mask)
    found[name] = intensity.GetMedian(1), statistics.GetMedian(1)
    print(f"{name}: LabelIntensityStatistics {found[name][0]:.2f}, LabelStatistics {found[name][1]:.2f},", end=" ")
    print(f"numpy {np.median(scan[labels == 1]):g}; means {intensity.GetMean(1):.2f} {statistics.GetMean(1):.2f}")
    assert np.median(scan[labels == 1]) == 60
    assert np.allclose([intensity.GetMean(1), statistics.GetMean(1)], 60, atol=0.5)
assert found["with metal"][0] > 85 and found["with metal"][1] < 35, "the behaviour has changed"
PYTHON
