"""Time whole commands of another checkout of the project and of this one, in turns, several times.

    python benchmarks/same_speed.py OLD_CHECKOUT DATASET [--times 3]

The commands are planning and preparing 40 cases of a data set, 60 training steps of the fold ``all``, and the prediction of
these cases with a model that both share. Nothing else should run on the machine. The script prints the seconds of both, and the
ratios new / old of their medians and of their minima.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parents[1]
CASES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path, help="another checkout")
    parser.add_argument("dataset", type=Path, help="a data-set folder in nnU-Net's layout")
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    sides = {"old": args.old.absolute(), "new": HERE}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        small = some_cases(args.dataset.absolute(), place / "Dataset999_Some")
        model = shared_model(sides["old"], small, place)
        plan = ["plan_and_preprocess", args.dataset.absolute(), "--fresh"]
        steps = ["train", small, "all", "--iterations", "60", "--device", "cpu", "--fresh"]
        predict = ["predict", "-i", small / "imagesTr", "-m", model, "--device", "cpu", "--fresh", "-o"]
        stages = {
            "plan and prepare": lambda workspace: plan,
            "60 steps": lambda workspace: steps,
            f"predict {CASES} cases": lambda workspace: [*predict, workspace / "out"],
        }
        for stage, words in stages.items():
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(args.times):
                for side, checkout in sides.items():
                    workspace = place / side
                    if stage != "plan and prepare":
                        run(checkout, ["plan_and_preprocess", small, "--workspace", workspace])
                    seconds[side].append(run(checkout, [*words(workspace), "--workspace", workspace]))
            told = ", ".join(f"{side} {' '.join(f'{s:.1f}' for s in found)} s" for side, found in seconds.items())
            medians, least = ([f(seconds[side]) for side in ("new", "old")] for f in (statistics.median, min))
            print(f"{stage}: {told}; ratio {medians[0] / medians[1]:.3f} (least {least[0] / least[1]:.3f})", flush=True)


def some_cases(source: Path, target: Path) -> Path:
    """Write a data set with links to the first cases of another one."""
    about = json.loads((source / "dataset.json").read_text())
    labels = sorted((source / "labelsTr").iterdir())[:CASES]
    for kind in ("imagesTr", "labelsTr"):
        (target / kind).mkdir(parents=True)
    for label in labels:
        name = label.name.removesuffix(about["file_ending"])
        os.symlink(label, target / "labelsTr" / label.name)
        for image in (source / "imagesTr").glob(f"{name}_*"):
            os.symlink(image, target / "imagesTr" / image.name)
    (target / "dataset.json").write_text(json.dumps({**about, "numTraining": len(labels)}))
    return target


def shared_model(checkout: Path, dataset: Path, place: Path) -> Path:
    """Train the model that both sides predict with."""
    run(checkout, ["train", dataset, "all", "--iterations", "5", "--device", "cpu", "--name", "m", "--workspace", place / "m"])
    shutil.copytree(next((place / "m" / "models").iterdir()), place / "model")
    return place / "model"


def run(checkout: Path, words: list[object]) -> float:
    """Run a command; returns the seconds."""
    begun = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "autoseg", *map(str, words), "--quiet"],
        env=environment,
        cwd=checkout,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
