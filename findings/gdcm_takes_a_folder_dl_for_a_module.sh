#!/usr/bin/env bash
# python-gdcm 3.2.6 cannot be imported where a folder called "dl" lies beside the script, and takes pydicom 3.0.2 with it.
#
# Input: an empty folder "dl", as one for downloads or deep learning may be called, where Python looks first for modules.
# Expected: the import is not concerned.
# Found: AttributeError: module 'dl' has no attribute 'RTLD_NOW', since gdcm looks for a module "dl" that Python 3 does not have;
# pydicom, which looks whether gdcm is there, is gone as well.
# Use: another name, or Python's option -P, which leaves the folder of the script out.
# Fails as soon as the import works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet python-gdcm==3.2.6 pydicom==3.0.2 numpy==2.2.6
mkdir -p "$folder/work/dl"
cd "$folder/work"
cat >look.py <<'PY'
import importlib
import sys

(name,) = sys.argv[1:]
try:
    importlib.import_module(name)
    said = ""
except AttributeError as error:
    said = str(error)
print(f"import {name} ->", said or "fine")
assert said == "module 'dl' has no attribute 'RTLD_NOW'", "gdcm does otherwise now: look at this finding"
PY
../venv/bin/python look.py gdcm
../venv/bin/python look.py pydicom
rmdir dl
../venv/bin/python -c "import gdcm, pydicom"
echo "still so"
