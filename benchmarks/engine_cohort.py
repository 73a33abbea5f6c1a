"""Predict a cohort of small phantoms with threads and with two workers of the engine, one of which is killed every ten seconds.

    PYTHONPATH=. python benchmarks/engine_cohort.py [--cases 500] [--folder DIR] [-o benchmarks/results/engine_cohort.json]

Each run is `autoseg predict` in a separate process, with one thread per matrix product. It must complete every case, and its
files must equal those of threads byte for byte, apart from times; ``run.json`` may list a case as skipped if a worker had
finished it before it was killed. Memory is that of the main process, for all cases and for a fifth of them. What is in the
JSON, or in the folder, is not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import about

from autoseg.imaging.files import write_volume
from autoseg.phantoms import draw_phantom
from tests.helpers.models import make_plan, write_model

ROOT = Path(__file__).parents[1]
SPACING_MM = (6.0, 5.0, 5.0)
WORKERS, KILL_SECONDS = 2, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "engine_cohort")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "engine_cohort.json")
    args = parser.parse_args()
    draw(args.folder, args.cases)
    parts = {
        "threads": (args.cases, "local", 0.0),
        "workers": (args.cases, "dask", 0.0),
        "workers, fewer cases": (max(1, args.cases // 5), "dask", 0.0),
        "workers, killed": (args.cases, "dask", KILL_SECONDS),
    }
    found: dict[str, Any] = json.loads(args.output.read_text()) if args.output.is_file() else {"cases": args.cases, "parts": {}}
    if found["cases"] != args.cases:
        raise SystemExit(f"{args.output}: is of {found['cases']} cases. Move it away, or give another --output")
    found["machine"] = about()
    for name, part in parts.items():
        if name not in found["parts"]:
            found["parts"][name] = run(args.folder, name, *part)
            args.output.write_text(json.dumps(found, indent=1) + "\n")
        print(name, json.dumps(found["parts"][name]), flush=True)
    found["findings"] = findings(args.folder, found["parts"])
    args.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["findings"], indent=1))


def draw(folder: Path, cases: int) -> None:
    """Write the scans to ``all``, the first fifth also to ``fewer``, and a model with random weights."""
    if not (folder / "model").is_dir():
        write_model(folder / "model", make_plan(spacing_mm=SPACING_MM, patch_size=(32, 32, 32)))
    for number in range(cases):
        path = folder / "all" / f"case_{number:04d}_0000.nii.gz"
        if not path.is_file():
            write_volume(draw_phantom(np.random.default_rng(number), SPACING_MM)[0], path)
        if number < max(1, cases // 5) and not (folder / "fewer" / path.name).is_file():
            (folder / "fewer").mkdir(exist_ok=True)
            shutil.copy(path, folder / "fewer" / path.name)


def run(folder: Path, name: str, cases: int, engine: str, kill_seconds: float) -> dict[str, Any]:
    """Run `autoseg predict`: seconds, peak memory of the main process, number of kills, and exit status."""
    out = folder / name.replace(", ", "_").replace(" ", "_")
    shutil.rmtree(out, ignore_errors=True)
    source = folder / ("fewer" if "fewer" in name else "all")
    call = [sys.executable, "-m", "autoseg", "predict", "-i", source, "-o", out, "-m", folder / "model", "--device", "cpu"]
    call += ["--engine", engine, "--workers", WORKERS, "--quiet"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    begun = time.perf_counter()
    process = subprocess.Popen([str(word) for word in call], env=env)
    killed: list[int] = []
    peak_mib = 0
    while process.poll() is None:
        time.sleep(0.1)
        peak_mib = max(peak_mib, peak_of(process.pid))
        if kill_seconds and time.perf_counter() - begun > kill_seconds * (len(killed) + 1):
            killed.append(kill_one(process.pid, len(killed)))
    return {
        "cases": cases,
        "seconds": round(time.perf_counter() - begun, 1),
        "peak MiB": peak_mib,
        "kills": sum(pid > 0 for pid in killed),
        "status": process.returncode,
        "folder": out.name,
    }


def peak_of(pid: int) -> int:
    """Peak resident memory of a process in MiB, without its children; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return max((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), default=0)


def kill_one(pid: int, turn: int) -> int:
    """Kill one of the workers of a process, each in turn; returns its id, 0 if there is none."""
    workers = [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]
    if not workers:
        return 0
    worker = workers[turn % len(workers)]
    worker.kill()
    return worker.pid


def findings(folder: Path, parts: dict[str, Any]) -> dict[str, Any]:
    """{claim: what was found}."""
    threads, workers, killed = (parts[name] for name in ("threads", "workers", "workers, killed"))
    fewer = parts["workers, fewer cases"]
    expected = contents(folder / threads["folder"])
    return {
        "all done, though workers were killed": all(part["status"] == 0 for part in parts.values()),
        "files that differ from those of threads": {
            part["folder"]: differing(expected, contents(folder / part["folder"])) for part in (workers, killed)
        },
        "seconds of workers over those of threads": round(workers["seconds"] / threads["seconds"], 3),
        "peak memory, all cases over a fifth of them": round(workers["peak MiB"] / fewer["peak MiB"], 3),
        "kills": killed["kills"],
    }


def differing(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    return sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))


def contents(folder: Path) -> dict[str, str]:
    """{path: digest} of the results; in records without times, and with skipped cases as done."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".json":
            data = json.dumps(settled(json.loads(data)), sort_keys=True).encode()
        found[path.relative_to(folder).as_posix()] = hashlib.blake2b(data, digest_size=8).hexdigest()
    return found


def settled(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: settled(one) for key, one in value.items() if key not in ("seconds", "message")}
        return kept | ({"status": "done"} if kept.get("status") == "skipped" else {})
    return [settled(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
