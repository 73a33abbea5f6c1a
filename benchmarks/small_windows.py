"""Attention for windows with too little context: a self-attention U-Net with open gates, and a plain one of equal operations.

    PYTHONPATH=. python benchmarks/small_windows.py DATA_SET --workspace DIR --spacing Z Y X --patch Z Y X --steps N
        [--margin MM] [--pair RIGHT LEFT] [--repeats 3]

The data set is planned with this spacing in mm and a small patch in voxels, which is also the window of prediction. With
``--margin`` the scans are first cropped to the box of the structures and a margin in mm, so that a CPU has less to predict.
Then ``autoseg compare --match-flops`` trains both networks with the settings below. Its tables go to
``results/small_windows/NAME``. For a ``--pair`` of structures, ``sides.json`` there says how much of them was labelled as the
other side. The same call continues an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import about
from scipy import ndimage

from autoseg.data.dataset import DatasetSpec, read_dataset
from autoseg.evaluation import paired_difference
from autoseg.imaging.crop import crop, nonzero_box
from autoseg.imaging.files import read_label_volume, read_volume, write_label_volume, write_volume
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.options import CompareOptions, PlanOptions, Runtime, TrainingOptions
from autoseg.pipeline import compare, plan_and_preprocess
from autoseg.records import read_fold
from autoseg.workspace import Workspace, read_record, write_json
from planners import Plan
from planners.attention import explain_attention
from planners.change import refit, with_network
from planners.records import to_json
from planners.topology import choose_features, choose_topology

PLAN, FOLD = "small_windows", "0"
NETWORKS = ("self_attention_unet", "unet")
# full patches from the first step, most of them on a structure, since small windows often contain none
SETTINGS = {"attention_rate": 0.005, "patch_curriculum": [], "batch_size": 4, "foreground": 0.8, "bf16": False}


def write_cut(spec: DatasetSpec, margin: float, folder: Path) -> None:
    """Write the data set with every scan cropped to the box of its structures and ``margin`` mm around it."""
    for case in spec.training:
        assert case.label is not None, case.id
        image, label = read_volume(case.image_paths), read_label_volume(case.label)
        lower, upper = nonzero_box(label.data[None])
        more = [math.ceil(margin / mm) for mm in image.geometry.spacing_mm]
        lower = [max(0, edge - by) for edge, by in zip(lower, more, strict=True)]
        upper = [min(size, edge + by) for size, edge, by in zip(label.data.shape, upper, more, strict=True)]
        geometry = image.geometry.cropped(lower, [b - a for a, b in zip(lower, upper, strict=True)])
        for channel, data in enumerate(crop(image.data, lower, upper)):
            path = folder / "imagesTr" / f"{case.id}_{channel:04d}{spec.file_ending}"
            write_volume(Volume(data[None], geometry), path)
        labels = LabelVolume(crop(label.data, lower, upper), geometry)
        write_label_volume(labels, folder / "labelsTr" / f"{case.id}{spec.file_ending}")
    about_it = json.loads((spec.folder / "dataset.json").read_text())
    write_json(folder / "dataset.json", about_it)


def shrunk(plan: Plan, spacing_mm: tuple[float, ...], patch: tuple[int, ...]) -> Plan:
    """The plan on another grid and patch, with the network that the planner's rules give for these."""
    topology = choose_topology(spacing_mm, patch)
    stages, (z, y, x) = len(topology.strides), spacing_mm
    network = replace(
        plan.network,
        name="unet",
        features=choose_features(stages, slices=False),
        strides=topology.strides,
        kernels=topology.kernels,
        encoder_blocks=(2,) * stages,
        decoder_blocks=(2,) * (stages - 1),
        deep_supervision=stages > 2,
        attention=(),
    )
    edges_mm = dict(zip(plan.axis_order, np.multiply(plan.median_shape, plan.spacing_mm).tolist(), strict=True))
    a, b, c = (edges_mm[axis] / mm for axis, mm in enumerate(spacing_mm))
    small = replace(
        plan,
        name=PLAN,
        axis_order=(0, 1, 2),
        spacing_mm=(z, y, x),
        median_shape=(a, b, c),
        patch_size=topology.patch,
        mirror_axes=(),
        batch_dice=True,
        network=network,
    )
    return with_network(refit(small, network), NETWORKS[0])


