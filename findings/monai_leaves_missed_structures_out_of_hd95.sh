#!/usr/bin/env bash
# MONAI 1.6.1 leaves a structure that was missed out of the mean HD95, so that a network with worse masks gets a better number.
#
# Input: a cube as reference, in two cases. In the first the prediction is 2 voxels too long, in the second it is empty.
# Expected: the same for the largest distance and its 95th percentile: no finite mean, since the distance to an empty mask is not
# defined.
# Found: HausdorffDistanceMetric gives 2 and inf, mean inf; with percentile=95 it gives 2 and nan, and the mean is 2, that of the
# first case alone. nan is also what two empty masks give, which is no error. The 95th percentile of nothing but inf is nan in
# torch.quantile. Reported as MONAI #9095.
# Use: get_not_nans=True, which tells the number of cases in the mean. autoseg scores a missed structure with the diagonal of the
# image, and says so.
# Fails as soon as HD95 of the missed structure is something else than nan.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.2.6 scipy==1.15.3
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from monai.metrics import HausdorffDistanceMetric

reference = torch.zeros(2, 1, 20, 20, 20)  # cases, structures, voxels
reference[:, :, 5:15, 5:15, 5:15] = 1
predicted = torch.zeros_like(reference)
predicted[0, :, 5:17, 5:15, 5:15] = 1
found = {}
for percent in (None, 95):
    metric = HausdorffDistanceMetric(include_background=True, percentile=percent, reduction="mean")
    cases = metric(y_pred=predicted, y=reference).ravel().tolist()
    found[percent] = (*cases, metric.aggregate().item())
    print("percentile", percent, "cases", cases, "mean", found[percent][-1])
assert found[None] == (2, float("inf"), float("inf")), "the behaviour has changed"
assert found[95][0] == found[95][2] == 2, "the behaviour has changed"
assert found[95][1] != found[95][1], "the behaviour has changed"  # nan
PYTHON
