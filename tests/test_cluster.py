"""The engine ``dask``: what it gives is what threads give, whoever dies; and what does not fit is told at once."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from autoseg.engines import cluster, engine_of
from autoseg.errors import EngineError
from autoseg.options import PredictOptions, ReconstructOptions, Runtime, SurfaceOptions
from autoseg.pipeline import evaluate, predict, reconstruct
from tests.helpers.models import make_plan, write_model, write_scans
from tests.helpers.steps import Deadly, Square, Unready

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")

ROOT = Path(__file__).parents[1]


@contextmanager
def scheduler(workers=1):
    """The address of a scheduler on this machine, with workers in this very process, each of one thread."""
    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def address():
    with scheduler() as found:
        yield found


def contents(folder):
    """{path: bytes} of the results; of records all but the seconds."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".json":
            record = json.loads(data)
            data = json.dumps(without_seconds(record))
        found[path.relative_to(folder).as_posix()] = data
    return found


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(one) for key, one in value.items() if key != "seconds"}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value


def test_a_worker_that_is_killed_costs_nothing(tmp_path, caplog):
    killed: list[int] = []

    def kill(outcome):
        if not killed and outcome.error is None:
            killed.append(int((tmp_path / f"{outcome.name}.txt").read_text().split()[0]))
            os.kill(killed[0], signal.SIGKILL)

    engine = engine_of("dask", devices=("cuda:0", "cuda:1"))
    outcomes = engine.map(Square(tmp_path, 0.1), range(9), on_done=kill)
    assert killed != [os.getpid()]
    assert [outcome.name for outcome in outcomes] == [str(number) for number in range(9)]
    assert [outcome.value for outcome in outcomes] == [0, 1, None, 9, 16, 25, 36, 49, 64]
    assert str(outcomes[2].error) == "ValueError: two is broken"
    assert "three is odd" in caplog.messages  # said in the worker
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.txt" for number in range(9) if number != 2]
    devices = {path.read_text().split()[1] for path in tmp_path.iterdir()}
    assert devices == {"cuda:0", "cuda:1"}  # each worker has its own


def test_predictions_surfaces_and_scores_are_those_of_threads(address, tmp_path):
    write_model(model := tmp_path / "model", make_plan())
    (tmp_path / "in").mkdir()
    write_scans(tmp_path / "in", 3)
    (tmp_path / "in" / "b_0000.nii.gz").write_bytes(b"broken")
    options = PredictOptions(surfaces=SurfaceOptions(formats=("stl",)))
    for name, engine in (("threads", "local"), ("workers", f"dask:{address}")):
        runtime, folder = Runtime(device="cpu", engine=engine), tmp_path / name
        found = predict(tmp_path / "in", folder / "out", model, options, runtime)
        assert (found.done, found.skipped, len(found.failures)) == (2, 0, 1)
        made = reconstruct(folder / "out", folder / "made", ReconstructOptions(), runtime)
        assert made.failures == ()
        evaluate(folder / "out", folder / "out", folder / "scores", runtime=runtime)
    assert contents(tmp_path / "workers") == contents(tmp_path / "threads")


def test_an_engine_that_is_not_there_is_told_in_a_sentence(monkeypatch, tmp_path):
    with pytest.raises(EngineError, match=r"there is no such engine\. Known: local, dask"):
        engine_of("ray")
    with pytest.raises(EngineError, match="the local engine has no address"):
        engine_of("local:8786")
    with pytest.raises(EngineError, match="expected an address behind the colon"):
        engine_of("dask:")
    monkeypatch.setattr("autoseg.engines.choice.find_spec", lambda name: None)
    with pytest.raises(
        EngineError, match=r"distributed is not installed\. Install it with: pip install distributed cryptography"
    ):
        engine_of("dask")


def told(tmp_path, address, step=Square):
    """The error of a map, and the seconds that it took."""
    begun = time.monotonic()
    with pytest.raises(EngineError) as caught:
        engine_of(f"dask:{address}").map(step(tmp_path), range(3))
    return str(caught.value), time.monotonic() - begun


