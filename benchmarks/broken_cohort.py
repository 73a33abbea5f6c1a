"""Verify, plan, predict and evaluate a cohort of small phantoms, one in twenty of which is broken, in ten ways.

    PYTHONPATH=. python benchmarks/broken_cohort.py [--cases 250,1000] [--folder DIR] [--out FILE]

Each verb must name exactly the broken cases that concern it, each with what was expected, what was found and a remedy, and
complete all other cases. Planning refuses a data set with errors, so it is repeated with a dataset.json that lists only the
valid cases. The peak resident memory of each verb's process is measured for each size of the cohort. It must not grow with the
number of cases, apart from lists of cases. The script ends with an error if any of this does not hold.

Results are stored after each size, and stored sizes are not run again. With --folder, what an interrupted run has drawn and
measured is kept and not repeated either.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import about

from autoseg.imaging.files import read_label_volume, read_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.phantoms import STRUCTURES, draw_phantom

ROOT = Path(__file__).parents[1]
SPACING_MM = (8.0, 8.0, 8.0)
TRAINING = ["--device", "cpu", "--iterations", "3", "--set", "cpu_width=0.1", "--set", "batch_size=1", "--set", "bf16=false"]
PIXDIM = 76  # its offset in a NIfTI header, in bytes
ALLOWED_GROWTH = 1.25  # of peak memory, from the smallest cohort to the largest


def patched(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(bytes(content), mtime=0))


def with_data(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    volume = read_volume(path)
    write_volume(replace(volume, data=change(volume.data.copy())), path)


def relabelled(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    labels = read_label_volume(path)
    data = change(labels.data.copy())
    write_label_volume(replace(labels, data=data, geometry=Geometry.from_spacing(data.shape, SPACING_MM)), path)


def a_nan(data: np.ndarray) -> np.ndarray:
    data[0, 3, 3, 3] = np.nan
    return data


def an_unknown_value(labels: np.ndarray) -> np.ndarray:
    labels[0, 0, 0] = 99
    return labels


def no_spacing(header: bytearray) -> None:
    """Set the voxel size to 0, and remove the directions that would give another one."""
    header[PIXDIM + 4 : PIXDIM + 16] = bytes(12)
    header[252:256] = struct.pack("<2h", 0, 0)


def elsewhere(header: bytearray) -> None:
    """Shift the voxels by 40 mm (offsets of qform and sform)."""
    for place in (268, 280 + 12):
        header[place : place + 4] = struct.pack("<f", struct.unpack("<f", header[place : place + 4])[0] + 40)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


# way to break a case -> (function of (first channel, second channel, label), whether the image is broken)
WAYS: dict[str, tuple[Callable[[Path, Path, Path], Any], bool]] = {
    "file cut short": (lambda first, second, label: shortened(first), True),
    "NaN in an image": (lambda first, second, label: with_data(second, a_nan), True),
    "label of another shape": (lambda first, second, label: relabelled(label, lambda data: data[:, 1:]), False),
    "a channel missing": (lambda first, second, label: second.unlink(), True),
    "unknown label value": (lambda first, second, label: patched_labels(label), False),
    "voxels of no size": (lambda first, second, label: [patched(path, no_spacing) for path in (first, second, label)], True),
    "label on another grid": (lambda first, second, label: patched(label, elsewhere), False),
    "empty file": (lambda first, second, label: first.write_bytes(b""), True),
    "no label": (lambda first, second, label: label.unlink(), False),
    "several volumes in a file": (
        lambda first, second, label: with_data(first, lambda data: np.concatenate([data, data])),
        True,
    ),
}


def patched_labels(path: Path) -> None:
    labels = read_label_volume(path)
    write_label_volume(replace(labels, data=an_unknown_value(labels.data.copy())), path)


def draw(folder: Path, n_cases: int) -> dict[str, str]:
    """Write the cohort; returns {broken case: way}."""
    broken = {}
    for number in range(n_cases):
        case, rng = f"case_{number:04d}", np.random.default_rng(number)
        volume, labels = draw_phantom(rng, SPACING_MM)
        first, second = (folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz" for channel in range(2))
        label = folder / "labelsTr" / f"{case}.nii.gz"
        write_volume(volume, first)
        write_volume(replace(volume, data=2 * volume.data + rng.normal(0, 9, volume.data.shape).astype(np.float32)), second)
        write_label_volume(labels, label)
        if number % 20 == 7:
            way = list(WAYS)[number // 20 % len(WAYS)]
            WAYS[way][0](first, second, label)
            broken[case] = way
    describe(folder)
    return broken


def describe(folder: Path, **more: Any) -> None:
    labels = {"background": 0} | {name: value for value, name in enumerate(STRUCTURES, 1)}
    channels = {"0": "MR", "1": "other MR"}
    text = {"name": "Cohort", "channel_names": channels, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(text | more))


def run(*arguments: Any, status: int) -> dict[str, Any]:
    """Run a command in a separate process; returns seconds, peak memory and output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "autoseg", *map(str, arguments), "--quiet"]
    with tempfile.TemporaryFile("w+") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(call, stdout=said, stderr=subprocess.STDOUT, env=environment)
        _, ended, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(ended)
        seconds = round(time.perf_counter() - begun, 1)
        said.seek(0)
        text = said.read()
    refuse(
        process.returncode != status, f"{arguments[0]}: expected status {status}, found {process.returncode}\n{text[-3000:]}"
    )
    return {"seconds": seconds, "peak_mib": round(usage.ru_maxrss / 1024), "said": text}


