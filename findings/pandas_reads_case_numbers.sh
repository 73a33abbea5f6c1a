#!/usr/bin/env bash
# pandas 3.1.1 reads the case "001" of a table as the number 1, and a structure called "NA" or "None" as missing.
#
# Input: a CSV of three cases. Quotes around a cell change nothing.
#
# Seen:
#   case 1, 2, 3; structure nan, nan, liver
# What to use: read_csv(file, dtype={"case": str, "structure": str}, keep_default_na=False, na_values={"volume_ml": ""}), as below.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import io

import pandas

TABLE = 'case,structure,volume_ml\n"001","NA",1.5\n002,None,\n003,liver,2\n'
plain = pandas.read_csv(io.StringIO(TABLE))
print(plain)
assert plain.case.tolist() == [1, 2, 3], "the behaviour has changed"
assert plain.structure.isna().tolist() == [True, True, False], "the behaviour has changed"
texts = {"case": str, "structure": str}
right = pandas.read_csv(io.StringIO(TABLE), dtype=texts, keep_default_na=False, na_values={"volume_ml": ""})
assert right.case.tolist() == ["001", "002", "003"]
assert right.structure.tolist() == ["NA", "None", "liver"]
assert right.volume_ml.isna().tolist() == [False, True, False]
assert right.volume_ml.sum() == 3.5
PYTHON
