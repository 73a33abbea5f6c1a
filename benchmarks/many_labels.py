"""Hundreds of labels, many holes, and label values of any size: time and memory, for this build and others.

    PYTHONPATH=. python benchmarks/many_labels.py [--others CHECKOUT] [--out benchmarks/results/many_labels.json]

- evaluate: EDGE cubed voxels in LABELS blocks, as in a brain atlas, against themselves shifted by a voxel, with HTML report.
- structure set: an RTSTRUCT of a slice of 512 x 512 pixels with HOLES holes, written to a file; seconds without imports.
- reconstruct: two blocks with the values 614454277 and 12. Older builds need 55 bytes for each value up to the largest, too
  much for most machines, so they get --others-largest. Memory is the peak above that of the same command with small values.

Each runs in a separate process. Results are stored after each part, and stored parts are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from contours import lung
from machine import about

from tests.helpers import dicom

ROOT = Path(__file__).parents[1]
LARGEST = 614454277  # a label value of the Allen mouse brain atlas


def blocks(edge: int, n_labels: int) -> np.ndarray:
    """(edge, edge, edge) int32 with the values 1 to n_labels in blocks of equal size, 0 elsewhere."""
    along = int(np.ceil(n_labels ** (1 / 3)))
    places = np.indices((edge,) * 3) * along // edge
    number = (places[0] * along + places[1]) * along + places[2] + 1
    return np.where(number <= n_labels, number, 0).astype(np.int32)


def two(largest: int) -> np.ndarray:
    data = np.zeros((24, 24, 24), np.int32)
    data[4:10, 4:10, 4:10], data[14:18, 14:18, 14:18] = largest, 12
    return data


def save(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4), dtype=np.int32), path)
    return path.parent


def run(checkout: Path, *arguments: Any) -> tuple[float, float]:
    """Run a command of a checkout; returns (seconds, peak memory in MiB)."""
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


WRITE_STRUCTURES = """
import sys, time
from pathlib import Path
import numpy as np
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.dicom_rtstruct import write_rtstruct
from autoseg.imaging.files import read_geometry
from autoseg.imaging.volume import LabelVolume

place = Path(sys.argv[1])
(series,) = find_series(place / "series").series
labels = LabelVolume(np.load(place / "mask.npy"), read_geometry(series))
begun = time.perf_counter()
write_rtstruct(place / "out.dcm", series, labels, {"lung": (1,)}, model="m", version="1")
print(time.perf_counter() - begun)
"""


def structure_set(checkout: Path, place: Path, holes: int) -> dict[str, Any]:
    mask = lung(holes)[None].astype(np.uint8)
    dicom.write_series(place / "series", mask.astype(np.int16))
    np.save(place / "mask.npy", mask)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    call = [sys.executable, "-W", "ignore", "-c", WRITE_STRUCTURES, str(place)]
    said = subprocess.run(call, cwd=checkout, env=environment, capture_output=True, text=True, check=True).stdout
    return {"holes": holes, "seconds": round(float(said), 2), "bytes": (place / "out.dcm").stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=Path, nargs="*", default=[], metavar="CHECKOUT")
    parser.add_argument("--others-largest", type=int, default=LARGEST // 16)
    parser.add_argument("--edge", type=int, default=64)
    parser.add_argument("--labels", type=int, default=628)
    parser.add_argument("--holes", type=int, default=1593)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "many_labels.json")
    options = parser.parse_args()
    builds = json.loads(options.out.read_text())["builds"] if options.out.is_file() else {}
    for checkout in [ROOT, *(other.absolute() for other in options.others)]:
        is_own = checkout == ROOT
        parts = {
            "structure set": partial(structure_set, holes=options.holes),
            "reconstruct": partial(reconstructed, largest=LARGEST if is_own else options.others_largest),
            "evaluate": partial(evaluated, edge=options.edge, n_labels=options.labels),
        }
        found = builds.setdefault("this build" if is_own else checkout.name, {})
        for name, part in parts.items():
            if name in found:
                continue
            with tempfile.TemporaryDirectory() as place:
                found[name] = part(checkout, Path(place))
            print(checkout.name, name, json.dumps(found[name]), flush=True)
            options.out.write_text(json.dumps({"machine": about(), "builds": builds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