def refuse(is_wrong: bool, why: str) -> None:
    if is_wrong:
        raise SystemExit(why)


def check_named(verb: str, told: dict[str, str], right: Iterable[str]) -> None:
    """Exit with an error unless the right cases are named, each with what was expected, what was found, and a remedy."""
    right = set(right)
    missing, extra = sorted(right - set(told)), sorted(set(told) - right)
    refuse(
        bool(missing or extra),
        f"{verb}: not named {missing[:5]}, wrongly named {extra[:5]}: {[told[case] for case in extra[:5]]}",
    )
    for case, text in told.items():
        is_clear = re.search(
            r"expect.*(found|no prediction|there is no)|no prediction; expected|different grids", text, re.DOTALL
        ) and re.search(r"[.>] ?\w", text)
        refuse(not is_clear, f"{verb}: {case}: expected what was expected, found and to do, found {text!r}")


def failures_of(folder: Path) -> dict[str, str]:
    """{case: reason} of the failures in a run's record."""
    return json.loads((folder / "run.json").read_text())["failures"]


@dataclass(frozen=True)
class Verbs:
    """Commands on one cohort, each run once: results are kept in ``done.json``."""

    place: Path

    def run(self, name: str, *arguments: Any, status: int) -> dict[str, Any]:
        path = self.place / "done.json"
        done: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        if name not in done:
            done[name] = run(*arguments, status=status)
            path.write_text(json.dumps(done))
            print(f"  {name}: {done[name]['seconds']} s, {done[name]['peak_mib']} MiB", flush=True)
        found: dict[str, Any] = done[name]
        return found


def drawn(raw: Path, n_cases: int) -> dict[str, str]:
    """{broken case: way}; a cohort drawn by an earlier run is used as it is."""
    record = raw.with_name("broken.json")
    if not record.is_file():
        shutil.rmtree(raw, ignore_errors=True)
        record.write_text(json.dumps(draw(raw, n_cases)))
    found: dict[str, str] = json.loads(record.read_text())
    return found


