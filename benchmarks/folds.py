"""Five folds in one command, at once and one after the other, against five commands of an earlier checkout.

    PYTHONPATH=. python benchmarks/folds.py BASE [--data-set DIR] [--cases 10] [--steps 25] [--repeats 2] [--out FILE]

BASE is the root of the earlier checkout. Each arm begins with raw data and an empty workspace, and ends with every fold
trained, validated and reported; arms take turns. The same call continues with what FILE lacks. Without DIR the cases are
phantoms. It takes less than eight minutes on two cores, and starts no arm after seven.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import about

from autoseg.data.dataset import read_dataset
from autoseg.phantoms import write_phantoms
from autoseg.workspace import write_json

HERE = Path(__file__).resolve().parents[1]
FOLDS = 5
LATEST = 7 * 60  # seconds after which no further arm starts


def first_cases(raw: Path, count: int, folder: Path) -> Path:
    """Write a data-set folder that lists the first cases of ``raw``, whose files stay in place."""
    spec = read_dataset(raw)
    description = json.loads((spec.folder / "dataset.json").read_text())
    files = {
        case.id: {"images": [str(path) for path in case.images], "label": str(case.label)} for case in spec.training[:count]
    }
    write_json(folder / spec.folder.name / "dataset.json", {**description, "numTraining": len(files), "dataset": files})
    return folder / spec.folder.name


def commands(arm: str, raw: Path, workspace: Path, steps: int) -> list[list[str]]:
    """The command lines of an arm."""
    more = ["--workspace", str(workspace), "--iterations", str(steps), "--device", "cpu", "--name", "folds"]
    if arm == "five commands before":
        return [["train", str(raw), str(fold), *more] for fold in range(FOLDS)]
    side = ["--at-once", "auto"] if arm == "side by side" else []
    return [["train", str(raw), f"0-{FOLDS - 1}", *more, *side]]


def measure(arm: str, root: Path, raw: Path, steps: int) -> dict[str, Any]:
    """Seconds of an arm, and the mean Dice of its folds' cases."""
    with tempfile.TemporaryDirectory() as place:
        workspace = Path(place) / "workspace"
        begun = time.perf_counter()
        for words in commands(arm, raw, workspace, steps):
            done = subprocess.run(
                [sys.executable, "-m", "autoseg", *words],
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(root)},
                capture_output=True,
                text=True,
            )
            if done.returncode not in (0, 1):
                raise SystemExit(f"{arm}: {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        seconds = time.perf_counter() - begun
        reports = sorted(workspace.glob("runs/*/folds/fold_*/validation/metrics.json"))
        rows = [row["values"]["dice"] for path in reports for row in json.loads(path.read_text())["cases"]]
        dice = statistics.fmean(value for value in rows if value is not None)
        return {"seconds": round(seconds, 1), "folds": len(reports), "dice": dice}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--data-set", type=Path)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "benchmarks" / "results" / "folds.json")
    options = parser.parse_args()
    asked = {"cases": options.cases, "steps": options.steps, "data": options.data_set.name if options.data_set else "phantoms"}
    known = json.loads(options.out.read_text()) if options.out.is_file() else {}
    arms: dict[str, list[dict[str, Any]]] = known["arms"] if known.get("asked") == asked else {}
    roots = {"five commands before": options.base.resolve(), "in a row": HERE, "side by side": HERE}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        if options.data_set:
            raw = first_cases(options.data_set.resolve(), options.cases, Path(place))
        else:
            raw = write_phantoms(Path(place) / "Dataset007_Abdomen", training=options.cases, test=0, in_plane_mm=10)
        for repeat in range(options.repeats):
            for arm, root in roots.items():
                if len(arms.setdefault(arm, [])) > repeat or time.monotonic() - begun > LATEST:
                    continue
                arms[arm].append(measure(arm, root, raw, options.steps))
                print(arm, json.dumps(arms[arm][-1]), flush=True)
                write_json(options.out, {"machine": about(), "asked": asked, "arms": arms, **summary(arms)})
    print(json.dumps(summary(arms), indent=1))


def summary(arms: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Median seconds, and those of each arm divided by those of five folds at once."""
    medians = {arm: statistics.median(one["seconds"] for one in found) for arm, found in arms.items() if found}
    side = medians.get("side by side")
    return {"median_seconds": medians, "times_as_long": {arm: round(s / side, 2) for arm, s in medians.items()} if side else {}}


if __name__ == "__main__":
    main()