def test_where_nobody_answers_that_is_told_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.engines.cluster.CONNECT_SECONDS", 0.5)
    monkeypatch.setattr("autoseg.engines.cluster.COMING_SECONDS", 0.5)
    message, seconds = told(tmp_path, "tcp://127.0.0.1:9")
    assert "no scheduler answers there" in message
    assert "dask scheduler" in message
    assert seconds < 5
    message, seconds = told(tmp_path, tmp_path / "scheduler.json")
    assert "there is no such file" in message
    message, seconds = told(tmp_path, "nonsense://")
    assert "no scheduler answers there" in message
    with scheduler(workers=0) as address:
        message, seconds = told(tmp_path, address)
    assert "has no worker" in message
    assert seconds < 5


def test_a_worker_that_does_not_serve_is_told_with_the_remedy(address, tmp_path, monkeypatch):
    message, _ = told(tmp_path, address, Unready)
    assert "cannot begin: model.zip: there is no such model. Keep data, models and results on a disk" in message
    ours = iter([{"torch": "2.2.0"}])
    monkeypatch.setattr("autoseg.engines.bench.about", lambda: next(ours, {"torch": "2.1.0"}))
    message, _ = told(tmp_path, address)
    assert "has torch 2.1.0 instead of 2.2.0. Start the workers from the environment of this command" in message
    assert list(tmp_path.iterdir()) == []


def test_a_worker_with_other_disks_is_told(address, tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.engines.bench.os.path.exists", lambda path: False)
    message, _ = told(tmp_path, address)
    assert f"sees another folder {tmp_path} than this command" in message


@pytest.mark.slow  # four workers are started
def test_an_item_that_kills_its_workers_fails_and_the_others_are_done(tmp_path):
    outcomes = engine_of("dask", 1).map(Deadly(tmp_path), range(3))
    assert [outcome.value for outcome in outcomes] == [0, None, 4]
    assert "4 workers died while they computed it" in str(outcomes[1].error)


@pytest.fixture
def apart(tmp_path):
    """The file of a scheduler in a process of its own, with one worker in another, and these processes."""
    place = tmp_path / "scheduler.json"
    common = ["--scheduler-file", place, "--no-dashboard", "--host", "127.0.0.1"]
    commands = (["dask_scheduler", *common, "--port", "0"], ["dask_worker", *common, "--nthreads", "1", "--memory-limit", "0"])
    words = [[sys.executable, "-m", f"distributed.cli.{module}", *map(str, more)] for module, *more in commands]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT, env=env) for command in words]
    until = time.monotonic() + 60
    while not place.exists() and time.monotonic() < until:
        time.sleep(0.1)
    yield place, processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_scheduler_that_dies_is_told_and_what_was_finished_stays(apart, tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.engines.cluster.COMING_SECONDS", 90.0)
    place, processes = apart
    seen = []

    def done(outcome):
        seen.append(outcome.name)
        if len(seen) == 2:
            processes[0].kill()

    engine = engine_of(f"dask:{place}")
    begun = time.monotonic()
    with pytest.raises(EngineError, match="is lost. What was finished stays; start it again and give the same command"):
        engine.map(Square(tmp_path, 0.5), [0, 1, *range(4, 40)], on_done=done)
    assert time.monotonic() - begun < 45
    assert {f"{name}.txt" for name in seen} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("deaths", [1, 3])
def test_workers_that_die_as_they_start_are_started_again(deaths, caplog):
    """distributed 2026.8.0 raises RuntimeError where a worker is killed before it has told the scheduler of itself."""
    left = [deaths]

    def start():
        if left[0]:
            left[0] -= 1
            raise RuntimeError("Nanny failed to start.")
        return "a cluster"

    if deaths < cluster.STARTS:
        assert cluster._started(start) == "a cluster"
    else:
        with pytest.raises(EngineError, match=r"do not start: .*Nanny failed to start.*3 times.*--engine local"):
            cluster._started(start)
    assert len([message for message in caplog.messages if "starting them again" in message]) == min(deaths, cluster.STARTS - 1)
