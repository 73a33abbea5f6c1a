#!/usr/bin/env bash
# SimpleITK 2.5.7 opens TIFF masks of one bit a pixel as colours with an alpha channel.
#
# Input: a chequered mask of 16 x 16 pixels of one bit, written by Pillow 13.0.0, which reads it back.
# Expected: one number a pixel, as of a PNG of one bit.
# Found: four: (0, 0, 0, 255) and (255, 255, 255, 255); with group 4 compression too. ITK warns on standard error.
# Use: Pillow, or masks of 8 bits.
# Fails as soon as there is one number a pixel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet simpleitk==2.5.7 pillow==13.0.0 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import PIL
import SimpleITK
from PIL import Image

print("SimpleITK", SimpleITK.Version_VersionString(), "Pillow", PIL.__version__)
mask = np.indices((16, 16)).sum(axis=0) % 2 == 1
for ending, options in ((".png", {}), (".tif", {}), (".tif", {"compression": "group4"})):
    Image.fromarray(mask).save(f"a{ending}", **options)
    assert (np.asarray(Image.open(f"a{ending}")) == mask).all()
    found = SimpleITK.ReadImage(f"a{ending}")
    numbers = found.GetNumberOfComponentsPerPixel()
    print(ending, options, "numbers a pixel:", numbers, np.unique(SimpleITK.GetArrayFromImage(found).reshape(-1, numbers), axis=0).tolist())
    assert numbers == (1 if ending == ".png" else 4), "SimpleITK does otherwise now: look at this finding"
PY
echo "still so"
