"""How time, memory and storage grow with cases, voxels, classes and folds, compared with the expected growth.

    PYTHONPATH=. python benchmarks/cost_curves.py [--small] [--out benchmarks/results/cost_curves.json] [--most-seconds 900]

Each point is a command of autoseg in a separate process, on synthetic scans: wall-clock seconds, peak memory and bytes written.
Points are stored one by one, and a second call measures the missing ones. A point that is expected to take longer than
--most-seconds, by the expected growth from the point before, is left out and marked so. Growth is the exponent of a power law,
fitted to what the points of a curve take beyond its first one. `expected` was written down before any measurement.

Models have random weights: a network costs the same whatever it has learned. Their masks are more ragged than organs, so the
bytes written are overestimated rather than underestimated. The small network has 8, 16 and 32 features and windows of 32
voxels, to measure everything except the network. The large one has the features of a plan for a GPU (32 to 320) and windows of
96 voxels. Neither uses mirroring.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import about

from autoseg.data.labels import LabelSchema
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.inference.bundle import save_bundle
from autoseg.networks import build_network
from autoseg.workspace import write_json
from planners.plan import ChannelNormalization, NetworkSpec, Plan, Resampling

ROOT = Path(__file__).parents[1]
EDGE = 48
# name -> (features, edge of the window): see above
NETWORKS = {"small": ((8, 16, 32), 32), "large": ((32, 64, 128, 256, 320), 96)}
QUANTITIES = ("seconds", "memory_mib", "written_mib")


@dataclass(frozen=True)
class Curve:
    """A curve to measure.

    Attributes:
        what: the command.
        over: the quantity that grows.
        points: its values; ``small`` are those for a quick test.
        expected: exponents of (seconds, memory, bytes written).
        measure: (folder for the point, value) -> (arguments of the command, the folder that it writes to).
    """

    what: str
    over: str
    points: tuple[int, ...]
    small: tuple[int, ...]
    expected: tuple[float, float, float]
    measure: Callable[[Path, int], tuple[list[str], Path]]

    @property
    def name(self) -> str:
        return f"{self.what} over {self.over}"


def scan_of(edge: int, seed: int) -> tuple[Volume, LabelVolume]:
    """(a ball in noise, its mask); (edge, edge, edge) voxels of 1 mm."""
    rng, geometry = np.random.default_rng(seed), Geometry.from_spacing((edge,) * 3, (1.0, 1.0, 1.0))
    along = np.arange(edge, dtype=np.float32) - edge / 2 + rng.uniform(-3, 3)
    squares = along**2
    inside = squares[:, None, None] + squares[None, :, None] + squares[None, None, :] < (edge / 4) ** 2
    image = rng.standard_normal((edge,) * 3, dtype=np.float32)
    image *= 0.05
    image += 0.25 + 0.5 * inside
    return Volume(image[None], geometry), LabelVolume(inside.astype(np.uint8), geometry)


def write_scans(folder: Path, count: int, edge: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        write_volume(scan_of(edge, number)[0], folder / f"scan{number:04d}_0000.nii.gz")
    return folder


def write_dataset(folder: Path, count: int, edge: int) -> Path:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image, labels = scan_of(edge, number)
        write_volume(image, folder / "imagesTr" / f"scan{number:04d}_0000.nii.gz")
        write_label_volume(labels, folder / "labelsTr" / f"scan{number:04d}.nii.gz")
    about_it = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}, "numTraining": count}
    (folder / "dataset.json").write_text(json.dumps({**about_it, "file_ending": ".nii.gz"}))
    return folder


def write_model(folder: Path, classes: int, folds: int, kind: str) -> Path:
    features, window = NETWORKS[kind]
    deeper = len(features) - 1
    network = NetworkSpec(
        name="unet",
        in_channels=1,
        out_channels=classes,
        features=features,
        strides=((1, 1, 1), *((2, 2, 2),) * deeper),
        kernels=((3, 3, 3),) * len(features),
        encoder_blocks=(2,) * len(features),
        decoder_blocks=(2,) * deeper,
        input_mean=(0.5,),
        input_std=(0.25,),
    )
    plan = Plan(
        name="curve",
        dataset="Curves",
        planner="fullres_3d",
        preset="classic",
        axis_order=(0, 1, 2),
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(float(EDGE),) * 3,
        patch_size=(window,) * 3,
        batch_size=2,
        batch_dice=False,
        normalization=(ChannelNormalization("MRI", "none", input_mean=0.5, input_std=0.25),),
        resampling=Resampling(),
        mirror_axes=(),
        iterations=1,
        network=network,
        memory_elements=1,
    )
    weights = {}
    for fold in range(folds):
        torch.manual_seed(fold)
        weights[str(fold)] = build_network(network).state_dict()
    names = tuple(f"structure_{number}" for number in range(1, classes))
    values = tuple(range(1, classes))
    labels = LabelSchema(names, tuple((value,) for value in values), False, values)
    save_bundle(folder, plan=plan, labels=labels, channels=("MRI",), weights=weights, info={})
    return folder


def prediction(
    place: Path, *, cases: int = 1, edge: int = EDGE, classes: int = 2, folds: int = 1, kind: str = "small"
) -> tuple[list[str], Path]:
    scans, target = write_scans(place / "in", cases, edge), place / "out"
    model = write_model(place / "model", classes, folds, kind)
    return ["predict", "-i", str(scans), "-o", str(target), "-m", str(model), "--device", "cpu", "--workers", "2"], target


def planned(place: Path, cases: int) -> tuple[list[str], Path]:
    dataset, target = write_dataset(place / "Dataset001_Curves", cases, 24), place / "workspace"
    return ["plan_and_preprocess", str(dataset), "--workspace", str(target), "--workers", "2"], target


def scored(place: Path, cases: int) -> tuple[list[str], Path]:
    labels, target = write_dataset(place / "Dataset001_Curves", cases, 24) / "labelsTr", place / "scores"
    return ["evaluate", "--reference", str(labels), "--predicted", str(labels), "-o", str(target), "--workers", "2"], target


CURVES = (
    Curve("plan_and_preprocess", "cases", (10, 30, 100, 300, 1000), (3, 10, 30), (1, 0, 1), planned),
    Curve(
        "predict", "cases", (10, 30, 100, 300, 1000), (2, 6), (1, 0, 1), lambda place, n: prediction(place, cases=n, edge=24)
    ),
    Curve("evaluate", "cases", (10, 30, 100, 300, 1000), (3, 10, 30), (1, 0, 1), scored),
    Curve(
        "predict",
        "voxels along an edge",
        (64, 96, 128, 192, 256, 384, 512, 768),
        (32, 48, 64),
        (3, 3, 3),
        lambda place, edge: prediction(place, edge=edge),
    ),
    Curve(
        "predict, large network",
        "voxels along an edge",
        (96, 144, 192, 240, 288),
        (64,),
        (3, 3, 3),
        lambda place, edge: prediction(place, edge=edge, kind="large"),
    ),
    Curve(
        "predict",
        "classes",
        (2, 8, 30, 60, 120),
        (2, 8),
        (1, 1, 0),
        lambda place, classes: prediction(place, edge=96, classes=classes),
    ),
    Curve("predict", "folds", (1, 2, 3, 4, 5), (1, 2), (1, 0, 0), lambda place, folds: prediction(place, edge=64, folds=folds)),
)


def run(words: Sequence[str], target: Path) -> dict[str, float]:
    """Seconds, peak memory and bytes written of a command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call, begun = [sys.executable, "-m", "autoseg", *words, "--quiet"], time.perf_counter()
    process = subprocess.Popen(call, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.stderr.read() if process.stderr else ""
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode:
        raise SystemExit(f"{words[0]} ended with status {process.returncode}\n{said[-2000:]}")
    written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return {
        "seconds": round(time.perf_counter() - begun, 2),
        "memory_mib": round(usage.ru_maxrss / 1024, 1),
        "written_mib": round(written / 2**20, 4),
    }


def growth(points: Sequence[dict[str, float]], quantity: str) -> float | None:
    """The exponent over all points above the first, which is subtracted from the others.

    0 if fewer than two of them grew by over 2 %; None if there are fewer than three points to tell.
    """
    first, later = points[0], points[1:]
    scale = [(point["at"] / first["at"], point[quantity] - first[quantity]) for point in later]
    grown = [(at, more) for at, more in scale if more > 0.02 * first[quantity]]
    if len(grown) < 2:
        return 0.0 if len(later) >= 2 else None
    # y(x) - y(x0) = c (x^p - x0^p): the exponent on a grid that fits best
    exponents = np.linspace(0.05, 4, 400)
    ats, mores = (np.array(values) for values in zip(*grown, strict=True))
    errors = [np.std(np.log(mores) - np.log(ats**exponent - 1)) for exponent in exponents]
    return round(float(exponents[int(np.argmin(errors))]), 2)


def expected_seconds(curve: Curve, points: Sequence[dict[str, Any]], value: int) -> float:
    """Seconds that the next point will take, by the expected growth from the last measured one."""
    measured = [point for point in points if "seconds" in point]
    if not measured:
        return 0.0
    return float(measured[-1]["seconds"] * (value / measured[-1]["at"]) ** curve.expected[0])


def measure(curve: Curve, values: Sequence[int], found: dict[str, Any], most: float, save: Callable[[], None]) -> None:
    """Measure the missing points; ``found`` holds all points, and ``save`` writes it."""
    points: list[dict[str, Any]] = found.setdefault("points", [])
    for value in values:
        if any(point["at"] == value and "seconds" in point for point in points):
            continue
        points[:] = [point for point in points if point["at"] != value]
        seconds = expected_seconds(curve, points, value)
        if seconds > most:
            points.append({"at": value, "left_out": f"expected to take {seconds:.0f} s"})
        else:
            with tempfile.TemporaryDirectory() as name:
                points.append({"at": value, **run(*curve.measure(Path(name), value))})
        points.sort(key=lambda point: point["at"])
        print(curve.name, points[-1], flush=True)
        done = [point for point in points if "seconds" in point]
        found["expected"] = dict(zip(QUANTITIES, curve.expected, strict=True))
        found["measured"] = {quantity: growth(done, quantity) for quantity in QUANTITIES} if len(done) > 2 else None
        save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--small", action="store_true", help="few small points of each curve, to see that it runs; for another --out"
    )
    parser.add_argument("--most-seconds", type=float, default=900.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out: Path | None = options.out
    result: dict[str, Any] = json.loads(out.read_text()) if out and out.is_file() else {"machine": about(), "curves": {}}

    def save() -> None:
        if out:
            write_json(out, result)

    for curve in CURVES:
        values = curve.small if options.small else curve.points
        measure(curve, values, result["curves"].setdefault(curve.name, {}), options.most_seconds, save)
    print(json.dumps(result["curves"], indent=1))


if __name__ == "__main__":
    main()
