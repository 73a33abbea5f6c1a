"""CPU time of contours with holes, and the pixels that matplotlib finds wrong in them, for this build and others.

    python benchmarks/contours.py [OTHER ...]

A disc of 480 pixels with 1 593 holes of 1 to 9 pixels represents a lung with its vessels. OTHER are checkouts.
The result is printed as JSON; ``benchmarks/results/contours.json`` is an example.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
from matplotlib.path import Path

HOLES, SIZE = 1593, 512


def lung(holes=HOLES):
    """(SIZE, SIZE) bool: a disc with holes."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIZE, SIZE)) - SIZE / 2
    mask = rows**2 + columns**2 < (0.47 * SIZE) ** 2
    places = np.argwhere(mask[8:-8:6, 8:-8:6]) * 6 + 8
    for row, column in rng.permutation(places)[:holes]:
        height, width = rng.integers(1, 4, 2)
        mask[row : row + height, column : column + width] = False
    return mask


def inside(polygon):
    """(SIZE, SIZE) bool: pixels whose centres are inside by matplotlib's test, which is inconsistent for points on an edge."""
    centres = np.indices((SIZE, SIZE)).reshape(2, -1).T
    return Path(np.vstack([polygon, polygon[:1]])).contains_points(centres).reshape(SIZE, SIZE)


def measure():
    from autoseg.imaging.dicom_rtstruct import outlines

    mask, found = lung(), np.zeros((SIZE, SIZE), bool)
    start = time.process_time()
    polygons = outlines(mask)
    seconds = time.process_time() - start
    for polygon in polygons:
        found ^= inside(polygon)
    return {"cpu_seconds": round(seconds, 3), "pixels": int(mask.sum()), "wrong_pixels": int((found != mask).sum())}


def main():
    from machine import about

    results = {"this build": measure()}
    for other in sys.argv[1:]:
        call = [sys.executable, __file__, "--measure"]
        done = subprocess.run(call, env={**os.environ, "PYTHONPATH": other}, capture_output=True, text=True, check=True)
        results[os.path.basename(other.rstrip("/"))] = json.loads(done.stdout)
    print(json.dumps({**about(), "holes": HOLES, "slice": [SIZE, SIZE], "builds": results}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
    else:
        main()
