"""The commands of the README on the hippocampus, as a user runs them: seconds, memory and scores.

    python benchmarks/hippocampus.py DATA_SET --time 20m --workspace DIR

Commands run one after the other, each in a separate process; a training run that is finished in the workspace is not repeated.
The validation cases are predicted again from their files, to time prediction separately.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from machine import about

from autoseg.evaluation import read_report
from autoseg.records import read_fold, read_validations
from autoseg.workspace import write_json


def measured(*arguments):
    """Run one command of autoseg: wall-clock seconds and peak memory in MiB."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "autoseg", *map(str, arguments)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"autoseg {' '.join(map(str, arguments))} ended with status {os.waitstatus_to_exitcode(status)}")
    return {"seconds": round(time.monotonic() - begun, 1), "memory_mib": usage.ru_maxrss // 1024}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", type=Path)
    parser.add_argument("--time", default="20m")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "hippocampus.json")
    args = parser.parse_args()
    workspace = ("--workspace", args.workspace)
    machine = about()
    planned = measured("plan_and_preprocess", args.data_set, "--fresh", *workspace)
    name = args.data_set.resolve().name.split("_", 1)[1]
    trained = measured("train", name, "0", "--time", args.time, *workspace)

    run = args.workspace / "runs" / name / "fullres_3d_self_attention_unet" / "fold_0"
    scans, out = args.workspace / "validation_scans", args.workspace / "validation_predictions"
    for folder in (scans, out):
        shutil.rmtree(folder, ignore_errors=True)
    scans.mkdir()
    cases = read_fold(run).task.validation
    for case in cases:
        shutil.copy(args.data_set / "imagesTr" / f"{case}_0000.nii.gz", scans)
    predicted = measured("predict", "-i", scans, "-o", out, *workspace)
    report, last = read_report(run / "validation" / "metrics.json"), read_validations(run / "history.jsonl")[-1]
    write_json(
        args.out,
        {
            "machine": machine,
            "training_time": args.time,
            "plan_and_preprocess": planned,
            "train": {**trained, "steps": last.step},
            "predict": {**predicted, "cases": len(cases)},
            "scores": {name: report.summary(name, "dice").mean for name in report.labels.structures},
        },
    )
    print(args.out.read_text())


if __name__ == "__main__":
    main()
