"""Hundreds of labels, and label values of any size: time and memory of evaluate and reconstruct, for this build and others.

    PYTHONPATH=. python benchmarks/many_labels.py [--others CHECKOUT] [--out benchmarks/results/many_labels.json]

EDGE cubed voxels in LABELS blocks, as of a brain atlas, are evaluated against themselves moved by a voxel, with the page. Two
blocks with the values 614454277 and 12 are reconstructed; older builds take 55 bytes for each value up to the largest, which
few machines have, so theirs is --others-largest. Each command runs in a process of its own. Memory is its peak above that of
the same command on a map of small values.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from machine import about

ROOT = Path(__file__).parents[1]
LARGEST = 614454277  # of the Allen atlas of the mouse


def blocks(edge: int, n_labels: int) -> np.ndarray:
    """(edge, edge, edge) int32 with the values 1 to n_labels in blocks of equal size, 0 where none is."""
    along = int(np.ceil(n_labels ** (1 / 3)))
    places = np.indices((edge,) * 3) * along // edge
    number = (places[0] * along + places[1]) * along + places[2] + 1
    return np.where(number <= n_labels, number, 0).astype(np.int32)


def two(largest: int) -> np.ndarray:
    data = np.zeros((24, 24, 24), np.int32)
    data[4:10, 4:10, 4:10], data[14:18, 14:18, 14:18] = largest, 12
    return data


def save(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4), dtype=np.int32), path)
    return path.parent


def run(checkout: Path, *arguments: Any) -> tuple[float, float]:
    """(seconds, peak memory in MiB) of a command of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    call, begun = [sys.executable, "-m", "autoseg", *map(str, arguments), "--quiet"], time.perf_counter()
    process = subprocess.Popen(
        call, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    said = process.stderr.read() if process.stderr else ""
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode:
        raise SystemExit(f"{arguments[0]} of {checkout} ended with status {process.returncode}\n{said[-2000:]}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def evaluated(checkout: Path, place: Path, edge: int, n_labels: int) -> dict[str, Any]:
    data = blocks(edge, n_labels)
    reference, predicted = (
        save(place / "reference" / "P.nii.gz", data),
        save(place / "predicted" / "P.nii.gz", np.roll(data, 1, 0)),
    )
    seconds, _ = run(checkout, "evaluate", "--reference", reference, "--predicted", predicted, "-o", place / "scores")
    return {
        "labels": n_labels,
        "edge": edge,
        "seconds": round(seconds, 1),
        "page": (place / "scores" / "report.html").is_file(),
    }


def reconstructed(checkout: Path, place: Path, largest: int) -> dict[str, Any]:
    peaks = []
    for name, value in (("small", 1), ("large", largest)):
        maps = save(place / name / "P.nii.gz", two(value))
        peaks.append(run(checkout, "reconstruct", "-i", maps, "-o", place / f"{name}_out", "--surfaces", "stl")[1])
    above = peaks[1] - peaks[0]
    return {"largest_value": largest, "peak_mib": round(peaks[1]), "above_small_values_mib": round(above, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=Path, nargs="*", default=[], metavar="CHECKOUT")
    parser.add_argument("--others-largest", type=int, default=LARGEST // 16)
    parser.add_argument("--edge", type=int, default=64)
    parser.add_argument("--labels", type=int, default=628)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    builds = {}
    for checkout in [*options.others, ROOT]:
        is_own = checkout == ROOT
        with tempfile.TemporaryDirectory() as name:
            place, largest = Path(name), LARGEST if is_own else options.others_largest
            found = {"evaluate": evaluated(checkout.absolute(), place, options.edge, options.labels)}
            found["reconstruct"] = reconstructed(checkout.absolute(), place / "large_values", largest)
        builds["this build" if is_own else checkout.name] = found
        print(json.dumps({checkout.name: found}), flush=True)
    result = {"machine": about(), "builds": builds}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
