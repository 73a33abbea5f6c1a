"""Hundreds of labels, many holes, and label values of any size: time and memory, for this build and others.

    PYTHONPATH=. python benchmarks/many_labels.py [--others CHECKOUT] [--out benchmarks/results/many_labels.json]
    PYTHONPATH=. python benchmarks/many_labels.py --verbs [NAME ...] [--counts 100,1000]

- evaluate: EDGE cubed voxels in LABELS blocks, as in a brain atlas, against themselves shifted by a voxel, with HTML report.
- structure set: an RTSTRUCT of a slice of 512 x 512 pixels with HOLES holes, written to a file; seconds without imports.
- reconstruct: two blocks with the values 614454277 and 12. Older builds need 55 bytes for each value up to the largest, too
  much for most machines, so they get --others-largest. Memory is the peak above that of the same command with small values.
- --verbs: every verb on a volume of VERB_EDGE cubed voxels in irregular cells, for each number of them in --counts: seconds of
  the processor, in all threads and with the start of the program, and peak memory. Names choose some rows and measure them
  again. `predict` has a network that finds the cells, so that its seconds are those of sums, labels and outputs.

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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from contours import lung
from machine import about
from scipy.spatial import cKDTree

from tests.helpers import dicom

ROOT = Path(__file__).parents[1]
LARGEST = 614454277  # a label value of the Allen mouse brain atlas
VERB_EDGE = 96
CASES = 2  # of the data set and of the folders of label maps


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
    begun = time.perf_counter()
    _, mib = used(checkout, "-m", "autoseg", *arguments, "--quiet")
    return time.perf_counter() - begun, mib


WATCH = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, done.stderr[-2000:], usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def used(checkout: Path, *arguments: Any) -> tuple[float, float]:
    """Run Python in a checkout; returns (seconds of the processor, peak memory in MiB).

    A small process starts it: a peak includes the memory of the process that starts the command.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    call = [sys.executable, "-c", WATCH, sys.executable, *map(str, arguments)]
    found = subprocess.run(call, cwd=checkout, env=environment, capture_output=True, text=True, check=True).stdout
    status, said, seconds, mib = json.loads(found)
    if status:
        raise SystemExit(f"{arguments[:3]} of {checkout} ended with status {status}\n{said}")
    return seconds, mib


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


EXPORT = """
import sys
from pathlib import Path
import numpy as np
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.dicom_results import DICOM_RESULTS
from autoseg.imaging.files import read_geometry
from autoseg.imaging.mesh import file_names
from autoseg.imaging.seg_nrrd import write_seg_nrrd
from autoseg.imaging.volume import LabelVolume

place, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
(series,) = find_series(place / "series").series
labels = LabelVolume(np.load(place / "cells.npy"), read_geometry(series))
groups = {f"part {value}": (value,) for value in range(1, count + 1)}
folder = place / kind
folder.mkdir()
if kind == "seg_nrrd":
    write_seg_nrrd(folder / "out.seg.nrrd", labels, groups)
each = [{name: values} for name, values in groups.items()] if kind == "seg_each" else [groups]
for number, some in enumerate(each if kind != "seg_nrrd" else ()):
    DICOM_RESULTS[kind.removesuffix("_each")](folder / f"{number}.dcm", series, labels, structures=some, model="m", version="1")
"""

PREDICT = """
import sys
from pathlib import Path
import torch
from autoseg.cli import main
from autoseg.data.labels import LabelSchema
from autoseg.networks import NETWORKS
from dataclasses import replace
from tests.helpers.models import make_plan, write_model

class Nearest(torch.nn.Module):
    def __init__(self, spec, ends=None):
        super().__init__()
        self.values = torch.nn.Parameter(torch.arange(spec.out_channels, dtype=torch.float32))

    def forward(self, x):
        values = self.values[:, None, None, None]
        return 8 * (2 * x - values) * values  # largest where the value is nearest to x

place, count = Path(sys.argv[1]), int(sys.argv[2])
NETWORKS.add("nearest", Nearest)
values = tuple(range(1, count + 1))
labels = LabelSchema(tuple(f"part {value}" for value in values), tuple((value,) for value in values), False, values)
plan = make_plan(patch_size=(48, 48, 48))
plan = replace(plan, network=replace(plan.network, name="nearest", out_channels=count + 1))
write_model(place / "model", plan, labels=labels, channels=("MRI",))
more = ["--reference", place / "data" / "labelsTr"] if "reference" in sys.argv else []
more += ["--surfaces", "stl,glb"] if "surfaces" in sys.argv else []
call = ["predict", "-i", place / "data" / "imagesTr" / "P0_0000.nii.gz", "-m", place / "model", "-o", place / "predicted_now"]
sys.exit(main([str(word) for word in [*call, *more, "--no-mirror", "--device", "cpu", "--quiet"]]))
"""


