"""A study of 40 hippocampi, killed once by SIGKILL and continued, compared with an undisturbed one.

    PYTHONPATH=. python benchmarks/study_hippocampus.py DATA_SET --workspace DIR [--parts disturbed,undisturbed] [--out FILE]

Two networks, each in 3D and in 2D, are cross-validated on five folds; then come the decision, ensembles, post-processing,
temperature and the final model: one command, which takes about 25 minutes on two cores. The other part takes as long again.
Both continue when interrupted; minutes are summed over all calls. At the end the final models and all decisions must be the
same, otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from folds import first_cases
from machine import about

from autoseg.workspace import write_json

HERE = Path(__file__).resolve().parents[1]
PARTS = ("disturbed", "undisturbed")


def study(raw: Path, place: Path, options: argparse.Namespace, kill_after: float) -> dict[str, Any]:
    """Run the command to its end, and kill it once after ``kill_after`` seconds (0: never); minutes, kills, and results."""
    clock = place / "clock.json"
    known = json.loads(clock.read_text()) if clock.is_file() else {"seconds": 0.0, "killed": 0, "ended": False}
    words = ["study", str(raw), "--workspace", str(place), "--plans", "fullres_3d,slices_2d", "--networks", options.networks]
    words += ["--iterations", str(options.steps), "--device", "cpu", "--at-once", "2"]
    while not known["ended"]:
        begun = time.monotonic()
        log = (place / "log.txt").open("a")
        command = [sys.executable, "-m", "autoseg", *words]
        with (
            log,
            subprocess.Popen(command, cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE)}, stderr=log, stdout=log) as run,
        ):
            kill = kill_after > 0 and not known["killed"]
            try:
                status = run.wait(timeout=kill_after if kill else None)
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                status = run.wait()
                known["killed"] += 1
        known["seconds"] += time.monotonic() - begun
        known["ended"] = status in (0, 1)
        write_json(clock, known)
        if status not in (0, 1, -signal.SIGKILL):
            raise SystemExit(f"the study ended with status {status}: {place / 'log.txt'}")
    return {"minutes": round(known["seconds"] / 60, 1), "killed": known["killed"], **end_of(place)}


def end_of(place: Path) -> dict[str, Any]:
    """The results of a study: digests of the weights of its final model, decisions, and mean Dice."""
    (record,) = (json.loads(path.read_text()) for path in place.glob("studies/*/study/study.json"))
    (report,) = (json.loads(path.read_text()) for path in place.glob("studies/*/study/metrics.json"))
    model = json.loads((place / "models" / record["model"] / "model.json").read_text())
    return {
        "chosen": record["chosen"],
        "weights": {entry["fold"]: entry["digest"] for entry in model["weights"]},
        "rules": record["rules"],
        "temperatures": model["temperatures"],
        "decisions": record["decisions"],
        "dice": report["foreground_mean"]["dice"]["mean"],
        "calibration": record["calibration"],
        "failed": record["failed"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", type=Path)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--networks", default="unet,fcn")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--kill-after", type=float, default=400, help="seconds after which the disturbed one is killed")
    parser.add_argument("--out", type=Path, default=HERE / "benchmarks" / "results" / "study_hippocampus.json")
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out.is_file() else {}
    asked = {"cases": options.cases, "networks": options.networks, "steps": options.steps}
    parts = known["parts"] if known.get("asked") == asked else {}
    for part in options.parts.split(","):
        place = options.workspace.absolute() / part
        place.mkdir(parents=True, exist_ok=True)
        raw = first_cases(options.data_set.resolve(), options.cases, options.workspace.absolute() / "raw")
        parts[part] = study(raw, place, options, options.kill_after if part == PARTS[0] else 0.0)
        same = None
        if all(name in parts for name in PARTS):
            one, other = ({k: v for k, v in parts[name].items() if k not in ("minutes", "killed")} for name in PARTS)
            same = one == other
        write_json(options.out, {"machine": about(), "asked": asked, "same_end": same, "parts": parts})
        print(part, parts[part]["minutes"], "min, killed", parts[part]["killed"], "chosen", parts[part]["chosen"], flush=True)
    print("same end:", same)
    return 1 if same is False else 0


if __name__ == "__main__":
    raise SystemExit(main())
