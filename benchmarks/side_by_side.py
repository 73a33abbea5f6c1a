"""Comparison with nnU-Net, stage by stage, with the same data, patch, batch, network, threads and allocator settings.

    python benchmarks/side_by_side.py --nnunet BIN --data HIPPOCAMPUS --folder DIR [--model RESULTS] [--stages S ...]

BIN is the ``bin`` folder of an environment with nnunetv2 2.8.1, HIPPOCAMPUS the data set, DIR a folder for all files. Both
sides use the network of RESULTS, a results folder of nnU-Net for Hippocampus (``DATASET/TRAINER__PLANS__3d_fullres``). Without
it, autoseg trains the network that nnU-Net plans for a few steps, and exports it for nnU-Net. Sides take turns, A B A B. Some
stages time whole commands as a user runs them. The others run ``side_autoseg.py`` and ``side_nnunet.py`` in a process each, and
time only the work, after an uncounted round. If nnU-Net has a second way (resampling with torch), that is a separate side.

Each turn is stored at once in ``results/side_by_side.json``, and stored turns are not repeated: the same command continues,
also with more repeats. Memory is the peak PSS of a command and its children, sampled every tenth of a second. ``--table``
prints the table of stored results, which ``docs/reference/speed.md`` shows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from machine import about
from scipy import ndimage

from autoseg.imaging.files import write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import load_bundle
from autoseg.pipeline import import_model
from autoseg.workspace import Workspace, read_json, write_json

HERE = Path(__file__).parent
RESULT = HERE / "results" / "side_by_side.json"
HIPPOCAMPUS, PHANTOMS = "Dataset004_Hippocampus", "Dataset901_CT"
CT_CASES, CT_SHAPE, CT_SPACING = 6, (150, 512, 512), (1.0, 0.8, 0.8)
LARGE = (160, 160, 110)  # voxels of the large scan
# freed memory is kept between steps, as autoseg itself does in training runs
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "500000000"}
Words = list[object]


@dataclass(frozen=True)
class Place:
    """Where everything is: data, nnU-Net's programs and model, and the folder for all files."""

    folder: Path
    data: Path
    nnunet: Path
    results: Path

    @property
    def model(self) -> Path:
        return self.folder / "models" / "imported"

    def environment(self, side: str) -> dict[str, str]:
        """Environment variables for a process of ``side``: all cores, and the same allocator settings."""
        own = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": str(os.cpu_count()), "nnUNet_def_n_proc": str(os.cpu_count())}
        own.pop("PYTHONPATH", None)
        if side == "autoseg":
            return own | {"PYTHONPATH": str(HERE.parent), "AUTOSEG_WORKSPACE": str(self.folder / "workspace")}
        places = {"raw": self.folder / "raw", "preprocessed": self.folder / "nnunet", "results": self.results.parents[1]}
        return own | {f"nnUNet_{name}": str(path) for name, path in places.items()}


@dataclass(frozen=True)
class Stage:
    """What is timed: ``sides`` maps the name of a side to its command; ``prints_seconds``: the commands time themselves."""

    title: str
    sides: Mapping[str, Callable[[Place], Words]]
    prints_seconds: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet", type=Path, metavar="BIN")
    parser.add_argument("--model", type=Path, metavar="RESULTS")
    parser.add_argument("--data", type=Path, metavar="HIPPOCAMPUS")
    parser.add_argument("--folder", type=Path, metavar="DIR")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="print the table of what is stored, and measure nothing")
    args = parser.parse_args()
    if not args.table:
        if not all((args.nnunet, args.data, args.folder)):
            parser.error("--nnunet, --data and --folder are needed to measure")
        planned = args.folder / "results" / HIPPOCAMPUS / "nnUNetTrainer__nnUNetPlans__3d_fullres"
        results = args.model or planned
        place = Place(args.folder.absolute(), args.data.absolute(), args.nnunet.absolute(), results.absolute())
        make(place)
        for name in args.stages:
            measure(place, name, args.repeats)
    print(table(read_json(RESULT)))


def make(place: Place) -> None:
    """Make the data of all stages that do not exist yet."""
    raw = place.folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    if not (raw / HIPPOCAMPUS).exists():
        (raw / HIPPOCAMPUS).symlink_to(place.data)
    if not (raw / PHANTOMS / "dataset.json").is_file():
        phantoms(raw / PHANTOMS)
    for name, count in (("one", 1), ("twelve", 12)):
        target = place.folder / name
        target.mkdir(exist_ok=True)
        for scan in sorted((place.data / "imagesTr").iterdir())[:count]:
            if not (target / scan.name).exists():
                (target / scan.name).symlink_to(scan)
    if not place.results.exists():
        planned_network(place)
    if not place.model.exists():
        import_model(place.results, Workspace(place.folder), name="imported")
    if not (place.folder / "large").exists():
        smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=LARGE), 2.0).astype(np.float32)[None] * 1000
        target = place.folder / "large" / "noise_0000.nii.gz"
        target.parent.mkdir()
        write_volume(Volume(smooth, Geometry.from_spacing(LARGE, (1.0, 1.0, 1.0))), target)


