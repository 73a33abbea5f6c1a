"""How much work the stages that ``make bench`` times do, counted on tiny scans, so that no change makes them slower unseen.

Counts of bytes, voxels, windows and memory are the same on every machine, where seconds are not.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg.data.scan import scan_case
from autoseg.imaging.geometry import Geometry
from autoseg.inference.adaptive import grid_of
from autoseg.inference.sliding_window import Tiling
from autoseg.options import InferenceOptions, PredictOptions, Runtime
from autoseg.pipeline import plan_and_preprocess, predict
from autoseg.preprocess import case as preparing
from autoseg.preprocess.store import open_case
from autoseg.reconstruct.native import logits_to_codes
from autoseg.workspace import Workspace
from planners.plan import ChannelNormalization
from tests.helpers.datasets import Folder
from tests.helpers.models import make_plan, write_model, write_scans

SHAPES = {"a": (24, 40, 36), "b": (30, 40, 40), "c": (28, 44, 36), "d": (26, 38, 42), "e": (30, 36, 36)}
IO = Path("/proc/self/io")
NOT_FOR_A_MASK = {  # modules
    *("SimpleITK", "blosc2", "jinja2", "matplotlib", "pydicom.sr", "scipy.sparse", "scipy.spatial", "scipy.stats"),
    *("skimage", "sympy", "torch._dynamo", "trimesh", "autoseg.evaluation", "autoseg.page"),
}


@pytest.fixture
def dataset(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "Dataset001_Work", ending=".nii")
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        label = np.zeros(shape, np.int32)
        label[8:16, 8:20, 8:20], label[16:20, 10:20, 10:20] = 1, 2
        # every second scan has thinner slices than the plan
        spacing = (1.0 + (name in "bd") / 4, 1.0, 1.0)
        folder.add(name, spacing_mm=spacing, image=rng.normal(100, 20, shape) + 50 * label, label=label)
    folder.read()
    return folder


def bytes_read() -> int:
    """By this process since its start, whether from a disk or from memory."""
    return next(int(line.split()[1]) for line in IO.read_text().splitlines() if line.startswith("rchar"))


@pytest.mark.skipif(not IO.is_file(), reason="only Linux counts what a process reads")
def test_planning_and_preparing_read_a_scan_twice(dataset: Folder, tmp_path: Path) -> None:
    """To measure it and to prepare it. A second call reads it once, to see a change, and what was prepared, to see damage."""
    scans = sum(path.stat().st_size for kind in ("imagesTr", "labelsTr") for path in (dataset.path / kind).iterdir())
    workspace, times = Workspace(tmp_path / "w"), []
    for _ in range(2):
        begun = bytes_read()
        plan_and_preprocess(dataset.path, workspace, runtime=Runtime(workers=1))
        times.append((bytes_read() - begun) / scans)
    assert times[0] < 2.2
    assert times[1] < 2


def test_measuring_and_preparing_a_scan_hold_few_copies_of_it(tmp_path: Path) -> None:
    """Float32 takes 4 bytes of each voxel; to prepare it there are the scan, what is made of it, and labels."""
    folder, shape = Folder(tmp_path / "Dataset001_Large", ending=".nii.gz"), (64, 256, 256)
    label = np.zeros(shape, np.int32)
    label[8:40, 8:90, 8:90] = 1
    image = np.zeros(shape, np.float32)
    image[:, 10:, ::3] = 100 + np.arange(86)
    folder.add("a", image=image, label=label, spacing_mm=(1.0, 1.0, 1.0))
    spec, ct = folder.read(), ChannelNormalization("T1", "ct", lower=0.0, upper=140.0, input_mean=0.5, input_std=0.25)
    case, plan = spec.training[0], make_plan(normalization=(ct,))
    peaks = []
    for work in (lambda: scan_case(case, spec), lambda: preparing.prepare_case(case, spec.labels, plan)):
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1] / math.prod(shape))
        tracemalloc.stop()
    assert peaks[0] < 14, "bytes of each voxel, to measure it"
    assert peaks[1] < 11, "to prepare it"


def test_each_voxel_of_the_network_s_grid_is_resampled_once(
    dataset: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"image": 0, "codes": 0}

    def counting(kind: str, resample: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def count(*args: Any, **options: Any) -> np.ndarray:
            found = resample(*args, **options)
            made[kind] += found.size
            return found

        return count

    for kind in made:
        monkeypatch.setattr(preparing, f"resample_{kind}", counting(kind, getattr(preparing, f"resample_{kind}")))
    plan_and_preprocess(dataset.path, workspace := Workspace(tmp_path / "w"), runtime=Runtime(workers=1))
    folder = workspace.prepared("Work", "fullres_3d")
    voxels = sum(math.prod(open_case(folder / name).shape) for name in SHAPES)
    assert made == {"image": voxels, "codes": voxels}


@pytest.mark.parametrize(("mirror", "views"), [(False, 1), (True, 8)])
def test_a_prediction_computes_the_windows_of_its_grid(tmp_path: Path, mirror: bool, views: int) -> None:
    (tmp_path / "in").mkdir()
    write_scans(tmp_path / "in", 1)
    write_model(tmp_path / "model", make_plan())
    options = PredictOptions(inference=InferenceOptions(mirror=mirror))
    predict(tmp_path / "in", tmp_path / "out", str(tmp_path / "model"), options, Runtime(device="cpu", workers=1))
    tiles = math.prod(grid_of((24, 30, 20), Tiling((16, 16, 16))).size)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["windows"] == {"computed": views * tiles, "of": views * tiles}


def test_predicting_a_scan_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    """Each of these takes a tenth of a second or more, of the few seconds from the shell to a mask."""
    (tmp_path / "in").mkdir()
    write_scans(tmp_path / "in", 1)
    write_model(tmp_path / "model", make_plan())
    code = "import sys\nfrom autoseg.cli import main\nassert main(sys.argv[1:]) == 0\nprint(*sys.modules)"
    words = ["predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "-m", tmp_path / "model", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, capture_output=True, text=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert "torch" in imported
    is_old = sys.version_info < (3, 11)  # torch 2.2 and scipy 1.15 import these themselves
    assert imported & NOT_FOR_A_MASK <= ({"sympy", "scipy.sparse"} if is_old else set())


def test_the_processes_of_the_tests_share_the_cores() -> None:
    """Twice as many threads as cores wait for each other: a small training run took 28 s instead of one."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    assert torch.get_num_threads() <= max(1, (os.cpu_count() or 1) // processes)


def test_the_memory_of_an_export_does_not_grow_with_its_classes() -> None:
    """Beside the logits and the labels: a slab of each class at a time."""
    grid, peaks = Geometry.from_spacing((40, 40, 40), (1.5, 1.5, 1.5)), []
    native = grid.resized((80, 80, 80))
    for classes in (4, 30):
        logits = np.random.default_rng(0).standard_normal((classes, 40, 40, 40), np.float32)
        tracemalloc.start()
        logits_to_codes(logits, grid, native)
        peaks.append(tracemalloc.get_traced_memory()[1] / math.prod(native.shape))
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], "bytes for each voxel"
