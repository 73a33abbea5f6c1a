"""Training on a CPU with another checkout of the project and with this one, in turns, with the same seeds, paired by case.

    PYTHONPATH=. python benchmarks/cpu_training.py OLD_CHECKOUT DATA_SET --workspace DIR [--old-steps 800] [--steps 500]

The old checkout trains fold 0 for ``--old-steps`` with its defaults, this one for ``--steps`` with its own. Both predict the
validation cases. Times are wall-clock seconds of the steps (from history.jsonl) and of the whole command. The order alternates
from seed to seed. Runs already in the result file are not repeated. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from machine import about

from autoseg.evaluation import paired_difference
from autoseg.records import read_validations
from autoseg.workspace import write_json
from planners.records import to_json

HERE = Path(__file__).resolve().parents[1]
SIDES = ("old", "new")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="another checkout")
    parser.add_argument("data_set", type=Path)
    parser.add_argument("--old-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cpu_training.json")
    args = parser.parse_args()
    checkouts = {"old": args.old.resolve(), "new": HERE}
    steps = {"old": args.old_steps, "new": args.steps}
    data_set = args.data_set.resolve()
    result = json.loads(args.out.read_text()) if args.out.is_file() else {"machine": about(), "runs": {}, "summaries": {}}
    for side, checkout in checkouts.items():
        command(checkout, "plan_and_preprocess", data_set, "--workspace", args.workspace.resolve() / side)
    for seed in range(args.seeds):
        for side in SIDES if seed % 2 == 0 else SIDES[::-1]:
            key = f"{side}, {steps[side]} steps, seed {seed}"
            if key in result["runs"]:
                continue
            row = trained(checkouts[side], data_set, args.workspace.resolve() / side, steps[side], seed)
            result["runs"][key] = {"side": side, "seed": seed, **row}
            of_this_length = [run for run in result["runs"].values() if run["steps"] == steps[run["side"]]]
            result["summaries"][str(args.steps)] = summary(of_this_length)
            write_json(args.out, result)
            print(key, {name: value for name, value in row.items() if name != "cases"}, flush=True)
    print(json.dumps(result["summaries"].get(str(args.steps)), indent=1))


def trained(checkout: Path, data_set: Path, workspace: Path, steps: int, seed: int) -> dict[str, Any]:
    """One training run with its validation: seconds, CPU seconds, steps, and Dice by case."""
    name, before = f"{steps}_{seed}", resource.getrusage(resource.RUSAGE_CHILDREN)
    length, other = ("--iterations", steps, "--seed", seed), ("--device", "cpu", "--name", name, "--fresh")
    seconds = command(checkout, "train", data_set, 0, *length, *other, "--workspace", workspace)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (folder,) = (workspace / "runs").glob(f"*/{name}/fold_0")
    last, by_case = read_validations(folder / "history.jsonl")[-1], defaultdict(list)
    for row in csv.DictReader((folder / "validation" / "metrics.csv").read_text().splitlines()):
        by_case[row["case"]].append(float(row["dice"]))
    cases = {case: statistics.mean(found) for case, found in sorted(by_case.items())}
    return {
        "steps": last.step,
        "training_seconds": last.seconds,
        "command_seconds": round(seconds, 1),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "dice": statistics.mean(cases.values()),
        "cases": cases,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Time ratios old / new for seeds that both sides have, and Dice new minus old by case, of means over these seeds."""
    by = {side: {run["seed"]: run for run in runs if run["side"] == side} for side in SIDES}
    seeds = sorted(by["old"].keys() & by["new"].keys())
    if not seeds:
        return {}
    found: dict[str, Any] = {}
    for name in ("training_seconds", "command_seconds", "processor_seconds"):
        ratios = [by["old"][seed][name] / by["new"][seed][name] for seed in seeds]
        found[name] = {"ratios": [round(ratio, 3) for ratio in ratios], "median": round(statistics.median(ratios), 3)}
    cases = sorted(by["old"][seeds[0]]["cases"])
    of = {side: [statistics.mean(by[side][seed]["cases"][case] for seed in seeds) for case in cases] for side in SIDES}
    found["dice"] = {side: round(statistics.mean(of[side]), 4) for side in SIDES}
    found["dice_new_minus_old"] = to_json(paired_difference(of["new"], of["old"]))
    return found


def command(checkout: Path, *words: object) -> float:
    """Seconds of a command of autoseg."""
    begun = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, "-m", "autoseg", *map(str, words)], env=environment, cwd=checkout, check=True)  # noqa: S603
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