def planned_network(place: Place) -> None:
    """Train the network of nnU-Net's plan at full width for a few steps, and export it as a results folder of nnU-Net."""
    plan, out = "fullres_3d_parity", place.results
    out.parent.mkdir(parents=True, exist_ok=True)
    for words in (
        ("plan_and_preprocess", place.folder / "raw" / HIPPOCAMPUS, "--parity"),
        ("train", "Hippocampus", "all", "--plan", plan, "--iterations", 10, "--set", "cpu_width=1", "--name", "planned"),
        ("model", "export", "Hippocampus_planned", out, "--format", "nnunet"),
    ):
        subprocess.run([sys.executable, "-m", "autoseg", *map(str, words)], env=place.environment("autoseg"), check=True)


def phantoms(folder: Path) -> None:
    """Write CT-sized scans in int16: a body of smooth noise in air, with five brighter ellipsoids."""
    grid = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in CT_SHAPE)]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(CT_CASES):
        rng = np.random.default_rng(number)
        image = 100 * ndimage.gaussian_filter(rng.normal(size=CT_SHAPE).astype(np.float32), 2)
        labels = np.zeros(CT_SHAPE, np.int32)
        for value in range(1, 6):
            centre, radii = rng.uniform(-0.5, 0.5, 3), rng.uniform(0.1, 0.3, 3)
            inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) < 1
            labels[inside] = value
            image[inside] += 40 * value
        image[sum(axis**2 for axis in grid) > 0.9] = -1000
        for array, name in ((image.round(), f"imagesTr/ct_{number}_0000.nii.gz"), (labels, f"labelsTr/ct_{number}.nii.gz")):
            scan = SimpleITK.GetImageFromArray(array.astype(np.int16))
            scan.SetSpacing(CT_SPACING[::-1])
            SimpleITK.WriteImage(scan, folder / name, useCompression=True)
    values = {"background": 0, **{f"organ{value}": value for value in range(1, 6)}}
    text = {"channel_names": {"0": "CT"}, "labels": values, "numTraining": CT_CASES, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", text)


def measure(place: Place, name: str, repeats: int) -> None:
    """Measure the turns of a stage that are not stored yet."""
    stage = STAGES[name]
    for turn in range(repeats):
        for side, words in stage.sides.items():
            stored = read_json(RESULT) if RESULT.is_file() else {"stages": {}}
            turns = stored["stages"].setdefault(name, {}).setdefault(side, [])
            if len(turns) > turn:
                continue
            shutil.rmtree(place.folder / "out", ignore_errors=True)
            turns.append(timed(words(place), place.environment(side), stage.prints_seconds))
            print(name, side, turns[-1], flush=True)
            write_json(RESULT, {**stored, "machine": about()})


def timed(words: Words, environment: dict[str, str], prints_seconds: bool) -> dict[str, float]:
    """Run a command: seconds, and peak memory in MiB including its children."""
    begun, peak = time.perf_counter(), 0.0
    log = Path(environment.get("TMPDIR", "/tmp")) / f"side_by_side_{os.getpid()}.txt"  # noqa: S108
    with log.open("w+") as told:
        process = subprocess.Popen(list(map(str, words)), env=environment, stdout=told, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, sum(map(memory_mib, family(process.pid))))
            time.sleep(0.1)
        seconds = time.perf_counter() - begun
        told.seek(0)
        text = told.read()
    log.unlink()
    if process.returncode:
        raise SystemExit(f"{words[0]} ended with {process.returncode}:\n{text[-3000:]}")
    if prints_seconds:
        seconds = float(json.loads(text.strip().splitlines()[-1])["seconds"])
    return {"seconds": round(seconds, 4), "peak_mib": round(peak)}


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def memory_mib(pid: int) -> float:
    """Memory of a process in MiB, as PSS."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def ours(*words: object) -> Callable[[Place], Words]:
    """A command of autoseg; {folder} and {model} are filled in."""
    return lambda place: [sys.executable, "-m", "autoseg", *filled(words, place), "--quiet"]


def theirs(command: str, *words: object) -> Callable[[Place], Words]:
    return lambda place: [place.nnunet / command, *filled(words, place)]


def parts(*words: object) -> dict[str, Callable[[Place], Words]]:
    """Commands of a stage that times itself, with the same arguments for both sides."""
    return {
        "autoseg": lambda place: [sys.executable, HERE / "side_autoseg.py", place.model, *words],
        "nnunet": lambda place: [place.nnunet / "python", HERE / "side_nnunet.py", place.results, *words],
    }


def with_torch(*words: object) -> dict[str, Callable[[Place], Words]]:
    """The same, and nnU-Net's resampling with torch as a third side."""
    return parts(*words) | {
        "nnunet, torch": lambda place: [place.nnunet / "python", HERE / "side_nnunet.py", place.results, *words, "--torch"],
    }


def filled(words: tuple[object, ...], place: Place) -> Words:
    names = {"folder": place.folder, "model": place.model}
    return [str(word).format(**names) for word in words]


def predictions(scans: str) -> dict[str, Callable[[Place], Words]]:
    """Commands for prediction without mirroring; nnU-Net in one process."""

    def fold_of(place: Place) -> str:  # of several, both use the first
        return next(iter(load_bundle(place.model).folds))

    def by_autoseg(place: Place) -> Words:
        words = ("predict", "-i", "{folder}/" + scans, "-o", "{folder}/out", "-m", "{model}", "--folds", fold_of(place))
        return ours(*words, "--no-mirror", "--device", "cpu")(place)

    def by_nnunet(place: Place) -> Words:
        trainer, plans, configuration = place.results.name.split("__")
        words = ["-d", place.results.parent.name, "-tr", trainer, "-p", plans, "-c", configuration, "-f", fold_of(place)]
        words += ["-i", place.folder / scans, "-o", place.folder / "out", "-npp", 0, "-nps", 0]
        return [place.nnunet / "nnUNetv2_predict", *words, *CPU]  # nnUNetv2_predict_from_modelfolder takes no -nps 0

    return {"autoseg": by_autoseg, "nnunet": by_nnunet}


def planning(dataset: str) -> dict[str, Callable[[Place], Words]]:
    number = int(dataset[len("Dataset") :].split("_")[0])
    cores = os.cpu_count()
    return {
        "autoseg": ours("plan_and_preprocess", "{folder}/raw/" + dataset, "--fresh"),
        "nnunet": theirs(
            "nnUNetv2_plan_and_preprocess", "-d", number, "-c", "3d_fullres", "-np", cores, "-npfp", cores, "--clean"
        ),
    }


CPU = ("-device", "cpu", "--disable_tta", "--disable_progress_bar")
STAGES = {
    "start": Stage("one small scan, from the shell to its mask", predictions("one")),
    "predict 12": Stage("12 scans of Hippocampus, from the shell to their masks", predictions("twelve")),
    "predict large": Stage(f"one scan of {'×'.join(map(str, LARGE))} voxels, all windows", predictions("large")),
    "plan hippocampus": Stage("200 scans of Hippocampus planned and prepared", planning(HIPPOCAMPUS)),
    "plan ct": Stage("six CT-sized phantoms (512×512×150) planned and prepared", planning(PHANTOMS)),
    "resample image": Stage("a scan of 200×256×256 to 300×205×205 voxels", with_torch("resample", "image"), True),
    "resample labels": Stage("its 8 labels", with_torch("resample", "labels"), True),
    "augment": Stage("40 augmented patches of 128×128×128, one thread", parts("augment"), True),
    "step": Stage("five training steps, batch 2 of 40×56×40, float32", parts("step"), True),
    "export 30": Stage("30 classes from 120³ logits to labels of 240³", with_torch("export", 30, 120, 240), True),
    "export 118": Stage("118 classes from 80³ logits to labels of 160³", with_torch("export", 118, 80, 160), True),
}


def table(stored: dict[str, dict[str, dict[str, list[dict[str, float]]]]]) -> str:
    """Markdown: median seconds with their range, and ratios of median seconds and of median peak memory."""
    lines = ["| work | autoseg | nnU-Net | times as fast | memory | turns |", "|---|---|---|---|---|---|"]
    for name, stage in STAGES.items():
        found = stored["stages"].get(name, {})
        mine = found.get("autoseg")
        for side in (side for side in stage.sides if side != "autoseg" and mine and found.get(side)):
            other = found[side]
            ratio, memory = (
                statistics.median(turn[what] for turn in first) / statistics.median(turn[what] for turn in second)
                for what, first, second in (("seconds", other, mine), ("peak_mib", mine, other))
            )
            way = " (resampled with torch)" if "torch" in side else ""
            lines.append(
                f"| {stage.title}{way} | {spread(mine)} | {spread(other)} | {ratio:.2f} | {memory:.2f} of it |"
                f" {min(len(mine), len(other))} |"
            )
    return "\n".join(lines)


def spread(turns: list[dict[str, float]]) -> str:
    seconds = sorted(turn["seconds"] for turn in turns)
    return f"{statistics.median(seconds):.3g} s ({seconds[0]:.3g}–{seconds[-1]:.3g})"


if __name__ == "__main__":
    main()
