"""A station takes scans as they come; the test turns its clock, and does something whenever it rests."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoseg.errors import AutosegError
from autoseg.inference.cohort import Predict
from autoseg.options import InferenceOptions, PredictOptions, Runtime
from autoseg.pipeline import predict, watch
from tests.helpers.dicom import random_values, write_series
from tests.helpers.models import make_plan, write_model, write_scans

ROOT = Path(__file__).parents[1]
CPU = Runtime(device="cpu", workers=1)
OPTIONS = PredictOptions(inference=InferenceOptions(mirror=False), watch=10.0)


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path / "model", make_plan())
    for name in ("in", "later"):
        (tmp_path / name).mkdir()
    write_scans(tmp_path / "later", 3)
    return tmp_path


@pytest.fixture
def station(folder, monkeypatch):
    """A function that runs a station through what is done at its rests, which are 6 seconds each, and then stops it."""
    now = [0.0]

    def run(*actions, **options):
        waiting = list(actions)

        def rest(seconds):
            now[0] += 6.0
            if not waiting:
                raise KeyboardInterrupt
            waiting.pop(0)()

        clock = SimpleNamespace(sleep=rest, monotonic=lambda: now[0], perf_counter=time.perf_counter)
        monkeypatch.setattr("autoseg.outputs.station.time", clock)
        with pytest.raises(KeyboardInterrupt):
            watch(folder / "in", folder / "out", folder / "model", OPTIONS, CPU)

    return run


def nothing():
    pass


def test_scans_are_segmented_as_they_come_by_a_model_that_is_loaded_once(folder, station, monkeypatch):
    loaded = []
    setup = Predict.setup
    monkeypatch.setattr(Predict, "setup", lambda step: loaded.append(step) or setup(step))

    def bring(name):
        return lambda: (folder / "later" / f"{name}_0000.nii.gz").rename(folder / "in" / f"{name}_0000.nii.gz")

    def bring_series():
        write_series(folder / "in" / "study", random_values((18, 18, 18)))

    station(bring("a"), bring("b"), nothing, bring_series, nothing, nothing)
    assert len(loaded) == 1
    record = json.loads((folder / "out" / "run.json").read_text())
    assert [(case["case"].split("_")[0], case["status"]) for case in record["cases"]] == [
        ("a", "done"),
        ("b", "done"),
        ("study", "done"),
    ]
    (folder / "later" / "c_0000.nii.gz").unlink()
    for name in ("a", "b"):  # as predict gives them
        predict(folder / "in" / f"{name}_0000.nii.gz", folder / "same", folder / "model", OPTIONS, CPU)
        assert (folder / "same" / f"{name}.nii.gz").read_bytes() == (folder / "out" / f"{name}.nii.gz").read_bytes()
    rows = (folder / "out" / "measurements.csv").read_text().splitlines()
    assert {re.split("[_,]", row)[0] for row in rows[1:]} == {"a", "b", "study"}


def test_a_broken_scan_is_said_once_and_tried_again_when_it_changes(folder, station, caplog):
    broken = folder / "in" / "b_0000.nii.gz"
    broken.write_bytes(b"broken")
    (folder / "later" / "a_0000.nii.gz").rename(folder / "in" / "a_0000.nii.gz")
    station(nothing, nothing, nothing, nothing)
    assert sum(message.startswith("b: failed: ") for message in caplog.messages) == 1
    assert broken.read_bytes() == b"broken"
    assert list(json.loads((folder / "out" / "station.json").read_text())["stamps"]) == ["b"]
    caplog.clear()
    station(nothing, nothing, nothing)  # started again
    assert not any(message.startswith("b: ") for message in caplog.messages)
    cases = json.loads((folder / "out" / "run.json").read_text())["cases"]
    assert [(case["case"], case["status"]) for case in cases] == [("a", "skipped")]
    station(nothing, lambda: (folder / "later" / "b_0000.nii.gz").replace(broken), nothing, nothing, nothing)
    assert (folder / "out" / "b.nii.gz").is_file()
    assert json.loads((folder / "out" / "station.json").read_text())["stamps"] == {}


def test_a_wrong_call_is_told_before_the_model_is_loaded(folder):
    def told(source="in", target="out", runtime=CPU, **changes):
        with pytest.raises(AutosegError) as caught:
            watch(folder / source, folder / target, folder / "model", PredictOptions(watch=1.0, **changes), runtime)
        return str(caught.value)

    assert "there is none of that name" in told("nowhere")
    assert "lies within the folder that is watched" in told(target="in/out")
    assert "neither --reference nor --shard" in told(shard=(0, 2))
    assert "takes no --engine dask" in told(runtime=Runtime(engine="dask"))
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_a_station_stops_in_order_when_it_is_asked_to(folder):
    words = ["predict", "--watch", "1", "-i", "in", "-o", "out", "-m", "model", "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "autoseg", *words], cwd=folder, env=env, stderr=subprocess.PIPE, text=True
    )
    (folder / "later" / "a_0000.nii.gz").rename(folder / "in" / "a_0000.nii.gz")
    until = time.monotonic() + 120
    while not (folder / "out" / "a.nii.gz").exists() and time.monotonic() < until:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; the same command goes on from here" in said
    assert json.loads((folder / "out" / "run.json").read_text())["cases"][0]["status"] == "done"
    assert not list((folder / "out").glob(".*"))
