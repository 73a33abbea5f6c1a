"""Twelve minutes on one GPU, the most valuable measurements first; each part is stored when it ends.

    python benchmarks/gpu_evening.py --data FOLDER --workspace DIR [--minutes 12] [--nnunet BIN --model RESULTS] [--device cuda]

FOLDER holds the data sets Dataset004_Hippocampus and Dataset027_ACDC. The parts, in order:

``acdc``         five folds of ACDC, two minutes each, three at once, without mirroring: mean Dice beside the published one
``step``         seconds of a training step, how much of them the device is busy, and batches per second
``nnunet step``  the same network and batch in nnU-Net on this GPU, with ``--nnunet``, in turns with ours
``large``        a phantom of 600×512×512 voxels with 118 classes, the whole command: seconds
``hippocampus``  five folds of Hippocampus with 1.5 times the steps, against published scores of the same cases

A part that does not end in time is stopped by SIGTERM; most of them continue at the next call, which repeats no finished part.
``--quick`` takes seconds and a CPU: it checks that every part runs, and stores nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from machine import about

from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.workspace import read_json, write_json

HERE = Path(__file__).parent
RESULT = HERE / "results" / "gpu_evening.json"
CLASSES, LARGE, SPACING = 118, (600, 512, 512), (1.0, 0.8, 0.8)
Words = list[object]


@dataclass(frozen=True)
class Evening:
    """The options; everything stops when the monotonic clock reaches ``end``, in seconds."""

    data: Path
    workspace: Path
    device: str
    end: float
    nnunet: Path | None
    model: Path | None
    quick: bool
    stored: dict[str, object] = field(default_factory=dict)

    def run(self, *words: object) -> str:
        """Run a Python script and return what it prints; OutOfTime: it was stopped by SIGTERM at the end of the time."""
        command = [sys.executable, *map(str, words)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as process:
            try:
                told, _ = process.communicate(timeout=max(1.0, self.end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                process.communicate()
                raise OutOfTime from None
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        return told


class OutOfTime(Exception):
    """The time is over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--workspace", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--nnunet", type=Path, metavar="BIN", help="the bin folder of an environment with nnunetv2")
    parser.add_argument("--model", type=Path, metavar="RESULTS", help="a results folder of nnU-Net for Hippocampus")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    stored = read_json(RESULT) if RESULT.is_file() and not args.quick else {}
    evening = Evening(args.data, args.workspace.absolute(), args.device, end, args.nnunet, args.model, args.quick, stored)
    for name in args.parts:
        if name in stored:
            print(f"{name}: stored already", flush=True)
            continue
        begun = time.monotonic()
        try:
            found = PARTS[name](evening)
        except OutOfTime:
            print(f"{name}: the time is over", flush=True)
            return
        except RuntimeError as error:  # the other parts continue
            print(f"{name}: {error}", flush=True)
            continue
        stored[name] = {"machine": about(), "seconds": round(time.monotonic() - begun, 1), "found": found}
        print(name, json.dumps(stored[name]), flush=True)
        if not args.quick:
            write_json(RESULT, stored)


def acdc(evening: Evening) -> object:
    length = ["--iterations", 2] if evening.quick else ["--time", "2m"]
    return crossval(evening, "Dataset027_ACDC", *length, "--at-once", 3, "--set", "mirror=false", "--name", "short")


def hippocampus(evening: Evening) -> object:
    steps = 2 if evening.quick else 2250
    return crossval(evening, "Dataset004_Hippocampus", "--iterations", steps, "--at-once", 5, "--name", "longer")


def crossval(evening: Evening, dataset: str, *words: object) -> object:
    out = evening.workspace / f"{dataset}.json"
    command = [HERE / "hippocampus_crossval.py", evening.data / dataset, "--workspace", evening.workspace, *words]
    evening.run(*command, "--device", evening.device, "--out", out)
    found = read_json(out)
    return {key: value for key, value in found.items() if key not in ("machine", "per_case")}