def measure(place: Path, n_cases: int) -> dict[str, Any]:
    raw, workspace, measured = place / "Dataset001_Cohort", ["--workspace", place / "w"], Verbs(place)
    raw.parent.mkdir(parents=True, exist_ok=True)
    broken = drawn(raw, n_cases)
    whole = sorted({path.name[:9] for path in (raw / "imagesTr").iterdir()} - set(broken))
    verbs = {}

    describe(raw)
    verbs["verify"] = measured.run("verify", "verify", raw, "--json", place / "found.json", *workspace, status=1)
    errors: dict[str, str] = {}
    for finding in json.loads((place / "found.json").read_text()):
        if finding["severity"] == "error":
            errors[finding["case"]] = f"{errors.get(finding['case'], '')} {finding['message']}. {finding['remedy']}"
    check_named("verify", errors, broken)

    refused = measured.run("refused", "plan_and_preprocess", raw, *workspace, status=2)
    refuse(not refused["said"].strip(), "plan_and_preprocess: refused without a word")
    listing = {
        case: {"images": [f"imagesTr/{case}_{n:04d}.nii.gz" for n in range(2)], "label": f"labelsTr/{case}.nii.gz"}
        for case in whole
    }
    describe(raw, dataset=listing)
    verbs["plan_and_preprocess"] = measured.run("planned", "plan_and_preprocess", raw, *workspace, status=0)
    prepared = {path.parent.name for path in (place / "w" / "prepared").glob("*/*/*/case.json")}
    refuse(prepared != set(whole), f"plan_and_preprocess: expected {len(whole)} prepared cases, found {len(prepared)}")
    verbs["plan_and_preprocess"]["refused_s"] = refused["seconds"]

    describe(raw, dataset={case: listing[case] for case in whole[:10]})  # few cases, to train quickly
    measured.run("train", "train", raw, "0", *TRAINING, *workspace, status=0)
    unreadable = {case for case, way in broken.items() if WAYS[way][1]}
    asked = ["-i", raw / "imagesTr", "-o", place / "masks", "--device", "cpu", *workspace]
    verbs["predict"] = measured.run("predict", "predict", *asked, status=1)
    check_named("predict", failures_of(place / "masks"), unreadable)
    masks = {path.name[:9] for path in (place / "masks").glob("*.nii.gz")}
    refuse(masks != (set(whole) | set(broken)) - unreadable, f"predict: {len(masks)} masks")

    describe(raw)
    scored = [
        "--reference",
        raw / "labelsTr",
        "--predicted",
        place / "masks",
        "-o",
        place / "scores",
        "--labels",
        raw / "dataset.json",
    ]
    verbs["evaluate"] = measured.run("evaluate", "evaluate", *scored, *workspace, status=1)
    report = json.loads((place / "scores" / "metrics.json").read_text())
    concerned = {case for case, way in broken.items() if way not in ("no label", "unknown label value")}
    check_named("evaluate", {failure["case"]: failure["reason"] for failure in report["failures"]}, concerned)
    return {
        "broken": {way: sum(1 for each in broken.values() if each == way) for way in WAYS},
        "named": "exactly the broken ones, each with expected, found and remedy",
        "verbs": {verb: {key: value for key, value in one.items() if key != "said"} for verb, one in verbs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="250,1000")
    parser.add_argument("--folder", type=Path, help="for the cohort; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "broken_cohort.json")
    options = parser.parse_args()
    cohorts: dict[str, Any] = json.loads(options.out.read_text())["cohorts"] if options.out.is_file() else {}
    for size in options.cases.split(","):
        if size in cohorts:
            continue
        with tempfile.TemporaryDirectory() as other:
            cohorts[size] = measure((options.folder or Path(other)) / size, int(size))
        print(size, json.dumps(cohorts[size]), flush=True)
        result = {"machine": about(), "cohorts": cohorts, "growth_of_peak_memory": growth_of(cohorts)}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    growth = growth_of(cohorts)
    print(json.dumps(growth, indent=1))
    refuse(max(growth.values()) > ALLOWED_GROWTH, f"memory grows with the number of cases: {growth}")


def growth_of(cohorts: dict[str, Any]) -> dict[str, float]:
    """{verb: peak memory for the largest cohort / for the smallest}."""
    first, last = (cohorts[size]["verbs"] for size in (min(cohorts, key=int), max(cohorts, key=int)))
    return {verb: round(last[verb]["peak_mib"] / first[verb]["peak_mib"], 3) for verb in first}


if __name__ == "__main__":
    main()
