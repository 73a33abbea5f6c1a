"""Prediction of one large volume with adaptive windows, against all windows and against nnU-Net with the same weights.

    python benchmarks/adaptive_windows.py make DATA_SET FOLDER
    autoseg plan_and_preprocess FOLDER/Dataset900_Field --workspace FOLDER/w --no-preprocess --parity
    python benchmarks/adaptive_windows.py plan FOLDER
    autoseg train 900 all --plan fullres_3d_parity --iterations N --set cpu_width=1 --set mirror=true --name field \\
        --workspace FOLDER/w
    autoseg model calibrate Field_field --cases FOLDER/calibrate --workspace FOLDER/w
    python benchmarks/adaptive_windows.py masks|count|time|nnunet|whole FOLDER [--volume NAME] [--mirror] [--nnunet BIN]

The volumes are fields of textured noise with hippocampi in them: whole scans of the data set, scaled to the same mean 0 and
standard deviation 1 as the noise. ``make`` writes a data set of small fields with the training scans (all but every fifth).
With the other scans it writes fields for calibration, and fields of 300 x 300 x 300 voxels for prediction. Their 5 and 20 scans
fill about 1 and 5 % of the volume, the structures a twentieth of that. ``plan`` sets windows of (40, 56, 40) voxels and the
network that nnU-Net plans for Hippocampus, at full width, and allows mirroring along two axes.

``masks`` computes all windows of a volume once, and compares them with the windows that each Doubt of the ladder chooses.
``count`` counts the windows that each Doubt chooses after a first pass. ``time`` and ``nnunet`` (2.8.1, ``-npp 0 -nps 0``)
measure the seconds per tile on a small field; ``time`` also measures everything except the networks for 300 x 300 x 300 voxels.
``whole`` runs both commands once on a volume and compares their masks; ``--who`` runs only one. It copies the model and
calibrates the copy for its number of views. With ``--mirror`` both average four views, mirrored along two axes, otherwise there
is one. Results go to ``results/adaptive_windows.json``, part by part.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import about
from nnunet_speed import their_command, timed
from scipy import ndimage

from autoseg.data.dataset import Case, read_dataset
from autoseg.imaging.files import read_label_volume, read_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.inference.adaptive import Blend, Reading, grid_of, predict_adaptively
from autoseg.inference.bundle import load_bundle
from autoseg.inference.calibration import LADDER
from autoseg.inference.predictor import Predictor
from autoseg.inference.sliding_window import Tiles, Tiling, predict_logits
from autoseg.inference.windows import AdaptiveWindows
from autoseg.options import InferenceOptions, Runtime
from autoseg.pipeline import calibrate_model, export_model
from autoseg.reconstruct.confidence import agreement
from autoseg.workspace import Workspace, read_record, write_json
from planners.plan import Plan
from planners.records import to_json

RESULT = Path(__file__).parent / "results" / "adaptive_windows.json"
EDGE = 300  # voxels of the volume that is timed
MIRRORED = (0, 1)  # axes of the four views
FEW, MANY = 5, 20  # scans in it, which fill about 1 % and 5 % of it
SMALL = 40  # fields for training
HELD_BACK = 5  # every fifth case
TEXTURE = ((0.7, 0.5), (2.0, 0.6), (5.0, 0.6))  # (sigma in voxels, weight) of the noise
Scan = tuple[np.ndarray, np.ndarray]  # image and label values, (z, y, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=("make", "plan", "masks", "count", "time", "nnunet", "whole"))
    parser.add_argument("dataset", type=Path, nargs="?", help="Hippocampus in nnU-Net's layout")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--volume", default="large_05", help="name of a volume in the folder large")
    parser.add_argument("--mirror", action="store_true", help="along two axes: four views")
    parser.add_argument("--nnunet", type=Path, metavar="BIN", help="bin folder of an environment with nnunetv2")
    parser.add_argument("--who", choices=("autoseg", "nnunet"), help="with whole: run only this program")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.action == "make":
        make_fields(args.dataset, args.folder)
    elif args.action == "plan":
        edit_plan(args.folder)
    elif args.action == "nnunet":
        keep("nnunet", seconds_of_nnunet(args.folder, args.nnunet))
    elif args.action == "whole":
        whole_commands(args)
    else:
        views = "_4_views" if args.mirror else ""
        measure = {"masks": compare_masks, "count": count_tiles, "time": measure_time}[args.action]
        keep(f"{args.action}_{args.volume}{views}", measure(args.folder, args.volume, args.mirror))


def keep(name: str, found: dict[str, object]) -> None:
    """Add a part to the stored results."""
    print(name, json.dumps(found, indent=1))
    stored = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    write_json(RESULT, {**stored, "about": about(), name: found})


def edit_plan(folder: Path) -> None:
    """Set windows and network to those of nnU-Net's plan for Hippocampus."""
    path = next((folder / "w" / "plans").glob("*/fullres_3d_parity.json"))
    plan, strides = read_record(Plan, path), ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    network = replace(
        plan.network,
        name="unet",
        features=(32, 64, 128, 256),
        strides=strides,
        kernels=((3, 3, 3),) * 4,
        encoder_blocks=(2, 2, 2, 2),
        decoder_blocks=(2, 2, 2),
        backbone="plain",
        attention=(),
    )
    write_json(path, replace(plan, patch_size=(40, 56, 40), network=network, mirror_axes=MIRRORED))


