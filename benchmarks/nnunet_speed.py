"""Time and memory of ``autoseg predict`` against nnU-Net's whole command: one network, the same windows, the same scans.

    python benchmarks/nnunet_speed.py --nnunet BIN RESULTS IMAGES
    python benchmarks/nnunet_speed.py --nnunet BIN RESULTS 160x160x110 --workers --work DIR

BIN is the ``bin`` folder of an environment with nnunetv2, RESULTS a results folder ``DATASET/TRAINER__PLANS__CONFIGURATION``,
which is imported first, and IMAGES a folder of scans, or the size in voxels of a volume of smooth noise with 1 mm voxels. Both
commands are run as by a user: they read, predict and write, without mirroring, on the CPU with all cores, nnU-Net in one
process (``-npp 0 -nps 0``). They take turns, A B A B, after an uncounted run on a small scan each.

The output has the seconds and the peak memory of each turn, the ratio of the medians, and the fraction of voxels with the same
label. With ``--workers`` nnU-Net also runs once with one process each for reading and writing; then memory is the peak of its
main process alone. With ``--work`` each turn is stored in a folder at once, and the same command continues an interrupted run.
"""

import argparse
import os
import shutil
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
    """Run a command; returns (seconds, peak memory of its main process in MiB)."""
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
    """Write one volume of smooth noise to a folder, with as many channels as the model has."""
    folder.mkdir(exist_ok=True)
    for channel in range(len(bundle.channels)):
        data = ndimage.gaussian_filter(np.random.default_rng(channel).normal(size=shape), 2.0).astype(np.float32)[None]
        volume = Volume(data * 1000, Geometry.from_spacing(shape, (1.0, 1.0, 1.0)))
        write_volume(volume, folder / f"noise_{channel:04}{bundle.file_ending}")
    return folder


def measured(nnunet, results, images, folder, repeats, workers):
    model = folder / "models" / "model"
    if not model.exists():
        import_model(results, Workspace(folder), name="model")
    bundle = load_bundle(model)
    fold, title = next(iter(bundle.folds)), images
    if not Path(images).is_dir():
        images = noise(tuple(int(edge) for edge in images.split("x")), folder / "images", bundle)
    commands = {
        "autoseg": lambda images, out: our_command(model, fold, images, out),
        "nnunet": lambda images, out: their_command(nnunet, results, fold, images, out),
        "workers": lambda images, out: their_command(nnunet, results, fold, images, out, 1),
    }
    wanted = [(name, turn) for turn in range(repeats) for name in ("autoseg", "nnunet")] + [("workers", 0)] * workers
    paths = {(name, turn): folder / f"{name}_{turn}.json" for name, turn in wanted}
    if any(not path.is_file() for path in paths.values()):
        small = noise((32, 32, 32), folder / "small", bundle)
        for name in ("autoseg", "nnunet"):
            shutil.rmtree(folder / "first", ignore_errors=True)
            timed(*commands[name](small, folder / "first"))
    for (name, turn), path in paths.items():
        if not path.is_file():
            out = path.with_suffix("")
            shutil.rmtree(out, ignore_errors=True)
            seconds, peak = timed(*commands[name](images, out))
            write_json(path, {"seconds": round(seconds, 2), "peak_mb": round(peak)})
            print(name, turn, round(seconds, 2), round(peak), flush=True)
    return line_of(results, bundle, Path(title).name, {key: read_json(path) for key, path in paths.items()}, folder)


def line_of(results, bundle, images, found, folder):
    """The row of the table, from the results of all turns."""
    ending = bundle.file_ending
    masks = sorted((folder / "nnunet_0").glob(f"*{ending}"))
    pairs = [(read_label_volume(path).data, read_label_volume(folder / "autoseg_0" / path.name).data) for path in masks]
    turns = {who: [one for (name, _), one in found.items() if name == who] for who in ("autoseg", "nnunet")}
    seconds = {name: [one["seconds"] for one in each] for name, each in turns.items()}
    line = {
        "model": f"{results.parent.name} {results.name}",
        "network": bundle.plan.network.name,
        "features": list(bundle.plan.network.features),
        "images": images,
        "cases": len(masks),
        "precision": read_json(folder / "autoseg_0" / "run.json")["precision"],
        "seconds": seconds,
        "peak_mb": {name: [one["peak_mb"] for one in each] for name, each in turns.items()},
        "times_as_fast": round(statistics.median(seconds["nnunet"]) / statistics.median(seconds["autoseg"]), 3),
        "same_labels_least": float(min((theirs == ours).mean() for theirs, ours in pairs)),
    }
    if alone := found.get(("workers", 0)):
        line["nnunet_with_workers"] = {"seconds": alone["seconds"], "peak_mb_of_main_process": alone["peak_mb"]}
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("images", metavar="IMAGES")
    parser.add_argument("--nnunet", type=Path, required=True, metavar="BIN")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", action="store_true", help="also measure nnU-Net with workers, once")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder that keeps turns; of one model and one IMAGES")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "nnunet_speed.json")
    args = parser.parse_args()
    stored = read_json(args.out)["runs"] if args.out.is_file() else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        line = measured(args.nnunet, args.results.resolve(), args.images, folder.resolve(), args.repeats, args.workers)
    print(line, flush=True)
    stored = [old for old in stored if (old["model"], old["images"]) != (line["model"], line["images"])] + [line]
    told = [args.nnunet / "python", "-c", "from importlib.metadata import version; print(version('nnunetv2'))"]
    nnunet = subprocess.run([str(word) for word in told], check=True, capture_output=True, text=True).stdout.strip()
    write_json(args.out, {"machine": about(), "nnunetv2": nnunet, "runs": stored})


if __name__ == "__main__":
    main()
