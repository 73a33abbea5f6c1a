#!/usr/bin/env bash
# SimpleITK 2.5.7 gives voxels on which raters disagree the label of another structure.
#
# Input: two raters outline a liver (1); the second one's is 2 voxels longer. The dataset has tumours (2), this case none.
# Expected: voxels without a majority are liver or background, or have a label that no structure can have.
# Found: LabelVoting and MultiLabelSTAPLE make them 2, a tumour of 200 voxels: the label for undecided voxels is the largest one
# in the case, plus 1; in a case with a tumour it is 3. So it differs from case to case. Dice of the two raters is 0.95.
# Use: LabelVoting(images, 255), or another label that no structure has, and look for it.
# Fails as soon as there is no tumour.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK

first = np.zeros((12, 14, 30), np.uint8)
first[1:11, 2:12, 3:23] = 1
second = first.copy()
second[1:11, 2:12, 23:25] = 1
images = [SimpleITK.GetImageFromArray(labels) for labels in (first, second)]
found = {}
for name, made in {
    "LabelVoting": SimpleITK.LabelVoting(images),
    "MultiLabelSTAPLE": SimpleITK.MultiLabelSTAPLE(images),
    "LabelVoting, 255": SimpleITK.LabelVoting(images, 255),
}.items():
    values, counts = np.unique(SimpleITK.GetArrayFromImage(made), return_counts=True)
    found[name] = dict(zip(values.tolist(), counts.tolist()))
    print(f"{name}: voxels of each label {found[name]}")
print("first and second rater:", int(first.sum()), int(second.sum()))
assert found["LabelVoting, 255"] == {0: 2840, 1: 2000, 255: 200}
assert found["LabelVoting"] == {0: 2840, 1: 2000, 2: 200}, "the behaviour has changed"
assert 2 in found["MultiLabelSTAPLE"], "the behaviour has changed"
PYTHON
