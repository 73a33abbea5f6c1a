"""How often a held-out scan is reported as unlike the training scans, and how often one that really is unlike.

    python benchmarks/unlike.py DATA_SET [DATA_SET ...]

False alarms: ten times, a random part of the cases is taken as training scans, and each of the others is compared with them.
Detection: scans that were changed on purpose, and those of the other data sets, are compared with all cases.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from machine import about

from autoseg.data.dataset import read_dataset
from autoseg.data.measure import measure_fingerprint
from autoseg.data.scan import scan_dataset
from autoseg.data.unlike import training_scans, unlike
from autoseg.imaging.files import read_volume
from autoseg.imaging.volume import Volume
from autoseg.options import PlanOptions
from autoseg.plans import make_plans
from autoseg.preprocess.facts import scan_facts
from autoseg.workspace import Workspace, write_json

REPEATS, FEW, CHANGED = 10, 10, 12  # repeats, cases of a small training set, scans that are changed


def changes(volume):
    """Yield (name of a change, changed Volume)."""
    data, grid = volume.data, volume.geometry
    order, _ = grid.canonical()
    for axis, name in enumerate("zyx"):
        edge = grid.shape[order[axis]]
        lower, shape = [0, 0, 0], list(grid.shape)
        lower[order[axis]], shape[order[axis]] = edge // 4, max(1, edge // 2)
        box = tuple(slice(a, a + n) for a, n in zip(lower, shape, strict=True))
        yield f"middle half along {name}", Volume(data[(slice(None), *box)], grid.cropped(lower, shape))
    coarse = [max(1, edge // 4) for edge in grid.shape]
    picked = [np.minimum(np.arange(n) * 4 + 2, edge - 1) for n, edge in zip(coarse, grid.shape, strict=True)]
    yield "voxels 4 times as large", Volume(data[np.ix_(range(len(data)), *picked)], grid.resized(coarse))
    highest, lowest = data.max(axis=(1, 2, 3), keepdims=True), data.min(axis=(1, 2, 3), keepdims=True)
    yield "contrast inverted", Volume(highest + lowest - data, grid)
    yield "scaled to 0 to 1", Volume((data - lowest) / np.maximum(highest - lowest, 1e-6), grid)
    yield "1024 added", Volume(data + 1024, grid)
    if len(data) == 4:
        yield "channels 0 and 2 exchanged", Volume(data[[2, 1, 0, 3]], grid)
        yield "channels 2 and 3 exchanged", Volume(data[[0, 1, 3, 2]], grid)


def is_told(volume, plan, known):
    return unlike(scan_facts(volume, plan), known, plan.normalization) if len(volume.data) == len(plan.normalization) else ()


def false_alarms(spec, scans, plan, part):
    """Fraction of held-out scans reported as unlike, and how often by which quantity; ``part``: number of training scans."""
    rng, found, looked = np.random.default_rng(0), Counter(), 0
    alarms = 0
    facts = {case.id: scan_facts(read_volume(case.images), plan) for case in spec.training}
    for _ in range(REPEATS):
        order = rng.permutation(len(scans))
        known = training_scans(spec.channels, [scans[i] for i in order[:part]])
        for i in order[part:]:
            told = unlike(facts[scans[i].case], known, plan.normalization)
            alarms, looked = alarms + bool(told), looked + 1
            found.update(one.quantity for one in told)
    return {"learned_from": part, "looked_at": looked, "share": round(alarms / looked, 4), "quantities": dict(found)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_sets", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "unlike.json")
    args = parser.parse_args()
    results, specs = {}, [read_dataset(folder) for folder in args.data_sets]
    for spec in specs:
        scans = scan_dataset(spec)
        plan, _, _ = make_plans(Workspace(Path("nowhere")), measure_fingerprint(spec, scans), PlanOptions(), True)
        n, known = len(scans), training_scans(spec.channels, scans)
        alarms = [false_alarms(spec, scans, plan, part) for part in (n * 4 // 5, FEW) if 2 < part < n]
        told = {}
        for case in spec.training[:: max(1, n // CHANGED)][:CHANGED]:
            for name, volume in changes(read_volume(case.images)):
                told.setdefault(name, []).append(is_told(volume, plan, known))
        for other in specs:
            if other is not spec and len(other.channels) == len(spec.channels):
                some = other.training[:: max(1, len(other.training) // CHANGED)][:CHANGED]
                told[other.name] = [is_told(read_volume(case.images), plan, known) for case in some]
        results[spec.name] = {
            "cases": n,
            "false_alarms": alarms,
            "told": {name: f"{sum(map(bool, each))} of {len(each)}" for name, each in told.items()},
            "for_example": {name: [str(one) for one in each[0]] for name, each in told.items()},
        }
        print(spec.name, results[spec.name], flush=True)
    write_json(args.out, {"machine": about(), "data_sets": results})


if __name__ == "__main__":
    main()
