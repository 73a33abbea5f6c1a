#!/usr/bin/env bash
# torch 2.13.0 imports its compiler when a layer is filled with random numbers on the meta device, where there are no numbers.
#
# Input: an empty tensor on the meta device, which has a shape and no memory; normal_ of it, as layers call when they are made.
#
# Seen: before, torch._dynamo is not among the loaded modules; afterwards it is, with some hundreds of other modules.
# What to do: build networks of shapes alone without drawing (autoseg.networks.shapes), or accept a slower start.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch

before = set(sys.modules)
assert "torch._dynamo" not in before, "the behaviour has changed"
torch.empty(3, device="meta").normal_()
new = set(sys.modules) - before
print(f"normal_ on the meta device: {len(new)} modules more, the compiler among them: {'torch._dynamo' in new}")
assert "torch._dynamo" in new, "the behaviour has changed"
PYTHON
