#!/usr/bin/env bash
# Pillow 13.0.0 swaps the bytes of compressed big-endian TIFF of signed and real numbers, and reads 32 unsigned bits as signed.
#
# Input: TIFF of one row of numbers, written by tifffile 2026.3.3, which reads them back.
# Expected: the numbers that were written.
# Found: big-endian and deflated, int16 [-5, 1, 2] becomes [-1025, 256, 512] and float32 other numbers; uncompressed they are right.
# uint32 2147483648 becomes -2147483648, int8 -5 becomes 251.
# Fails as soon as one of them is read right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 tifffile==2026.3.3 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)


def read(numbers, **how):
    tifffile.imwrite("a.tif", numbers[None], photometric="minisblack", **how)
    assert (np.atleast_2d(tifffile.imread("a.tif")) == numbers).all()
    found = np.asarray(Image.open("a.tif"))[0]
    print(numbers.dtype, how, numbers.tolist(), "->", found.tolist())
    return found.tolist()


signed, real = np.array([-5, 1, 2], np.int16), np.array([0.5, 1, 2], np.float32)
assert read(signed, byteorder=">") == [-5, 1, 2]
assert read(signed, byteorder=">", compression="zlib") == [-1025, 256, 512], "Pillow does otherwise now: look at this finding"
assert read(real, byteorder=">", compression="zlib") != [0.5, 1, 2], "Pillow does otherwise now: look at this finding"
assert read(np.array([2**31, 1], np.uint32), byteorder="<") == [-(2**31), 1], "Pillow does otherwise now: look at this finding"
assert read(np.array([-5, 1], np.int8), byteorder="<") == [251, 1], "Pillow does otherwise now: look at this finding"
PY
echo "still so"
