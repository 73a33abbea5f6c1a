"""``torchrun -m autoseg train``: one training, however many processes, and whichever of them dies."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from autoseg.phantoms import write_phantoms
from tests.helpers.kills import TRAINING

ROOT = Path(__file__).parents[1]
STEPS = 6
WORDS = [*TRAINING, "--set", "batch_size=2", "--set", f"checks={STEPS}", "--set", "check_cases=3", "--set", "divide_batch=true"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("raw") / "Dataset001_Balls", training=8, test=0, in_plane_mm=6)


def command(dataset, workspace, *, ranks, restarts=0, steps=STEPS, device="cpu"):
    words = ["-m", "autoseg", "train", str(dataset), "0", "--workspace", str(workspace), *WORDS, "--iterations", str(steps)]
    words += ["--device", device]
    if ranks > 1:
        started = ["--nproc-per-node", str(ranks), "--max-restarts", str(restarts), "--master-port", "0"]
        words = ["-m", "torch.distributed.run", "--standalone", *started, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *words], env=environment, **pipes)


def finished(process, status=0):
    out, said = process.communicate(timeout=300)
    assert process.returncode == status, said
    return out, said


def fold_of(workspace):
    (found,) = workspace.glob("runs/*/*/fold_0")
    return found


def history(workspace):
    rows = [json.loads(line) for line in (fold_of(workspace) / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def rank_of(process, index):
    """The process identifier of a rank that torchrun started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = re.search(rf"^PPid:\s+{process.pid}$", (folder / "status").read_text(), re.MULTILINE)
            if mine and f"RANK={index}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes of torchrun in /proc")
def test_two_processes_train_as_one_and_go_on_where_one_of_them_was_killed(dataset, tmp_path):
    finished(command(dataset, tmp_path / "one", ranks=1))
    out, said = finished(command(dataset, tmp_path / "two", ranks=2))
    alone, together = history(tmp_path / "one"), history(tmp_path / "two")
    assert len(alone) == len(together) == STEPS
    for row, other in zip(alone, together, strict=True):
        for key in ("train_loss", "validation_loss"):
            assert other[key] == pytest.approx(row[key], abs=1e-5)
        assert other["patch_dice"] == pytest.approx(row["patch_dice"], abs=1e-3)  # a voxel on the edge may fall to either side
    assert out.count("fold 0: 6 steps") == 1 == said.count(f"step {STEPS} ")  # one voice
    names = [sorted(str(p.relative_to(fold_of(place))) for p in fold_of(place).rglob("*")) for place in tmp_path.iterdir()]
    assert names[0] == names[1]

    killed = command(dataset, tmp_path / "killed", ranks=2, restarts=1)
    end, done = time.monotonic() + 120, False
    while not done and time.monotonic() < end:
        time.sleep(0.02)
        found = list((tmp_path / "killed").glob("runs/*/*/fold_0/history.jsonl"))
        if found and len(found[0].read_text().splitlines()) >= 2 and (found[0].parent / "checkpoint.safetensors").is_file():
            os.kill(rank_of(killed, 1), signal.SIGKILL)
            done = True
    assert done
    _, said = finished(killed)
    assert "resuming at step" in said
    assert history(tmp_path / "killed") == together


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes of torchrun in /proc")
def test_a_rank_that_is_asked_to_stop_stops_all_at_one_step(dataset, tmp_path):
    process = command(dataset, tmp_path, ranks=2, steps=100_000)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/fold_0/checkpoint.safetensors")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said.count("stopped at step") == 1
    assert said.count("interrupted; the same command goes on from here") == 1


@pytest.mark.gpu
def test_two_gpus_train_as_one(dataset, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    finished(command(dataset, tmp_path / "one", ranks=1, device="cuda:0"))
    finished(command(dataset, tmp_path / "two", ranks=2, device="cuda"))
    for row, other in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        for key in ("train_loss", "validation_loss"):
            assert other[key] == pytest.approx(row[key], abs=1e-3)  # TF32, and noise that is drawn on the device
