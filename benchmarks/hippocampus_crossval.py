"""Five folds of the hippocampus against published nnU-Net scores of the same cases, on the same folds.

    python benchmarks/hippocampus_crossval.py DATA_SET --peer CSV --folds JSON --time 6m --workspace DIR

DATA_SET is Task04 of the decathlon as an nnU-Net folder, whole or in part. ``--peer`` has a line per case with the Dice of
both structures by three networks (VARIANT_dice1, VARIANT_dice2), ``--folds`` an object of fold -> its validation cases.
Cases that are not in DATA_SET are left out of both. The raw folder is not written to: the workspace gets a data set of its
own that lists the raw files and holds the folds. The same command goes on where it was stopped.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

from machine import about

from autoseg.cli.common import duration
from autoseg.data.dataset import read_dataset
from autoseg.evaluation import mean_interval, paired_difference
from autoseg.pipeline import train
from autoseg.workspace import Workspace, read_json, write_json

VARIANTS = ("ConvolutionalEncoder", "ResidualEncoderM", "ResidualEncoderL")
HERE = Path(__file__).parent
REFERENCE = HERE.parents[1] / "shared" / "reference"


def data_set_with_folds(raw, folds, workspace):
    """A data-set folder in the workspace that lists the files of ``raw`` and has the published folds of its cases."""
    spec = read_dataset(raw)
    there = {case.id for case in spec.training}
    held_back = [sorted(set(cases) & there) for _, cases in sorted(folds.items())]
    listed = sorted(case for cases in held_back for case in cases)
    if len(set(listed)) < len(listed) or not all(held_back):
        raise SystemExit("expected folds that hold each case once, and some cases of each fold in the data set")
    folder = workspace.folder / "raw" / spec.folder.name
    splits = [{"train": sorted(set(listed) - set(cases)), "val": cases} for cases in held_back]
    files = {
        case.id: {"images": [str(path) for path in case.images], "label": str(case.label)}
        for case in spec.training
        if case.id in set(listed)
    }
    description = json.loads((spec.folder / "dataset.json").read_text())
    for path, value in (
        (folder / "dataset.json", {**description, "numTraining": len(listed), "dataset": files}),
        (folder / "splits.json", splits),
    ):
        if not path.is_file() or read_json(path) != value:
            write_json(path, value)
    return folder


def peer_dice(path, variant):
    """Case -> mean Dice of both structures."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["case"]: statistics.fmean(float(row[f"{variant}_dice{n}"]) for n in (1, 2)) for row in rows}


def our_dice(folds):
    """Case -> mean Dice of both structures, over the validation cases of all folds."""
    found = {}
    for fold in folds:
        for row in fold.report.rows:
            found.setdefault(row.case, []).append(row["dice"])
    return {case: statistics.fmean(values) for case, values in found.items()}


def compared(ours, theirs):
    """Both means over the cases that both scored, and their paired difference."""
    cases = sorted(set(ours) & set(theirs))
    difference = paired_difference([ours[case] for case in cases], [theirs[case] for case in cases])
    return {
        "cases": len(cases),
        "ours": statistics.fmean(ours[case] for case in cases),
        "theirs": statistics.fmean(theirs[case] for case in cases),
        "difference": difference.mean,
        "interval": [difference.low, difference.high],
        "p_value": difference.p_value,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", type=Path)
    parser.add_argument("--peer", type=Path, default=REFERENCE / "hippocampus_peer_percase.csv")
    parser.add_argument("--folds", type=Path, default=REFERENCE / "hippocampus_peer_folds.json")
    parser.add_argument("--time", default="6m", help="of each fold (default 6m: thirty minutes in all)")
    parser.add_argument("--network", help="default: the plan's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "hippocampus_crossval.json")
    args = parser.parse_args()
    workspace, machine = Workspace(args.workspace.absolute()), about()
    folder = data_set_with_folds(args.data_set, read_json(args.folds), workspace)
    n_folds = len(read_json(folder / "splits.json"))
    folds = train(
        folder,
        ",".join(map(str, range(n_folds))),
        workspace,
        network=args.network,
        seconds=duration(args.time),
        device=args.device,
        name=f"crossval_{args.network or 'default'}_{args.time}",
        say=print,
    )
    failures = [failure for fold in folds for failure in fold.failures]
    ours = our_dice(folds)
    record = read_json(folds[0].folder / "run.json")
    result = {
        "machine": machine,
        "device": record["device"],
        "network": record["task"]["plan"]["network"]["name"],
        "time": args.time,
        "ours": {"mean": statistics.fmean(ours.values()), "interval": mean_interval(list(ours.values())), "cases": len(ours)},
        "folds": [{"fold": fold.fold, "steps": fold.steps, "seconds": round(fold.seconds, 1)} for fold in folds],
        "seconds": round(sum(fold.seconds for fold in folds), 1),
        "nnunet": {variant: compared(ours, peer_dice(args.peer, variant)) for variant in VARIANTS},
        "failures": failures,
        "per_case": ours,
    }
    write_json(args.out, result)
    for variant, found in result["nnunet"].items():
        low, high = found["interval"]
        print(
            f"{variant}: ours {found['ours']:.4f}, theirs {found['theirs']:.4f}, difference {found['difference']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}], p = {found['p_value']:.2g}, {found['cases']} cases"
        )
    print(f"{result['seconds']:.0f} s of training in {n_folds} folds on {result['device']}: {args.out}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
