"""Whatever is killed at whatever moment: the same command ends in the state of a run that nobody disturbed.

A few kills of each verb in the usual tests, 150 with ``-m slow``: half of them spread evenly over all changes to files,
half at random times. Compared are the names of all files and folders and the bytes in them, without times and the memory
that was needed.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from autoseg.phantoms import write_phantoms

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are killed in forks")

ROOT = Path(__file__).parents[1]
TIMES = re.compile(r"seconds|memory_mib|^date|^versions$")
TRAINING = ["--device", "cpu", "--set", "cpu_width=0.1", "--set", "checks=2", "--set", "check_cases=1", "--set", "bf16=false"]
TRAINING += ["--set", "batch_size=1", "--set", "checkpoint_minutes=1e-6", "--iterations", "3"]


class Server:
    """The process of ``kill_server``, and the folders that its commands work on."""

    def __init__(self, place):
        self.place, self.now = place, place / "now"
        script = ROOT / "tests" / "helpers" / "kill_server.py"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, script], env=environment, text=True, **pipes)

    def run(self, *arguments, **how):
        job = {"arguments": [*map(str, arguments), "--quiet"], "root": str(self.now), "said": str(self.place / "said.txt")}
        self.process.stdin.write(json.dumps(job | how) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def complete(self, *arguments):
        done = self.run(*arguments)
        assert done["status"] == 0, done["said"]
        return done

    def begin(self, state):
        """Put a kept state of the folder in its place."""
        shutil.rmtree(self.now, ignore_errors=True)
        shutil.copytree(self.place / state, self.now)

    def keep(self, state):
        shutil.copytree(self.now, self.place / state)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Server with two states of its folder: ``raw``, and ``trained`` with a model of the prepared data set."""
    server = Server(tmp_path_factory.mktemp("kills"))
    write_phantoms(server.now / "Dataset001_A", training=5, test=2, in_plane_mm=10)
    server.keep("raw")
    server.complete("plan_and_preprocess", server.now / "Dataset001_A", "--workspace", server.now / "w")
    server.keep("prepared")
    server.complete("train", "A", "0", "--workspace", server.now / "w", *TRAINING)
    server.complete("predict", "-i", server.now / "Dataset001_A", "-o", server.now / "masks", "--workspace", server.now / "w")
    server.keep("trained")
    yield server
    with server.process:
        server.process.stdin.close()


def verbs(now):
    """verb -> (state that it begins with, its arguments)."""
    raw, workspace = now / "Dataset001_A", ["--workspace", now / "w"]
    return {
        "plan_and_preprocess": ("raw", ["plan_and_preprocess", raw, *workspace]),
        "train": ("prepared", ["train", "A", "0", *workspace, *TRAINING]),
        "predict": ("trained", ["predict", "-i", raw, "-o", now / "out", "--surfaces", "stl,glb", *workspace]),
        "reconstruct": ("raw", ["reconstruct", "-i", raw / "labelsTr", "-o", now / "out"]),
        "convert": (
            "raw",
            ["convert", "folders", raw / "imagesTr", now / "out", "--labels", raw / "labelsTr", "--channels", "CT", "--copy"],
        ),
        "evaluate": ("trained", ["evaluate", "--reference", raw, "--predicted", now / "masks", "-o", now / "out", "--partial"]),
        "study": ("prepared", ["study", "A", "--folds", "0-1", *workspace, *TRAINING]),
        "compare": ("prepared", ["compare", "A", "0", "--networks", "unet,fcn", "-o", now / "out", *workspace, *TRAINING]),
    }


def timeless(value):
    """JSON without times; what the last call found done is done."""
    if isinstance(value, dict):
        kept = {key: timeless(part) for key, part in value.items() if not TIMES.search(key) and key != "seal"}
        return kept | ({"status": "done"} if kept.get("status") == "skipped" else {})
    return [timeless(part) for part in value] if isinstance(value, list) else value


def content(path):
    """What a file says, without times."""
    if path.name in ("comparison.csv", "comparison.md", "cost.png"):
        return ""  # what comparison.json says, with times among the numbers
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name == "checkpoint.safetensors":
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - not a dictionary
            return tensors, timeless(json.loads(file.metadata()["state"]))
    if path.suffix in (".html", ".md", ".csv"):
        return re.sub(r"\d+(\.\d+)?( ?(s|min|ms|MiB|GiB)\b|(?=</td>))", "", path.read_text())
    return path.read_bytes()


def state(folder):
    """{path: what it says} of all files, None for folders."""
    return {path.relative_to(folder).as_posix(): None if path.is_dir() else content(path) for path in folder.rglob("*")}


def refuse_difference(found, right, how):
    assert sorted(found) == sorted(right), how
    different = [name for name in right if found[name] != right[name]]
    assert not different, f"{how}: {different}"


def kill_and_repeat(server, verb, kills, seed):
    """Kill a verb in so many ways, each time give the same command again, and compare with a run that nobody disturbed."""
    begin, arguments = verbs(server.now)[verb]
    server.begin(begin)
    undisturbed = server.complete(*arguments)
    right, rng, killed = state(server.now), random.Random(seed), 0
    evenly = (kills + 1) // 2
    ways = [{"kill_at": 1 + round((i + 0.5) / evenly * undisturbed["changes"])} for i in range(evenly)]
    ways += [{"after": rng.uniform(0, undisturbed["seconds"])} for _ in range(kills // 2)]
    for way in ways:
        server.begin(begin)
        killed += server.run(*arguments, **way)["status"] == -9
        again = server.run(*arguments)
        assert again["status"] == 0, (verb, way, again["said"])
        refuse_difference(state(server.now), right, (verb, way))
    return killed


@pytest.mark.parametrize(
    ("verb", "kills"),
    [("plan_and_preprocess", 3), ("train", 1), ("predict", 1), ("reconstruct", 1), ("convert", 4), ("evaluate", 2)],
)
def test_a_killed_command_ends_in_the_state_of_an_undisturbed_one_when_it_is_repeated(server, verb, kills):
    assert kill_and_repeat(server, verb, kills, seed=1) >= (kills + 1) // 2


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("verb", "kills"),
    [("plan_and_preprocess", 26), ("train", 26), ("predict", 26), ("reconstruct", 24), ("convert", 24), ("evaluate", 14)]
    + [("compare", 10), ("study", 6)],
)
def test_150_kills_lose_nothing(server, verb, kills):
    assert kill_and_repeat(server, verb, kills, seed=2) >= kills // 2
