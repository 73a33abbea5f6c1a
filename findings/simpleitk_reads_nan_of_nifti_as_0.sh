#!/usr/bin/env bash
# SimpleITK 2.5.7 reads NaN and infinity of a NIfTI as 0, without a word. In NRRD and MetaImage it reads them as they are.
#
# Input: a map of six voxels in float32 with NaN where nothing could be fitted: NaN, infinity, -infinity, 1, 2, 3; written by
# nibabel 5.4.2, and by SimpleITK itself.
# Expected: the same values from each file.
# Found: 0 0 0 1 2 3 from each NIfTI. The mean of what was fitted is 2; that of what SimpleITK reads is 1, and a 0 passes for a
# measurement. The files are right: nibabel finds NaN also in the one that SimpleITK wrote. Reported as ITK #6575.
# Use: nibabel, or NRRD for such maps. autoseg keeps NaN, and reports it.
# Fails as soon as NaN comes back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK

values = np.array([np.nan, np.inf, -np.inf, 1, 2, 3], np.float32)
nibabel.save(nibabel.Nifti1Image(values.reshape(6, 1, 1), np.eye(4)), "nibabel.nii.gz")
for name in ("simpleitk.nii.gz", "simpleitk.nrrd", "simpleitk.mha"):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values.reshape(1, 1, 6)), name)
found = {}
for name in ("nibabel.nii.gz", "simpleitk.nii.gz", "simpleitk.nrrd", "simpleitk.mha"):
    found[name] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(name)).ravel()
    print(f"{name}: {found[name]}, mean of what is finite: {found[name][np.isfinite(found[name])].mean():g}")
for name in ("nibabel.nii.gz", "simpleitk.nii.gz"):
    np.testing.assert_array_equal(nibabel.load(name).get_fdata().ravel(), values)
for name in ("simpleitk.nrrd", "simpleitk.mha"):
    np.testing.assert_array_equal(found[name], values)
for name in ("nibabel.nii.gz", "simpleitk.nii.gz"):
    assert found[name].tolist() == [0, 0, 0, 1, 2, 3], "the behaviour has changed"
PYTHON