def predictor_of(folder: Path, mirror: bool, windows: str) -> Predictor:
    bundle = load_bundle(next((folder / "w" / "models").iterdir()))
    if not bundle.windows:  # not calibrated: the middle of the ladder
        middle = AdaptiveWindows(LADDER[len(LADDER) // 2], 0.5, 0, 0, 0)
        bundle = replace(bundle, windows=dict.fromkeys(bundle.folds, middle))
    return Predictor(bundle, InferenceOptions(windows=windows, mirror=mirror, precision="fp32"), device="cpu")


def scan_of(folder: Path, predictor: Predictor, volume: str) -> np.ndarray:
    return predictor.prepare(folder / f"{volume}_0000.nii.gz").data


def compare_masks(folder: Path, volume: str, mirror: bool) -> dict[str, object]:
    """Compare the masks of the windows that each Doubt chooses with those of all windows, on the network's grid."""
    predictor = predictor_of(folder, mirror, "adaptive")
    assert predictor.doubt is not None
    *stages, every = predictor.try_doubts(scan_of(folder / "large", predictor, volume), LADDER)
    rows = []
    for doubt, stage in zip(LADDER, stages, strict=True):
        same = float((stage.result == every.result).mean())
        dice = agreement([stage.result, every.result], len(predictor.bundle.labels.structures))
        rows.append({"doubt": to_json(doubt), "computed": stage.computed, "of": stage.of, "same_voxels": same, "dice": dice})
    return {"chosen": to_json(predictor.doubt), "ladder": rows}


def count_tiles(folder: Path, volume: str, mirror: bool) -> dict[str, object]:
    """Number of tiles that the model chooses with each Doubt, after the first pass alone, for one view and for four."""
    predictor = predictor_of(folder, mirror, "adaptive")
    assert predictor.doubt is not None
    data, tiling = scan_of(folder / "large", predictor, volume), predictor.tiling
    first = grid_of(data.shape[1:], tiling).first_pass()
    tiles = Tiles(predictor.networks, torch.from_numpy(data), 1, torch.device("cpu"), 1)
    blend = Blend(tiles, tiling, Reading(has_regions=False))
    with torch.inference_mode():
        blend.first_pass()
    rows = []
    for doubt in LADDER:
        refined = blend.doubtful(doubt)
        one, four = int((first | refined).sum()), int(4 * refined.sum() + (first & ~refined).sum())
        rows.append({"doubt": to_json(doubt), "computed": one, "computed_in_4_views": four})
    return {"of": int(first.size), "of_in_4_views": int(4 * first.size), "chosen": to_json(predictor.doubt), "ladder": rows}


def measure_time(folder: Path, volume: str, mirror: bool) -> dict[str, object]:
    """Seconds per tile on a small field, both ways in turns; and of everything but the networks for a large volume."""
    ways = {windows: predictor_of(folder, mirror, windows) for windows in ("all", "adaptive")}
    small = ways["all"].prepare(folder / "calibrate" / "calibrate_0_0000.nii.gz")
    tiles: dict[str, int] = {}
    seconds: dict[str, list[float]] = {windows: [] for windows in ways}
    for _ in range(2):
        for windows, predictor in ways.items():
            found = predictor.infer(small)
            seconds[windows].append(found.seconds)
            tiles[windows] = found.windows[0]
    of_a_tile = {windows: min(times) / tiles[windows] for windows, times in seconds.items()}
    return {"tiles": tiles, "seconds": seconds, "seconds_of_a_tile": of_a_tile, "beside": seconds_beside_networks()}


def seconds_beside_networks() -> dict[str, float]:
    """Seconds that both ways take for a large volume of certain background, with a network that does nothing."""
    data, tiling = np.random.default_rng(0).normal(size=(1, EDGE, EDGE, EDGE)).astype(np.float32), Tiling((40, 56, 40))
    answer = torch.tensor([10.0, 0, 0]).reshape(3, 1, 1, 1).expand(1, 3, 40, 56, 40).contiguous()
    begun = time.perf_counter()
    predict_adaptively([lambda x: answer], data, tiling, LADDER[-1], Reading(has_regions=False))
    between = time.perf_counter()
    predict_logits([lambda x: answer], data, tiling)
    return {"adaptive": between - begun, "all": time.perf_counter() - between}


def whole_commands(args: argparse.Namespace) -> None:
    """Seconds and peak memory of both commands on a volume, from start to mask, and the agreement of their masks."""
    title = f"whole_{args.volume}{'_4_views' if args.mirror else ''}"
    model, place = model_of_views(args.folder, args.mirror), args.folder / title
    results = exported(model, place / "Dataset900_Field" / "nnUNetTrainer__nnUNetPlans__3d_fullres", args.folder)
    scans = place / "scans"
    scans.mkdir(exist_ok=True)
    shutil.copy(args.folder / "large" / f"{args.volume}_0000.nii.gz", scans)
    stored = json.loads(RESULT.read_text()).get(title, {}) if RESULT.is_file() else {}
    for who in (args.who,) if args.who else ("autoseg", "nnunet"):
        out = place / who
        shutil.rmtree(out, ignore_errors=True)
        if who == "autoseg":
            words = ["predict", "-i", scans, "-o", out, "-m", model, "--windows", "adaptive", "--device", "cpu", "--quiet"]
            command, environment = [sys.executable, "-m", "autoseg", *words], {**os.environ}
        else:
            command, environment = their_command(args.nnunet, results, "all", scans, out)
            command = [word for word in command if word != "--disable_tta" or not args.mirror]
        seconds, peak = timed(command, environment)
        stored |= {who: {"seconds": round(seconds, 1), "peak_mb": round(peak)}}
        if who == "autoseg":
            stored |= {"windows": json.loads((out / "run.json").read_text())["cases"][0]["windows"]}
        keep(title, stored)
    files = [place / who / f"{args.volume}.nii.gz" for who in ("autoseg", "nnunet")]
    if all(file.is_file() for file in files):
        ours, theirs = (read_label_volume(file).data for file in files)
        stored |= {"same_voxels": float((ours == theirs).mean()), "dice": agreement([ours, theirs], 2)}
        stored |= {"share_of_structures": float((theirs > 0).mean())}
        stored |= {"times_as_fast": round(stored["nnunet"]["seconds"] / stored["autoseg"]["seconds"], 2)}
        keep(title, stored)


def model_of_views(folder: Path, mirror: bool) -> Path:
    """A copy of the trained model that averages four views or has a single one, calibrated for that."""
    model = next((folder / "w" / "models").iterdir())
    copy = folder / ("four_views" if mirror else "one_view") / model.name
    if not copy.is_dir():
        shutil.copytree(model, copy)
        record = json.loads((copy / "model.json").read_text())
        record["plan"]["mirror_axes"] = MIRRORED if mirror else ()
        del record["seal"]  # edited on purpose
        write_json(copy / "model.json", record)
        calibrate_model(copy, folder / "calibrate", Workspace(folder / "w"), Runtime(device="cpu"))
    return copy


def exported(model: Path, results: Path, folder: Path) -> Path:
    """The model as a results folder of nnU-Net, written if it does not exist."""
    if not results.exists():
        results.parent.mkdir(parents=True)
        export_model(model, results, Workspace(folder / "w"), format="nnunet")
    return results


def seconds_of_nnunet(folder: Path, binaries: Path) -> dict[str, object]:
    """Seconds of nnU-Net with the same weights for a small field and for one window of it; the tiles make the difference."""
    results, scans = folder / "nnunet" / "Dataset900_Field" / "nnUNetTrainer__nnUNetPlans__3d_fullres", folder / "for_nnunet"
    model = model_of_views(folder, mirror=False)
    exported(model, results, folder)
    patch = load_bundle(model).plan.patch_size
    small = read_volume(folder / "calibrate" / "calibrate_0_0000.nii.gz")
    window = Volume(small.data[(slice(None), *map(slice, patch))], Geometry.from_spacing(patch, (1.0, 1.0, 1.0)))
    seconds: dict[str, list[float]] = {"field": [], "window": []}
    for name, volume in {"field": small, "window": window}.items():
        (scans / name).mkdir(parents=True, exist_ok=True)
        write_volume(volume, scans / name / f"{name}_0000.nii.gz")
    for _ in range(2):
        for name, found in seconds.items():
            found.append(seconds_of_command(binaries, results, scans / name, folder / f"by_nnunet_{name}"))
    tiles = math.prod(grid_of(small.geometry.shape, Tiling(patch)).size)
    return {"seconds": seconds, "tiles": tiles, "of_a_tile": (min(seconds["field"]) - min(seconds["window"])) / (tiles - 1)}


def seconds_of_command(binaries: Path, results: Path, scans: Path, target: Path) -> float:
    trainer, plans, configuration = results.name.split("__")
    command = ["nnUNetv2_predict", "-i", scans, "-o", target, "-d", results.parent.name, "-f", "all", "-device", "cpu"]
    command += ["-tr", trainer, "-p", plans, "-c", configuration]
    command += ["-npp", "0", "-nps", "0", "--disable_tta", "--disable_progress_bar"]
    environment = {**os.environ, **{f"nnUNet_{name}": str(target) for name in ("raw", "preprocessed")}}
    environment["nnUNet_results"] = str(results.parents[1])
    environment.pop("PYTHONPATH", None)  # it belongs to our environment
    begun = time.perf_counter()
    subprocess.run([binaries / command[0], *map(str, command[1:])], check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def make_fields(dataset: Path, folder: Path) -> None:
    """Write the data set ``Dataset900_Field``, and the folders ``calibrate`` and ``large`` beside it."""
    rng, cases = np.random.default_rng(0), read_dataset(dataset).training
    seen = [normalised(case) for i, case in enumerate(cases) if i % HELD_BACK]
    held = [normalised(case) for i, case in enumerate(cases) if not i % HELD_BACK]
    target = folder / "Dataset900_Field"
    for number in range(SMALL):
        own = [seen[i] for i in rng.choice(len(seen), 2, replace=False)]
        save(*field(rng, own, (80, 112, 80)), target / "imagesTr", f"field_{number:03}", target / "labelsTr")
    about = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2}}
    (target / "dataset.json").write_text(json.dumps({**about, "numTraining": SMALL, "file_ending": ".nii.gz"}))
    half = len(held) // 2
    for number in range(3):
        own = [held[i] for i in rng.choice(half, 3, replace=False)]
        save(*field(rng, own, (120, 140, 120)), folder / "calibrate", f"calibrate_{number}", folder / "calibrate_labels")
    for name, count, shape in (("held", 4, (140, 168, 140)), ("large", FEW, (EDGE,) * 3), ("large", MANY, (EDGE,) * 3)):
        own = [held[half + i] for i in rng.choice(half, count, replace=False)]
        save(*field(rng, own, shape), folder / "large", f"{name}_{count:02}", folder / "large_labels")


def normalised(case: Case) -> Scan:
    """A scan with mean 0 and standard deviation 1, and its labels."""
    assert case.label is not None
    image = read_volume(case.images).data[0]
    return (image - image.mean()) / image.std(), read_label_volume(case.label).data


def field(rng: np.random.Generator, scans: list[Scan], shape: tuple[int, ...]) -> Scan:
    """Noise with scans at random places that do not overlap."""
    image = sum(share * standard(ndimage.gaussian_filter(noise(rng, shape), sigma)) for sigma, share in TEXTURE)
    image, labels = standard(image), np.zeros(shape, np.uint8)
    for place, (part, codes) in zip(places(rng, [part.shape for part, _ in scans], shape), scans, strict=True):
        image[place], labels[place] = part, codes
    return image, labels


def places(rng: np.random.Generator, edges: list[tuple[int, ...]], shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Random places for boxes, no two of which overlap; if a box does not fit, all are drawn again."""
    while True:
        taken, found = np.zeros(shape, bool), []
        for box in edges:
            for _ in range(50):
                corner = [int(rng.integers(0, n - edge + 1)) for n, edge in zip(shape, box, strict=True)]
                place = tuple(slice(start, start + edge) for start, edge in zip(corner, box, strict=True))
                if not taken[place].any():
                    taken[place] = True
                    found.append(place)
                    break
        if len(found) == len(edges):
            return found


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def standard(image: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = image / image.std()
    return scaled


def save(image: np.ndarray, labels: np.ndarray, images_to: Path, name: str, labels_to: Path) -> None:
    """Write a scan as NAME_0000.nii.gz and its labels as NAME.nii.gz, with voxels of 1 mm and positive intensities."""
    geometry = Geometry.from_spacing(image.shape, (1.0, 1.0, 1.0))
    for place in (images_to, labels_to):
        place.mkdir(parents=True, exist_ok=True)
    write_volume(Volume((500 + 100 * image)[None].astype(np.float32), geometry), images_to / f"{name}_0000.nii.gz")
    write_label_volume(LabelVolume(labels.astype(np.int32), geometry), labels_to / f"{name}.nii.gz")


if __name__ == "__main__":
    main()
