"""Whether a cascade uses context beyond the patch: the label of a structure depends on a landmark far away.

    python benchmarks/cascade.py --workspace DIR

Each phantom is a tube of 24 x 24 x 160 voxels with a ball near its middle and a bright cube at one end. The ball is ``first``
if the cube is at the beginning, otherwise ``second``; there is no other difference. Patches have 24 x 24 x 32 voxels, a fifth
of a tube, and never contain both. Full resolution alone is compared with a cascade on the validation cases of the first of two
folds, with the same number of steps; the cascade first trains a coarse stage on both folds. Finished arms are not repeated.
"""

import argparse
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import about

from autoseg.evaluation import paired_difference
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.options import PlanOptions, Runtime, TrainingOptions, TrainOptions
from autoseg.pipeline import plan_and_preprocess, train
from autoseg.workspace import Workspace, write_json

SHAPE, NAME = (24, 24, 160), "Tubes"
SETTINGS = {"mirror": False, "bf16": False, "cpu_width": 1.0, "patch_curriculum": [], "attention_rate": 0.0}
ARMS = {"full resolution": "fullres_3d", "cascade": "cascade_3d"}


def draw(rng):
    """(image, label) of a phantom, (24, 24, 160) each."""
    z, y, x = np.indices(SHAPE)
    image = rng.normal(0.2, 0.05, SHAPE)
    begins = bool(rng.integers(2))
    at = rng.uniform(5, 10) if begins else SHAPE[2] - rng.uniform(5, 10)
    across = rng.uniform(8, 16, 2)
    image[(abs(z - across[0]) < 3) & (abs(y - across[1]) < 3) & (abs(x - at) < 3)] += 0.8
    centre, radius = (rng.uniform(9, 15), rng.uniform(9, 15), rng.uniform(70, 90)), rng.uniform(5, 7)
    ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
    image[ball] += 0.4
    return image.astype(np.float32), np.where(ball, 1 if begins else 2, 0).astype(np.uint8)


def write_tubes(folder, cases):
    """Write a data-set folder with its own two folds."""
    geometry = Geometry.from_spacing(SHAPE, (1.0, 1.0, 1.0))
    names = [f"tube_{number:02d}" for number in range(cases)]
    for number, name in enumerate(names):
        image, label = draw(np.random.default_rng([1, number]))
        write_volume(Volume(1000 * image[None], geometry), folder / "imagesTr" / f"{name}_0000.nii.gz")
        write_label_volume(LabelVolume(label, geometry), folder / "labelsTr" / f"{name}.nii.gz")
    halves = [names[::2], names[1::2]]
    write_json(folder / "splits.json", [{"train": halves[1 - n], "val": halves[n]} for n in range(2)])
    labels = {"background": 0, "first": 1, "second": 2}
    about_it = {"channel_names": {"0": "scan"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": cases}
    write_json(folder / "dataset.json", about_it)


def shrink(plan, spacing_mm, patch, strides, features):
    """The plan on another grid, with a small network."""
    stages = len(strides)
    network = replace(
        plan.network,
        name="unet",
        features=features,
        strides=strides,
        kernels=((3, 3, 3),) * stages,
        encoder_blocks=(2,) * stages,
        decoder_blocks=(2,) * (stages - 1),
        attention=(),
    )
    shape = tuple(float(edge / mm) for edge, mm in zip(SHAPE, spacing_mm, strict=True))
    return replace(
        plan,
        axis_order=(0, 1, 2),
        spacing_mm=spacing_mm,
        median_shape=shape,
        patch_size=patch,
        batch_size=2,
        network=network,
        memory_elements=1,
        mirror_axes=(),
    )


def prepare_plans(folder, workspace):
    """Write plans whose fine patches cover a fifth of a tube, and whose coarse ones cover all of it."""
    planned = plan_and_preprocess(folder, workspace, PlanOptions(planner="cascade_3d", preprocess=False))
    fine = ((1.0, 1.0, 1.0), (24, 24, 32), ((1, 1, 1), (2, 2, 2), (2, 2, 2)), (8, 16, 32))
    coarse = ((3.0, 3.0, 3.0), (8, 8, 56), ((1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 1, 2)), (8, 16, 32, 32))
    for plan in planned.plans:
        if plan.name in (*ARMS.values(), "lowres_3d"):
            write_json(workspace.plan(NAME, plan.name), shrink(plan, *(coarse if plan.name == "lowres_3d" else fine)))


def scores(folder, plan, workspace, iterations):
    """Train; mean Dice of each validation case over the structures, and the seconds it took."""
    begun = time.monotonic()
    how = TrainingOptions(plan=plan, iterations=iterations, settings=tuple(SETTINGS.items()))
    (result,) = train(folder, "0", workspace, TrainOptions(training=how), Runtime(device="cpu"))
    cases = {}
    for row in result.report.rows:
        if row["dice"] is not None:
            cases.setdefault(row.case, []).append(row["dice"])
    return {case: float(np.mean(dice)) for case, dice in cases.items()}, round(time.monotonic() - begun, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cascade.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, workspace = args.workspace.absolute() / f"Dataset901_{NAME}", Workspace(args.workspace.absolute())
    if not (folder / "dataset.json").is_file():
        write_tubes(folder, args.cases)
    if not workspace.plan(NAME, "cascade_3d").is_file():
        prepare_plans(folder, workspace)
    asked = {"cases": args.cases, "iterations": args.iterations}
    stored = json.loads(args.out.read_text()) if args.out.is_file() else {}
    stored = {"asked": asked, "arms": stored["arms"] if stored.get("asked") == asked else {}}
    for arm, plan in ARMS.items():
        if arm not in stored["arms"]:
            cases, seconds = scores(folder, plan, workspace, args.iterations)
            stored["arms"][arm] = {"mean_dice": float(np.mean(list(cases.values()))), "seconds": seconds, "dice": cases}
            write_json(args.out, {"machine": about(), **stored})
    one, other = (stored["arms"][arm]["dice"] for arm in ("cascade", "full resolution"))
    stored["cascade minus full resolution"] = vars(
        paired_difference([one[c] for c in sorted(one)], [other[c] for c in sorted(one)])
    )
    write_json(args.out, {**stored, "machine": about()})
    print(json.dumps({key: value for key, value in stored.items() if key != "machine"}, indent=1))


if __name__ == "__main__":
    main()
