"""The HTML report of many cases: its size, and the seconds to write it and to open it in headless Chromium.

    PYTHONPATH=. python benchmarks/page.py [--cases 60] [--distinct 2] [--workers 2]

Scans are noise, which no picture format compresses, with balls as structures, their surfaces, and scores of predictions that
are a voxel off; a few distinct scans are used for all cases. One set has the size of a large CT, one that of MR images of the
hippocampus. Opening is measured until the report is loaded and responds to a script; given are the minimum and the median of
several times, each in a new browser.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import about

from autoseg.data.labels import LabelSchema
from autoseg.evaluation.evaluate import evaluate_case
from autoseg.evaluation.report import summarise
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.page import Page, PageCase, write_page
from autoseg.pipeline import reconstruct
from tests.helpers.browser import Browser

LABELS = LabelSchema(("outer", "inner"), ((1,), (2,)), False, (1, 2))
SETS = {"noise": (320, 320, 320), "hippocampus": (35, 50, 36)}
TIMES = 5  # each report is opened so often


def made_up(folder, number, shape):
    """(PageCase without a name, its scores), with files of a scan, its reference and a prediction."""
    rng = np.random.default_rng(number)
    grid = Geometry.from_spacing(shape, (1.0, 1.0, 1.0))
    z, y, x = np.ix_(*[np.linspace(-1, 1, n) for n in shape])
    radius = z**2 + y**2 + x**2 + 0.05 * np.sin(9 * x + number) * np.sin(8 * y)
    truth = (radius < 0.6).astype(np.uint8) + (radius < 0.2)
    scan = (rng.normal(100, 30, shape) + 40 * truth).astype(np.int16)
    image, reference, predicted = (folder / kind / f"{number}.nii" for kind in ("images", "labels", "predicted"))
    write_volume(Volume(scan[None], grid), image)
    volumes = [LabelVolume(truth, grid), LabelVolume(np.roll(truth, 1, 2), grid)]
    for volume, path in zip(volumes, (reference, predicted), strict=True):
        write_label_volume(volume, path)
    rows = evaluate_case(reference=volumes[0], predicted=volumes[1], labels=LABELS)
    return PageCase("", (image,), reference, predicted), rows


def page_of(folder, shape, n_cases, distinct):
    made = [made_up(folder, number, shape) for number in range(distinct)]
    reconstruct(folder / "predicted", folder / "surfaces", surfaces="stl", workers=1)
    cases, rows = [], []
    for number in range(n_cases):
        case, scores = made[number % distinct]
        name, found = f"case_{number:03}", folder / "surfaces" / f"{number % distinct}.json"
        record, surfaces = json.loads(found.read_text()), found.with_name(f"{found.stem}_surfaces")
        cases.append(replace(case, id=name, record=record, surfaces=surfaces))
        rows += [replace(row, case=name) for row in scores]
    return Page(f"Evaluation of {n_cases} cases", labels=LABELS, report=summarise(rows, LABELS), cases=tuple(cases))


def opened(path, folder):
    """Minimum and median of the seconds to open a report."""
    found = []
    for number in range(TIMES):
        browser = Browser(folder / f"profile_{number}")
        try:
            found.append(browser.open(path))
            assert browser.errors == [], browser.errors
        finally:
            browser.close()
    return {"least_s": round(min(found), 2), "median_s": round(statistics.median(found), 2)}


def measured(shape, options):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page, path = page_of(folder, shape, options.cases, options.distinct), options.keep or folder
        path = path / f"{shape[0]}.html"
        begun = time.perf_counter()
        notes = write_page(page, path, workers=options.workers)
        seconds = time.perf_counter() - begun
        size = path.stat().st_size
        return {
            "shape": shape,
            "cases": options.cases,
            "megabytes": round(size / 1e6, 1),
            "notes": notes,
            "made_s": round(seconds, 1),
            "opened": opened(path, folder),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--distinct", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the pages; without it they are measured and thrown away")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "page.json")
    options = parser.parse_args()
    record = {"machine": about()}
    for name in options.sets.split(","):
        record[name] = measured(SETS[name], options)
        print(name, json.dumps(record[name]))
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
