"""Five folds of the hippocampus against published nnU-Net scores of the same cases and folds; or five folds of other data.

    python benchmarks/hippocampus_crossval.py DATA_SET --workspace DIR [--time 5m | --iterations 1500] [--at-once 3]

DATA_SET is Task04 of the Decathlon as an nnU-Net folder, whole or in part. ``--peer`` is a CSV file with a row per case and the
Dice of both structures for three networks (VARIANT_dice1, VARIANT_dice2), ``--folds`` a JSON object of fold -> its validation
cases. By default both are in ``shared/reference`` of the current folder, of its parent, or beside the repository. Cases that
are not in DATA_SET are left out of both. The raw folder is not written to: a data set in the workspace lists the raw files and
holds the folds.

Any other data set, such as the frames of ACDC, gets the folds that autoseg draws, by patient, and no comparison case by case.

The same command continues an interrupted run. Times are wall-clock seconds, summed over all calls: planning and preparation
(counted with the first fold), training, prediction and scores. Of a call that is killed, only finished folds count. A small
network leaves capacity on a large GPU for several folds at once, each in a separate process; then only their total time is
given.
"""

import argparse
import csv
import json
import logging
import statistics
import time
from pathlib import Path

from machine import about

from autoseg.data.dataset import read_dataset
from autoseg.data.splits import FOLDS
from autoseg.engines import map_cases, run_command
from autoseg.evaluation import mean_interval, paired_difference
from autoseg.options import Runtime, TrainingOptions, TrainOptions
from autoseg.options.parsing import duration, setting
from autoseg.pipeline import plan_and_preprocess, train
from autoseg.records import read_fold
from autoseg.workspace import Workspace, read_json, write_json

VARIANTS = ("ConvolutionalEncoder", "ResidualEncoderM", "ResidualEncoderL")
HERE = Path(__file__).parent
PEER, PEER_FOLDS = "hippocampus_peer_percase.csv", "hippocampus_peer_folds.json"
HIPPOCAMPUS = "Hippocampus"
PUBLISHED = {  # mean Dice of five folds of the whole data set
    HIPPOCAMPUS: {"best": 0.8946, "nnU-Net": 0.8904},  # Auto-nnU-Net, and nnU-Net in the same paper, arXiv 2505.16561
    "ACDC": {"best": 0.927},  # arXiv 2503.01835
}
LIMIT_MINUTES = 30  # for five folds


def reference(name):
    """Path of a reference file; exits with an error if it is not found."""
    places = [place / "shared" / "reference" / name for place in (Path.cwd(), Path.cwd().parent, HERE.parents[1])]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise SystemExit(f"no {name} in {', '.join(str(path.parent) for path in places)}. Name it with --peer or --folds")
    return found


def by_the_clock(path, run):
    """(``run(on_fold)``, {fold: seconds}); the seconds are kept in ``path`` from call to call."""
    clock = read_json(path) if path.is_file() else {"folds": {}, "unfinished": 0.0}
    begin = time.monotonic() - clock["unfinished"]

    def on_fold(fold):
        nonlocal begin
        if fold.fold not in clock["folds"]:
            clock["folds"][fold.fold] = round(time.monotonic() - begin, 1)
            begin = time.monotonic()
            write_json(path, {**clock, "unfinished": 0.0})

    try:
        return run(on_fold), clock["folds"]
    finally:
        write_json(path, {**clock, "unfinished": time.monotonic() - begin})


def data_set_with_folds(raw, folds, workspace):
    """Write a data-set folder to the workspace that lists the files of ``raw``, with the published folds of its cases."""
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
    """Case -> mean Dice of its structures, over the validation cases of all folds."""
    found = {}
    for fold in folds:
        for row in fold.report.rows:
            if row["dice"] is not None:  # None for a structure in neither mask
                found.setdefault(row.case, []).append(row["dice"])
    return {case: statistics.fmean(values) for case, values in found.items()}


