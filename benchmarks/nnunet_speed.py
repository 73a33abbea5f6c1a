"""Time and memory of ``autoseg predict`` against nnU-Net's whole command: one network, the same windows, the same scans.

    python benchmarks/nnunet_speed.py --nnunet BIN RESULTS IMAGES
    python benchmarks/nnunet_speed.py --nnunet BIN RESULTS 160x160x110

BIN is the ``bin`` folder of an environment with nnunetv2, RESULTS a results folder ``DATASET/TRAINER__PLANS__CONFIGURATION``,
which is imported first, IMAGES a folder of scans; sizes make one volume of smooth noise with as many voxels of 1 mm. Both
commands start as a user starts them, read, predict and write, without mirroring, on the CPU with all cores; nnU-Net in one
process (``-npp 0 -nps 0``). They take turns, A B A B, after a small scan each that does not count.

Written are the seconds and the peak memory of each turn, the ratio of the medians, and the share of voxels with the same
label. With ``--workers`` nnU-Net also runs once with a process each to read and to write; told is the peak of its main process
alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import about
from scipy import ndimage

from autoseg.imaging.files import read_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import load_bundle
from autoseg.pipeline import import_model
from autoseg.workspace import Workspace, read_json, write_json

ROOT = Path(__file__).parents[1]
MB = 1024.0  # kilobytes


def our_command(model, fold, images, out):
    words = ["predict", "-i", images, "-o", out, "-m", model, "--folds", fold, "--no-mirror", "--device", "cpu", "--quiet"]
    return [sys.executable, "-m", "autoseg", *words], {**os.environ, "PYTHONPATH": str(ROOT)}


def their_command(nnunet, results, fold, images, out, workers=0):
    trainer, plans, configuration = results.name.split("__")
    words = ["-i", images, "-o", out, "-d", results.parent.name, "-tr", trainer, "-p", plans, "-c", configuration, "-f", fold]
    words += ["--disable_tta", "-npp", workers, "-nps", workers, "-device", "cpu", "--disable_progress_bar"]
    roots = {"nnUNet_raw": str(out), "nnUNet_preprocessed": str(out), "nnUNet_results": str(results.parent.parent)}
    environment = {**os.environ, **roots, "nnUNet_def_n_proc": str(os.cpu_count())}
    environment.pop("PYTHONPATH", None)
    return [nnunet / "nnUNetv2_predict", *words], environment


def timed(command, environment):
    """(seconds, peak megabytes) of a command, from its start to its end; of its main process where it has several."""
    begun, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as told:
        words = [str(word) for word in command]
        process = subprocess.Popen(words, env=environment, stdout=told, stderr=subprocess.STDOUT)
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            lines = status.read_text().splitlines() if status.exists() else []
            peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
            time.sleep(0.02)
        seconds = time.perf_counter() - begun
        if process.returncode:
            told.seek(0)
            raise SystemExit(told.read().decode()[-3000:])
    return seconds, peak / MB


def noise(shape, folder, bundle):
    """A folder of one volume of smooth noise, with as many channels as the model takes."""
    folder.mkdir()
    for channel in range(len(bundle.channels)):
        data = ndimage.gaussian_filter(np.random.default_rng(channel).normal(size=shape), 2.0).astype(np.float32)[None]
        volume = Volume(data * 1000, Geometry.from_spacing(shape, (1.0, 1.0, 1.0)))
        write_volume(volume, folder / f"noise_{channel:04}{bundle.file_ending}")
    return folder


def measured(nnunet, results, images, folder, repeats, workers):
    model = import_model(results, Workspace(folder), name="model")
    bundle = load_bundle(model)
    fold, ending = next(iter(bundle.folds)), bundle.file_ending
    title = images
    if not Path(images).is_dir():
        images = noise(tuple(int(edge) for edge in images.split("x")), folder / "images", bundle)
    small = noise((32, 32, 32), folder / "small", bundle)
    timed(*our_command(model, fold, small, folder / "a"))
    timed(*their_command(nnunet, results, fold, small, folder / "b"))
    turns = {"autoseg": [], "nnunet": []}
    for turn in range(repeats):
        for name, found in turns.items():
            out = folder / f"{name}_{turn}"
            ours = our_command(model, fold, images, out)
            found.append(timed(*(ours if name == "autoseg" else their_command(nnunet, results, fold, images, out))))
            print(name, turn, *(round(value, 2) for value in found[-1]), flush=True)
    masks = sorted((folder / "nnunet_0").glob(f"*{ending}"))
    pairs = [(read_label_volume(path).data, read_label_volume(folder / "autoseg_0" / path.name).data) for path in masks]
    medians = {name: statistics.median(seconds for seconds, _ in found) for name, found in turns.items()}
    line = {
        "model": f"{results.parent.name} {results.name}",
        "network": bundle.plan.network.name,
        "features": list(bundle.plan.network.features),
        "images": Path(title).name,
        "cases": len(masks),
        "precision": read_json(folder / "autoseg_0" / "run.json")["precision"],
        "seconds": {name: [round(seconds, 2) for seconds, _ in found] for name, found in turns.items()},
        "peak_mb": {name: [round(peak) for _, peak in found] for name, found in turns.items()},
        "times_as_fast": round(medians["nnunet"] / medians["autoseg"], 3),
        "same_labels_least": float(min((theirs == ours).mean() for theirs, ours in pairs)),
    }
    if workers:
        seconds, peak = timed(*their_command(nnunet, results, fold, images, folder / "workers", 1))
        line["nnunet_with_workers"] = {"seconds": round(seconds, 2), "peak_mb_of_main_process": round(peak)}
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("images", metavar="IMAGES")
    parser.add_argument("--nnunet", type=Path, required=True, metavar="BIN")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", action="store_true", help="nnU-Net with workers too, once")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "nnunet_speed.json")
    args = parser.parse_args()
    stored = read_json(args.out)["runs"] if args.out.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        line = measured(args.nnunet, args.results.resolve(), args.images, Path(folder), args.repeats, args.workers)
    print(line, flush=True)
    stored = [old for old in stored if (old["model"], old["images"]) != (line["model"], line["images"])] + [line]
    told = [args.nnunet / "python", "-c", "from importlib.metadata import version; print(version('nnunetv2'))"]
    nnunet = subprocess.run([str(word) for word in told], check=True, capture_output=True, text=True).stdout.strip()
    write_json(args.out, {"machine": about(), "nnunetv2": nnunet, "runs": stored})


if __name__ == "__main__":
    main()