def other_side(found: Path, label: Path, pair: tuple[int, int]) -> dict[str, int]:
    """Voxel counts for a pair of structures.

    Voxels of both in the reference; those of them predicted as either; those of them predicted as the other one. Also all
    voxels predicted as either, and those of them that are nearer to the other structure of the reference than to their own.
    """
    truth, said = read_label_volume(label), read_label_volume(found).data
    either, predicted = np.isin(truth.data, pair), np.isin(said, pair)
    far = [ndimage.distance_transform_edt(truth.data != value, sampling=truth.geometry.spacing_mm) for value in pair]
    astray = (said == pair[0]) & (far[1] < far[0]) | (said == pair[1]) & (far[0] < far[1])
    masks = {"voxels": either, "found": either & predicted, "other_side": either & predicted & (truth.data != said)}
    return {name: int(mask.sum()) for name, mask in {**masks, "predicted": predicted, "nearer_to_other": astray}.items()}


def sides(spec: DatasetSpec, workspace: Workspace, pair: tuple[str, str], steps: int) -> dict[str, Any]:
    """``other_side`` by network, training run and validation case; total fractions, and the paired difference of networks."""
    (one,), (two,) = (spec.labels.groups[name] for name in pair)
    labels = {case.id: case.label for case in spec.training if case.label}
    runs: dict[str, dict[str, dict[str, dict[str, int]]]] = {name: {} for name in NETWORKS}
    for folder in sorted(workspace.run(spec.name, "compare").parent.glob(f"compare_*/fold_{FOLD}")):
        record, validation = read_fold(folder), folder / "validation"
        if record and record.task.length["steps"] == steps and (validation / "metrics.json").is_file():
            task = record.task
            runs[task.plan.network.name][f"seed {task.seed}"] = {
                case: other_side(validation / f"{case}{spec.file_ending}", labels[case], (one, two)) for case in task.validation
            }
    shares: dict[str, dict[str, float]] = {}
    by_case: list[list[float]] = []
    for name, trainings in runs.items():
        counts = [of_case for training in trainings.values() for of_case in training.values()]
        total = {key: sum(of_case[key] for of_case in counts) for key in counts[0]} if counts else {}
        shares[name] = {
            f"{part}, of {whole}": total[part] / max(total[whole], 1)
            for part, whole in (("found", "voxels"), ("other_side", "found"), ("nearer_to_other", "predicted"))
            if total
        }
        cases = zip(*(training.values() for training in trainings.values()), strict=True)  # in the order of the fold
        by_case.append([float(np.mean([run["other_side"] / max(run["voxels"], 1) for run in same])) for same in cases])
    difference = to_json(paired_difference(*by_case)) if by_case[0] and len(by_case[0]) == len(by_case[1]) else None
    return {"pair": pair, "shares": shares, "other side, of all voxels, first minus second network": difference, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", type=Path)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--spacing", type=float, nargs=3, required=True)
    parser.add_argument("--patch", type=int, nargs=3, required=True)
    parser.add_argument("--steps", type=int, required=True, help="of each training")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--margin", type=float, help="mm around the structures; without it scans stay whole")
    parser.add_argument("--pair", nargs=2, help="two structures, one on each side")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "small_windows")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    workspace, folder = Workspace(args.workspace.absolute()), args.data_set.absolute()
    if args.margin is not None:
        cut = args.workspace.absolute() / folder.name
        if not (cut / "dataset.json").is_file():
            write_cut(read_dataset(folder), args.margin, cut)
        folder = cut
    spec, runtime = read_dataset(folder), Runtime(device="cpu", workers=1)
    if not workspace.plan(spec.name, PLAN).is_file():
        base = plan_and_preprocess(folder, workspace, PlanOptions(preprocess=False)).plan
        base = read_record(Plan, workspace.plan(spec.name, base.name))
        write_json(workspace.plan(spec.name, PLAN), shrunk(base, tuple(args.spacing), tuple(args.patch)))
    plan = read_record(Plan, workspace.plan(spec.name, PLAN))
    narrow = plan.network.scaled(0.5)
    print(f"on a CPU: {explain_attention(narrow, plan.patch_size)}", flush=True)
    training = TrainingOptions(plan=PLAN, iterations=args.steps, settings=tuple(SETTINGS.items()))
    target = args.out / spec.name
    options = CompareOptions(NETWORKS, training, repeats=args.repeats, match_flops=True, target=str(target))
    print(compare(folder, FOLD, workspace, options, runtime).summary())
    told = {"machine": about(), "asked": {key: getattr(args, key) for key in ("spacing", "patch", "steps", "margin")}}
    told["attention"] = explain_attention(narrow, plan.patch_size).chosen
    if args.pair:
        told |= sides(spec, workspace, tuple(args.pair), args.steps)
    write_json(target / "sides.json", told)
    print(json.dumps({key: value for key, value in told.items() if key not in ("machine", "runs")}, indent=1))


if __name__ == "__main__":
    main()