def compared(ours, theirs):
    """Means over the cases scored by both, and their paired difference."""
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
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--folds", type=Path)
    parser.add_argument("--time", default="5m", help="of training of each fold (default 5m: five end within half an hour)")
    parser.add_argument("--iterations", type=int, help="of each fold, instead of a time")
    parser.add_argument("--at-once", type=int, default=1, help="folds that are trained at the same time (default 1)")
    parser.add_argument("--network", help="default: the plan's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the recipe")
    parser.add_argument("--name", help="of the run; needed with --set, so that its results are not taken for those of others")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="default: results/NAME_crossval.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.set and not args.name:
        parser.error("--set needs a --name")
    workspace, machine = Workspace(args.workspace.absolute()), about()
    name, folder, peer, n_folds = read_dataset(args.data_set).name, args.data_set, None, FOLDS
    if name == HIPPOCAMPUS:
        peer = args.peer or reference(PEER)
        folder = data_set_with_folds(args.data_set, read_json(args.folds or reference(PEER_FOLDS)), workspace)
        n_folds = len(read_json(folder / "splits.json"))
    length = {"iterations": args.iterations} if args.iterations else {"time": args.time}
    run = args.name or "_".join(["crossval", args.network or "default", *map(str, length.values())])

    def train_all(on_fold):
        if args.at_once > 1:
            plan_and_preprocess(folder, workspace)
            command = ["train", folder.absolute(), "--name", run, "--device", args.device]
            command += [part for name, value in length.items() for part in (f"--{name}", value)]
            command += ["--workspace", workspace.folder, *(["--network", args.network] if args.network else [])]
            command += [part for text in args.set for part in ("--set", text)]

            def train_apart(fold):
                time.sleep(3 * (fold % args.at_once))  # so that not all write the model at the same time
                return run_command([*command[:2], fold, *command[2:]], on_line=lambda line: print(f"fold {fold}: {line}"))

            map_cases(train_apart, range(n_folds), workers=args.at_once)
        return train(  # of a finished fold, it only reads the scores
            folder,
            ",".join(map(str, range(n_folds))),
            workspace,
            TrainOptions(
                network=args.network,
                training=TrainingOptions(
                    seconds=None if args.iterations else duration(args.time),
                    iterations=args.iterations,
                    settings=tuple(map(setting, args.set)),
                ),
                name=run,
            ),
            Runtime(device=args.device),
            on_fold=on_fold,
        )

    folds, seconds = by_the_clock(workspace.run(name, run) / "clock.json", train_all)
    failures = [failure for fold in folds for failure in fold.failures]
    ours = our_dice(folds)
    record = read_fold(folds[0].folder)
    result = {
        "machine": machine,
        "data_set": name,
        "device": record.device,
        "network": record.task.plan.network.name,
        **length,
        "at_once": args.at_once,
        "settings": args.set,
        "ours": {"mean": statistics.fmean(ours.values()), "interval": mean_interval(list(ours.values())), "cases": len(ours)},
        "published": PUBLISHED.get(name, {}),
        "folds": [
            {"fold": f.fold, "steps": f.steps, "training": round(f.seconds, 1)}
            | ({"seconds": seconds[f.fold]} if args.at_once == 1 else {})
            for f in folds
        ],
        "seconds": round(sum(seconds.values()), 1),
        "nnunet": {variant: compared(ours, peer_dice(peer, variant)) for variant in VARIANTS} if peer else {},
        "failures": failures,
        "per_case": ours,
    }
    out = args.out or HERE / "results" / f"{name.lower()}_crossval.json"
    write_json(out, result)
    low, high = result["ours"]["interval"]
    print(f"{name}: mean Dice {result['ours']['mean']:.4f} [{low:.4f}, {high:.4f}] of {len(ours)} cases")
    for who, dice in result["published"].items():
        print(f"published for the whole data set, {who}: {dice:.4f}")
    for variant, found in result["nnunet"].items():
        low, high = found["interval"]
        print(
            f"{variant}: ours {found['ours']:.4f}, theirs {found['theirs']:.4f}, difference {found['difference']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}], p = {found['p_value']:.2g}, {found['cases']} cases"
        )
    minutes = result["seconds"] / 60
    late = f", more than {LIMIT_MINUTES}" * (minutes > LIMIT_MINUTES)
    print(f"{minutes:.1f} min{late} by the clock for {n_folds} folds on {result['device']}: {out}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
