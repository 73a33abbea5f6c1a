"""Our fold against nnU-Net's on the same validation cases: mean Dice of each, and the paired difference.

    python benchmarks/against_nnunet.py SUMMARY METRICS

SUMMARY is nnU-Net's ``fold_0/validation/summary.json``, METRICS our ``fold_0/validation/metrics.json``. How long each was
trained is up to you: state it with ``--note``, which is stored.
"""

import argparse
import json
import statistics
from pathlib import Path

from machine import about

from autoseg.evaluation import paired_difference
from autoseg.workspace import read_json, write_json


def nnunet_dice(path):
    """Case -> mean Dice over labels."""
    cases = json.loads(path.read_text())["metric_per_case"]  # it may hold NaN, which read_json refuses
    return {
        Path(case["prediction_file"]).name.split(".")[0]: statistics.fmean(label["Dice"] for label in case["metrics"].values())
        for case in cases
    }


def our_dice(path):
    """Case -> mean Dice over structures."""
    found = {}
    for row in read_json(path)["cases"]:
        found.setdefault(row["case"], []).append(row["values"]["dice"])
    return {case: statistics.fmean(values) for case, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "against_nnunet.json")
    args = parser.parse_args()
    theirs, ours = nnunet_dice(args.summary), our_dice(args.metrics)
    if theirs.keys() != ours.keys():
        raise SystemExit(f"cases differ: only one side has {', '.join(sorted(theirs.keys() ^ ours.keys()))}")
    cases = sorted(ours)
    difference = paired_difference([ours[case] for case in cases], [theirs[case] for case in cases])
    result = {
        "machine": about(),
        "note": args.note,
        "dice": {"autoseg": statistics.fmean(ours.values()), "nnunet": statistics.fmean(theirs.values())},
        "difference": vars(difference),
        "cases": {case: {"autoseg": ours[case], "nnunet": theirs[case]} for case in cases},
    }
    write_json(args.out, result)
    print({key: value for key, value in result.items() if key != "cases"})


if __name__ == "__main__":
    main()