def step(evening: Evening) -> object:
    out = evening.workspace / "gpu_step.json"
    words = [
        evening.data / "Dataset004_Hippocampus",
        "--workspace",
        evening.workspace,
        "--device",
        evening.device,
        "--out",
        out,
    ]
    evening.run(HERE / "gpu_step.py", *words, *(["--seconds", 2, "--threads", 1] if evening.quick else []))
    return read_json(out)


def nnunet_step(evening: Evening) -> object:
    """Seconds of five steps in both programs, in turns."""
    if evening.nnunet is None or evening.model is None:
        raise RuntimeError("needs --nnunet and --model")
    imported = evening.workspace / "models" / "imported"
    if not imported.exists():
        words = ["model", "import", evening.model, "--name", "imported", "--workspace", evening.workspace]
        evening.run("-m", "autoseg", *words)
    sides: dict[str, Words] = {
        "autoseg": [sys.executable, HERE / "side_autoseg.py", imported, "step", evening.device],
        "nnunet": [evening.nnunet / "python", HERE / "side_nnunet.py", evening.model, "step", evening.device],
    }
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(1 if evening.quick else 5):
        for side, words in sides.items():
            done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-500:])
            found[side].append(json.loads(done.stdout.splitlines()[-1])["seconds"])
    return found


def large(evening: Evening) -> object:
    """Train a few steps on small phantoms, then predict the large one: only the cost matters, not the masks."""
    raw, shape = evening.workspace / "raw" / "Dataset902_Many", (64, 96, 96) if evening.quick else LARGE
    if not (raw / "dataset.json").is_file():
        for number in range(4):
            phantom((64, 96, 96), number, raw / "imagesTr" / f"many_{number}_0000.nii.gz", raw / "labelsTr")
        labels = {"background": 0, **{f"s{value}": value for value in range(1, CLASSES)}}
        text = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz"}
        write_json(raw / "dataset.json", text)
    scan = evening.workspace / "large" / f"large_{shape[0]}_0000.nii.gz"
    if not scan.is_file():
        phantom(shape, 9, scan, None)
    place = ("--workspace", evening.workspace)
    steps = 2 if evening.quick else 50
    how = ("--iterations", steps, "--device", evening.device, "--name", "many", *place)
    evening.run("-m", "autoseg", "train", raw, "all", *how)
    begun, out = time.monotonic(), evening.workspace / "large_out"
    words = ["predict", "-i", scan.parent, "-m", "Many_many", "-o", out, "--device", evening.device, "--fresh", *place]
    evening.run("-m", "autoseg", *words)
    record = read_json(out / "run.json")
    return {
        "shape": shape,
        "classes": CLASSES,
        "seconds": round(time.monotonic() - begun, 1),
        "of_the_case": record["cases"][0]["seconds"],
        "windows": record.get("windows"),
        "precision": record["precision"],
    }


def phantom(shape: tuple[int, ...], seed: int, image_to: Path, labels_to: Path | None) -> None:
    """Write balls of all classes in noise."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    radius = max(2, min(shape) // 16)
    offsets = np.indices((2 * radius + 1,) * 3).reshape(3, -1) - radius
    ball = offsets[:, (offsets**2).sum(0) <= radius**2]
    for value in range(1, CLASSES):
        centre = [int(rng.integers(radius, n - radius)) for n in shape]
        labels[tuple(ball + np.array(centre)[:, None])] = value
    image = (labels * 5 + rng.normal(0, 20, shape)).astype(np.int16)
    geometry = Geometry.from_spacing(shape, SPACING)
    image_to.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(image[None], geometry), image_to)
    if labels_to is not None:
        labels_to.mkdir(parents=True, exist_ok=True)
        write_label_volume(LabelVolume(labels, geometry), labels_to / image_to.name.replace("_0000", ""))


PARTS = {"acdc": acdc, "step": step, "nnunet step": nnunet_step, "large": large, "hippocampus": hippocampus}


if __name__ == "__main__":
    main()
