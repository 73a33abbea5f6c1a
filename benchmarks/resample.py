"""Our resampling against the simple way: scikit-image's resize, one channel or one label at a time.

    python benchmarks/resample.py [--before 200 256 256] [--after 300 205 205] [--labels 8] [--repeat 2]

Prints a table and writes it, with machine and versions, as JSON beside this file. Both ways run in this process, one after the
other, with as many threads as the environment allows. ``difference`` is the largest difference of intensities relative to
their range, or the fraction of voxels with another label.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
from machine import about
from scipy import ndimage
from skimage.transform import resize

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import axis_matrix, resample_codes, resample_image


def phantom(shape, n_labels, rng):
    """(image (1, Z, Y, X) float32, codes (Z, Y, X) int16): smooth noise in a body, and one ellipsoid for each label."""
    image = 200 * ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), 2)
    grid = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    image[sum(axis**2 for axis in grid) > 0.9] = -1000
    codes = np.zeros(shape, np.int16)
    for code in range(1, n_labels + 1):
        centre, radii = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.08, 0.3, 3)
        codes[sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) < 1] = code
    return image[None], codes


def resize_image(image, shape):
    return np.stack([resize(c.astype(float), shape, order=3, mode="edge", anti_aliasing=False, clip=False) for c in image])


def resize_codes(codes, shape):
    """One-hot, linear, argmax; only the best label so far is kept, so that memory does not affect the comparison."""
    best, result = np.full(shape, -1.0), np.zeros(shape, np.int16)
    for code in np.unique(codes):
        weight = resize((codes == code).astype(float), shape, order=1, mode="edge", anti_aliasing=False, clip=False)
        result[weight > best] = code
        best = np.maximum(best, weight)
    return result


def seconds(function, repeat):
    """(fastest run in seconds, result of the last run); each run builds our matrices again."""
    times = []
    for _ in range(repeat):
        axis_matrix.cache_clear()
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=int, nargs=3, default=(200, 256, 256))
    parser.add_argument("--after", type=int, nargs=3, default=(300, 205, 205))
    parser.add_argument("--labels", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "resample.json")
    options = parser.parse_args()

    image, codes = phantom(options.before, options.labels, np.random.default_rng(0))
    geometry = Geometry.from_spacing(options.before, (1.5, 0.8, 0.8))
    onto = geometry.resized(options.after)
    contest = {
        "image, cubic": (
            lambda: resample_image(image, geometry, onto, (3, 3, 3)),
            lambda: resize_image(image, onto.shape),
            lambda ours, theirs: float(np.abs(ours - theirs).max() / np.ptp(theirs)),
        ),
        f"{options.labels} labels, linear": (
            lambda: resample_codes(codes, geometry, onto, (1, 1, 1)),
            lambda: resize_codes(codes, onto.shape),
            lambda ours, theirs: float((ours != theirs).mean()),
        ),
    }
    rows = []
    print(f"{'':20}{'autoseg s':>10}{'skimage s':>10}{'times faster':>14}{'difference':>12}")
    for name, (ours, theirs, difference) in contest.items():
        our_s, our_result = seconds(ours, options.repeat)
        their_s, their_result = seconds(theirs, options.repeat)
        row = {"what": name, "autoseg_s": our_s, "skimage_s": their_s, "times_faster": their_s / our_s}
        rows.append({**row, "difference": difference(our_result, their_result)})
        print(f"{name:20}{our_s:10.2f}{their_s:10.2f}{their_s / our_s:14.1f}{rows[-1]['difference']:12.1e}")
    threads = os.environ.get("OMP_NUM_THREADS")
    record = {"machine": about() | {"OMP_NUM_THREADS": threads}, "before": list(options.before), "after": list(options.after)}
    record["rows"] = rows
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
