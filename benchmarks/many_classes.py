"""Many classes in a large scan: seconds and memory of the whole command `autoseg predict`.

    PYTHONPATH=. python benchmarks/many_classes.py [--classes 30 118] [--shape 600 512 512] [--features 16 32 64] --folder DIR

A scan of noise with voxels of 1.0 x 0.8 x 0.8 mm, and a U-Net at 1.5 mm with random weights: a network costs the same whatever
it has learned, and its masks are more ragged than organs. Each number of classes is a separate command. Its result is stored at
once in ``results/many_classes.json``, and stored results are not measured again. Memory is the peak PSS of the command, sampled
every tenth of a second. ``own`` is without the pages of files, which the system can reclaim: features above a GiB are in a
file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from cost_curves import write_model
from machine import about

from autoseg.imaging.files import write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import load_bundle, save_bundle
from autoseg.networks import build_network
from autoseg.workspace import read_json, write_json

HERE = Path(__file__).parent
RESULT = HERE / "results" / "many_classes.json"
SPACING, COARSE = (1.0, 0.8, 0.8), (1.5, 1.5, 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[30, 118])
    parser.add_argument("--shape", type=int, nargs=3, default=(600, 512, 512))
    parser.add_argument("--features", type=int, nargs="+", default=(16, 32, 64))
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    stored = read_json(args.out) if args.out.is_file() else {"points": {}}
    scan = scan_of(args.folder.absolute() / "x".join(map(str, args.shape)), args.shape)
    for classes in args.classes:
        name = f"{classes} classes, {'x'.join(map(str, args.shape))}, features {args.features[0]}"
        if name not in stored["points"]:
            model = model_of(args.folder.absolute() / f"model_{classes}_{args.features[0]}", classes, args.features, args.patch)
            out = args.folder.absolute() / "out"
            words = ["predict", "-i", scan, "-o", out, "-m", model, "--device", "cpu", "--fresh", "--quiet"]
            stored["points"][name] = watched([sys.executable, "-m", "autoseg", *map(str, words)])
            stored["points"][name]["steps"] = json.loads((out / "noise.json").read_text())["seconds"]
            write_json(args.out, {**stored, "machine": about()})
        print(name, stored["points"][name], flush=True)


def scan_of(folder: Path, shape: tuple[int, ...]) -> Path:
    """A folder with one scan of noise, written if it does not exist."""
    path = folder / "noise_0000.nii"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        data = rng.standard_normal(shape, dtype=np.float32)
        write_volume(Volume(data[None], Geometry.from_spacing(shape, SPACING)), path)
    return folder


def model_of(folder: Path, classes: int, features: tuple[int, ...], patch: int) -> Path:
    """A U-Net with these features at 1.5 mm and random weights, written if it does not exist."""
    if folder.is_dir():
        return folder
    small = load_bundle(write_model(folder.with_name(folder.name + "_small"), classes, 1, "small"))
    deeper = len(features) - 1
    network = replace(
        small.plan.network,
        features=tuple(features),
        strides=((1, 1, 1), *((2, 2, 2),) * deeper),
        kernels=((3, 3, 3),) * len(features),
        encoder_blocks=(2,) * len(features),
        decoder_blocks=(2,) * deeper,
    )
    plan = replace(small.plan, spacing_mm=COARSE, patch_size=(patch,) * 3, network=network)
    torch.manual_seed(0)
    weights = {"0": build_network(network).state_dict()}
    save_bundle(folder, plan=plan, labels=small.labels, channels=small.channels, weights=weights, info={})
    return folder


def watched(words: list[str]) -> dict[str, float]:
    """Seconds of a command, and its peak memory in MiB, with and without pages of files."""
    begun, peak, own = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(HERE.parent)}, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            held, anonymous = memory_mib(process.pid)
            peak, own = max(peak, held), max(own, anonymous)
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return {"seconds": round(time.perf_counter() - begun, 1), "peak_mib": math.ceil(peak), "own_mib": math.ceil(own)}


def memory_mib(pid: int) -> tuple[float, float]:
    """(memory of a process, the part of it that belongs to no file), as PSS in MiB."""
    try:
        lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    except OSError:
        return 0.0, 0.0
    found = {row[0]: int(row[1]) / 1024 for row in lines if row[0].startswith("Pss") and row[1].isdigit()}
    return found.get("Pss:", 0.0), found.get("Pss_Anon:", 0.0)


if __name__ == "__main__":
    main()
