"""Which normalisation is better: intensities clipped and scaled to [0, 1], or nnU-Net's z-score.

    python benchmarks/normalization.py DATA_SET [DATA_SET ...] --iterations 400 --workspace DIR

Each data set is trained twice on fold 0 with the same seed, hence the same cases, patches and augmentations; only the
normalisation differs. The validation cases are compared in pairs. ``--spacing`` and ``--patch`` make training on large data
feasible on a CPU; both sides get the same.
"""

import argparse
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

from machine import about

from autoseg.evaluation import paired_difference
from autoseg.options import PlanOptions, Runtime, TrainingOptions, TrainOptions
from autoseg.pipeline import plan_and_preprocess, train
from autoseg.workspace import Workspace, read_record, write_json
from planners import Plan


def variants(plan, spacing_mm, patch):
    """The plan unchanged and with the z-score, both with the given spacing and patch."""
    if spacing_mm:
        plan = replace(plan, spacing_mm=tuple(spacing_mm))
    if patch:
        plan = replace(plan, patch_size=tuple(patch))
    unit = replace(plan, name=f"{plan.name}_unit")
    zscore = tuple(replace(how, scheme="zscore", input_mean=0.0, input_std=1.0) for how in plan.normalization)
    ones = (1.0,) * len(zscore)
    network = replace(plan.network, input_mean=tuple(0.0 for _ in ones), input_std=ones)
    return unit, replace(plan, name=f"{plan.name}_zscore", normalization=zscore, network=network)


def scores(plan, folder, workspace, iterations):
    """Train; mean Dice over the structures of each validation case, and the seconds it took."""
    path = workspace.plan(folder.name.split("_", 1)[1], plan.name)
    write_json(path, plan)
    begun = time.monotonic()
    options = TrainOptions(training=TrainingOptions(plan=plan.name, iterations=iterations))
    result = train(folder, "0", workspace, options, Runtime(device="cpu"))[0]
    cases = {}
    for row in result.report.rows:
        if row["dice"] is not None:
            cases.setdefault(row.case, []).append(row["dice"])
    return {case: sum(dice) / len(dice) for case, dice in cases.items()}, time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_sets", nargs="+", type=Path)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--spacing", type=float, nargs=3)
    parser.add_argument("--patch", type=int, nargs=3)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "normalization.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stored = json.loads(args.out.read_text()) if args.out.is_file() else {"data_sets": {}}
    for folder in args.data_sets:
        workspace = Workspace(args.workspace.absolute())
        planned = plan_and_preprocess(folder, workspace, PlanOptions(preprocess=False))
        base = read_record(Plan, workspace.plan(planned.dataset.name, planned.plan.name))
        unit, zscore = (
            scores(p, folder.resolve(), workspace, args.iterations) for p in variants(base, args.spacing, args.patch)
        )
        cases = sorted(unit[0])
        gain = paired_difference([unit[0][c] for c in cases], [zscore[0].get(c) for c in cases])
        row = {
            "cases": len(cases),
            "iterations": args.iterations,
            "spacing_mm": args.spacing or list(base.spacing_mm),
            "patch": args.patch or list(base.patch_size),
            "unit_dice": sum(unit[0].values()) / len(cases),
            "zscore_dice": sum(zscore[0].values()) / len(cases),
            "difference": gain.mean,
            "interval": [gain.low, gain.high],
            "p_value": gain.p_value,
            "seconds": [round(unit[1]), round(zscore[1])],
        }
        stored["data_sets"][planned.dataset.name] = row
        write_json(args.out, {"machine": about(), **stored} | {"machine": about()})
        print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
