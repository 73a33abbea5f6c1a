#!/usr/bin/env bash
# OpenCV 5.0.0 opens a label picture of 16 bits as colours of 8 bits, without a word: label 300 becomes 1, and 2 becomes 0.
#
# Input: greys of 16 bits with the labels 0, 2 and 300, as PNG and as TIFF, written by Pillow 13.0.0.
#
# Seen:
#   imread: uint8, three channels, values 0 and 1
#   imread with IMREAD_UNCHANGED: uint16, one channel, values 0, 2 and 300
# What to use: IMREAD_UNCHANGED.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import cv2
import numpy as np
from PIL import Image

labels = np.array([[0, 2, 300], [300, 2, 0]], np.uint16)
for file in ("a.png", "a.tif"):
    Image.fromarray(labels).save(file)
    found, right = cv2.imread(file), cv2.imread(file, cv2.IMREAD_UNCHANGED)
    print(file, found.dtype, found.shape, np.unique(found), "IMREAD_UNCHANGED:", right.dtype, np.unique(right))
    assert (right == labels).all()
    assert found.dtype == np.uint8 and found.shape == (2, 3, 3), "the behaviour has changed"
    assert np.unique(found).tolist() == [0, 1], "the behaviour has changed"
PYTHON
