#!/usr/bin/env bash
# nibabel 5.4.2 scales labels that are floats when the header it is given says int16: 1 comes back as 1.0000153.
#
# Input: labels 0, 1, 2 as float64, as scipy and others return them, saved with the header of an int16 scan, as one does to keep its
# place. 0, 1, 104 the same.
#
# Seen:
#   float64: 0 1.00001526 2 and 0 0.99977111 103.99999998
#   uint8: 0 1 2 and 0 1 104
# A comparison with 1 finds nothing then, in nibabel, SimpleITK and others. What to do: convert labels to integers and set the data type
# of the header to theirs, as autoseg does; it rounds such labels when it reads them, and says so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK

scan = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.eye(4))
found = {}
for kind in ("float64", "uint8"):
    for values in ([0, 1, 2], [0, 1, 104]):
        labels = np.resize(np.array(values, kind), (4, 3, 2))
        nibabel.save(nibabel.Nifti1Image(labels, scan.affine, scan.header), "labels.nii")
        read = np.unique(nibabel.load("labels.nii").get_fdata())
        other = np.unique(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("labels.nii")))
        print(kind, values, "->", np.round(read, 8).tolist(), "SimpleITK", other.tolist())
        found[kind, values[-1]] = bool((read == values).all()), bool((other == values).all())
assert not any(found["float64", 2] + found["float64", 104]), "the behaviour has changed"
assert all(found["uint8", 2] + found["uint8", 104]), "the behaviour has changed"
PYTHON
