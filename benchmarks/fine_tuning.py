"""The gain from a model of other labels if few cases are annotated: 20 hippocampi, from such a model and from scratch.

    python benchmarks/fine_tuning.py DATA_SET --workspace DIR

DATA_SET is Hippocampus of the Decathlon. 40 cases are for scoring, and 20 cases for fine-tuning. With all others, a model is
trained on the hippocampus as one structure. The 20 cases are used to train its two parts, anterior and posterior: from scratch,
from that model, and from that model with all weights taken from it frozen for the first fifth of the steps. All arms have the
same steps and seed, and are compared case by case. Finished arms are not repeated.
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
from machine import about

from autoseg.data.dataset import read_dataset
from autoseg.evaluation import paired_difference
from autoseg.imaging.files import read_label_volume, write_label_volume
from autoseg.imaging.volume import LabelVolume
from autoseg.options import Runtime, TrainingOptions, TrainOptions
from autoseg.pipeline import train
from autoseg.workspace import Workspace, write_json

FEW, SCORED = 20, 40
ARMS = {
    "scratch": (),
    "fine-tuned": (),
    "fine-tuned, frozen at first": (("freeze", ["taken"]), ("freeze_until", 0.2)),
}


def write_sets(source, base, target):
    """Write two data-set folders of different cases of ``source``, the first with all structures as one."""
    spec = read_dataset(source)
    cases = list(np.random.default_rng(0).permutation(spec.training))
    about_it = {"channel_names": dict(enumerate(spec.channels)), "file_ending": spec.file_ending}
    few, others = cases[SCORED : SCORED + FEW], cases[SCORED + FEW :]
    for case in others:
        volume = read_label_volume(case.label)
        whole = LabelVolume((volume.data > 0).astype(np.uint8), volume.geometry)
        write_label_volume(whole, base / "labels" / f"{case.id}{spec.file_ending}")
    listing = {case.id: entry(case, base / "labels" / f"{case.id}{spec.file_ending}") for case in others}
    write_json(base / "dataset.json", {**about_it, "labels": {"background": 0, "hippocampus": 1}, "dataset": listing})
    split = {"train": sorted(case.id for case in few), "val": sorted(case.id for case in cases[:SCORED])}
    write_json(target / "splits.json", [split])
    labels = {"background": 0} | {name: group[0] for name, group in spec.labels.groups.items()}
    listing = {case.id: entry(case, case.label) for case in cases[: SCORED + FEW]}
    write_json(target / "dataset.json", {**about_it, "labels": labels, "dataset": listing})


def entry(case, label):
    return {"images": [str(path) for path in case.image_paths], "label": str(label), "patient": case.patient}


def options(steps, name, settings=(), start=None):
    return TrainOptions(training=TrainingOptions(iterations=steps, settings=settings), name=name, start=start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", type=Path)
    parser.add_argument("--steps", type=int, default=250, help="of each training")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fine_tuning.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = args.workspace.absolute()
    workspace, runtime = Workspace(folder), Runtime(device="cpu")
    base, target = folder / "Dataset902_Whole", folder / "Dataset903_Parts"
    if not (target / "dataset.json").is_file():
        write_sets(args.data_set, base, target)
    model = train(base, "all", workspace, options(args.steps, "whole"), runtime)[0].model
    stored = json.loads(args.out.read_text()) if args.out.is_file() else {}
    stored = {"steps": args.steps, "arms": stored["arms"] if stored.get("steps") == args.steps else {}}
    for number, (arm, settings) in enumerate(ARMS.items()):
        if arm not in stored["arms"]:
            start = None if arm == "scratch" else str(model)
            result = train(target, "0", workspace, options(args.steps, f"arm{number}", settings, start), runtime)[0]
            dice = {}
            for row in result.report.rows:
                dice.setdefault(row.case, []).append(row["dice"])
            cases = {case: float(np.mean(values)) for case, values in dice.items()}
            mean = float(np.mean(list(cases.values())))
            stored["arms"][arm] = {"mean_dice": mean, "steps": result.steps, "seconds": round(result.seconds), "dice": cases}
            write_json(args.out, {**stored, "machine": about()})
    scratch = stored["arms"]["scratch"]["dice"]
    for arm in list(ARMS)[1:]:
        gained = [stored["arms"][arm]["dice"][case] for case in sorted(scratch)]
        stored[f"{arm} minus scratch"] = vars(paired_difference(gained, [scratch[case] for case in sorted(scratch)]))
    write_json(args.out, {**stored, "machine": about()})
    print(json.dumps({key: value for key, value in stored.items() if key != "machine"}, indent=1))


if __name__ == "__main__":
    main()
