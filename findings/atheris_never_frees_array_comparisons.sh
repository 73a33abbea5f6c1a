#!/usr/bin/env bash
# atheris 3.0.0 never frees what a comparison of arrays gives.
#
# Input: a function that compares an array of 1 MiB with 0, run 200 times, as it is and instrumented for the fuzzer.
# Expected: memory stays as it is, since no result is kept.
# Found: instrumented, each result is referred to once more than it should be, and memory grows by 200 MiB. Comparisons of
# numbers and texts give True or False, which live for ever anyway, so only code with arrays (or others whose == is no bool) grows.
# A fuzzer with a limit of memory ends then, and blames the file that it read last.
# Use: put a function in place of atheris._trace_cmp that compares such objects itself.
# Fails as soon as results are freed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check atheris==3.0.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import atheris
import numpy as np


def is_zero(values):
    return values == 0


def resident_mib():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def looked_at(function):
    """References to a result, and MiB that memory grows by in 200 calls."""
    values, before = np.ones(1 << 20, np.uint8), resident_mib()
    references = sys.getrefcount(function(values))
    for _ in range(200):
        function(values)
    return references, round(resident_mib() - before)


plain = looked_at(is_zero)
followed = looked_at(atheris.instrument_func(is_zero))
for name, (references, grown) in {"as it is": plain, "instrumented": followed}.items():
    print(f"{name}: {references} references to a result, {grown} MiB more after 200 comparisons")
assert plain[0] == 1 and plain[1] < 20
assert followed[0] == 2 and followed[1] > 150, "the behaviour has changed"
PYTHON
