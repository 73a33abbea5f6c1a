#!/usr/bin/env bash
# Pillow 13.0.0 opens colours of 16 bits as colours of 8 bits, without a word: the lower half of every number is gone.
#
# Input: a PNG of two pixels, (1000, 2000, 3000) and (65535, 256, 255), made here by the standard's rules. SimpleITK 2.5.7 reads
# what was written.
#
# Seen:
#   Pillow: RGB uint8 (3, 7, 11) (255, 1, 0)
#   SimpleITK: uint16 (1000, 2000, 3000) (65535, 256, 255)
# What to use: SimpleITK, which autoseg uses for such pictures.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


pixels = np.array([[[1000, 2000, 3000], [65535, 256, 255]]])
header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)  # width, height, bits, colours, and the defaults
rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
Path("a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    picture = Image.open("a.png")
    found = np.asarray(picture)
right = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("a.png"))
print("Pillow:", picture.mode, found.dtype, found.tolist(), "SimpleITK:", right.dtype, right.tolist())
assert (right == pixels).all()
assert found.dtype == np.uint8 and (found == pixels // 256).all() and not told, "the behaviour has changed"
PYTHON
