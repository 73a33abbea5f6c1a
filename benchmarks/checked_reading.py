"""What the checks of prepared data cost in training: time to read patches with and without them.

    python benchmarks/checked_reading.py [--cases 8] [--steps 1000] [--out benchmarks/results/checked_reading.json]

Cases of noise, which compresses worst, are stored twice, once without checksums. Training patches are read from both in turn,
a hundred at a time. Timing starts with the first one, so that it includes the check of every chunk.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import about

from autoseg.imaging.geometry import Geometry
from autoseg.preprocess.case import PreparedCase, find_locations
from autoseg.preprocess.store import open_case, store_case
from autoseg.training.sampling import draw_centre, read_block

SHAPE, PATCH, BATCH, TURN = (160, 320, 320), (96, 128, 128), 2, 100


def store_both(folder, number):
    """Write a case with checksums and the same without; returns both folders."""
    rng = np.random.default_rng(number)
    codes = np.zeros(SHAPE, np.int16)
    codes[60:90, 100:160, 120:200] = 1
    image = rng.normal(size=(1, *SHAPE)).astype(np.float32)
    prepared = PreparedCase(str(number), image, codes, Geometry.from_spacing(SHAPE, (1, 1, 1)), find_locations(codes, seed=0))
    checked, plain = folder / f"checked_{number}", folder / f"plain_{number}"
    store_case(checked, prepared, "")
    shutil.copytree(checked, plain)
    record = json.loads((plain / "case.json").read_text())
    del record["seal"], record["files"]
    (plain / "case.json").write_text(json.dumps(record))
    return checked, plain


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        sides = zip(*(store_both(Path(place), number) for number in range(args.cases)), strict=True)
        sides = dict(zip(("checked", "plain"), ([open_case(folder) for folder in side] for side in sides), strict=True))
        rngs, seconds = {name: np.random.default_rng(1) for name in sides}, dict.fromkeys(sides, 0.0)
        turns = -(-args.steps * BATCH // TURN)
        for turn in range(turns):
            for name in sorted(sides, reverse=turn % 2 == 1):
                rng, cases, begun = rngs[name], sides[name], time.perf_counter()
                for _ in range(TURN):
                    case = cases[rng.integers(len(cases))]
                    read_block(case, draw_centre(rng, case, PATCH, ((1,),), rng.random() < 0.33), PATCH, (0.0,))
                seconds[name] += time.perf_counter() - begun
    result = {
        "patches": turns * TURN,
        "seconds": seconds,
        "ratio": seconds["checked"] / seconds["plain"],
        "cases": args.cases,
        "machine": about(),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