def cells(edge: int, n_labels: int, seed: int = 0) -> np.ndarray:
    """(edge, edge, edge) int32: a ball of irregular cells with the values 1 to n_labels, 0 around it."""
    rng = np.random.default_rng(seed)
    places = np.indices((edge,) * 3).reshape(3, -1).T - (edge - 1) / 2
    inside = np.linalg.norm(places, axis=1) < 0.47 * edge
    middles = places[inside][rng.permutation(int(inside.sum()))[:n_labels]]
    data = np.zeros(len(places), np.int32)
    data[inside] = cKDTree(middles).query(places[inside])[1] + 1
    return data.reshape((edge,) * 3)


def prepare(place: Path, n_labels: int) -> None:
    """What the verbs get: a data set, label maps moved by a voxel, a DICOM series."""
    names = {"background": 0} | {f"part {value}": value for value in range(1, n_labels + 1)}
    for number in range(CASES):
        data = cells(VERB_EDGE, n_labels, number)
        save(place / "data" / "labelsTr" / f"P{number}.nii.gz", data)
        save(place / "moved" / f"P{number}.nii.gz", np.roll(data, 1, 0))
        save(place / "data" / "imagesTr" / f"P{number}_0000.nii.gz", data)
    np.save(place / "cells.npy", data)
    dicom.write_series(place / "series", data.astype(np.int16))
    about_it = {"channel_names": {"0": "MRI"}, "labels": names, "numTraining": CASES, "file_ending": ".nii.gz"}
    (place / "data" / "dataset.json").write_text(json.dumps(about_it))


def verbs_of(place: Path, n_labels: int) -> dict[str, list[Any]]:
    """{row: arguments of Python}, in the order in which they need each other's results."""
    autoseg, data, names = ["-m", "autoseg"], place / "data", ["--labels", place / "data" / "dataset.json"]
    space = ["--workspace", place / "workspace", "--quiet"]
    maps = ["-i", data / "labelsTr", *names]
    return {
        "convert": [*autoseg, "convert", "folders", data / "imagesTr", place / "made", "--labels", data / "labelsTr", *space],
        "verify": [*autoseg, "verify", data, *space],
        "plan_and_preprocess": [*autoseg, "plan_and_preprocess", data, "--planner", "fullres_3d", *space],
        "evaluate": [
            *[*autoseg, "evaluate", "--reference", data / "labelsTr", "--predicted", place / "moved"],
            *["-o", place / "scores", *names, *space],
        ],
        "report": [
            *[*autoseg, "report", place / "scores", "--reference", data / "labelsTr", "--predicted", place / "moved"],
            *["--images", data / "imagesTr", *space],
        ],
        "reconstruct": [*autoseg, "reconstruct", *maps, "-o", place / "surfaces", *space],
        "reconstruct --surfaces-shared": [
            *[*autoseg, "reconstruct", *maps, "-o", place / "shared", "--surfaces-shared", *space],
        ],
        "reconstruct --isotropic": [
            *[*autoseg, "reconstruct", *maps, "-o", place / "cubic", "--surfaces", "none", "--isotropic", "0.8", *space],
        ],
        **{f"write {kind}": ["-c", EXPORT, place, kind, n_labels] for kind in ("rtstruct", "seg", "seg_each", "seg_nrrd")},
        "predict": ["-c", PREDICT, place, n_labels],
        "predict --reference": ["-c", PREDICT, place, n_labels, "reference", "surfaces"],
    }


def measure_verbs(names: list[str], counts: list[int], stored: dict[str, Any], store: Callable[[], None]) -> None:
    """Add {row: {number of labels: seconds and memory}} to what is stored; rows that are named are measured again."""
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            prepare(place, count)
            for name, call in verbs_of(place, count).items():
                row = stored.setdefault(name, {})
                if name in names or (not names and str(count) not in row):
                    seconds, mib = used(ROOT, *call)
                    row[str(count)] = {"processor_seconds": round(seconds, 1), "peak_mib": round(mib)}
                    print(count, name, json.dumps(row[str(count)]), flush=True)
                    store()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=Path, nargs="*", default=[], metavar="CHECKOUT")
    parser.add_argument("--others-largest", type=int, default=LARGEST // 16)
    parser.add_argument("--edge", type=int, default=64)
    parser.add_argument("--labels", type=int, default=628)
    parser.add_argument("--holes", type=int, default=1593)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "many_labels.json")
    parser.add_argument("--verbs", nargs="*", metavar="NAME")
    parser.add_argument("--counts", default="100,1000")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.is_file() else {}
    builds = result.setdefault("builds", {})

    def store(part: dict[str, Any] = result) -> None:
        part["machine"] = about()
        options.out.write_text(json.dumps(result, indent=1) + "\n")

    if options.verbs is not None:
        measured = result.setdefault("verbs", {"edge": VERB_EDGE, "cases": CASES, "rows": {}})
        measure_verbs(
            options.verbs, [int(count) for count in options.counts.split(",")], measured["rows"], partial(store, measured)
        )
        return
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
            store()


if __name__ == "__main__":
    main()
