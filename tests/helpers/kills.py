"""Commands that are killed or asked to stop at chosen moments, given again, and compared with an undisturbed run.

The names of all files and folders and their contents are compared, without times and memory use.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from autoseg.phantoms import write_phantoms

# verb -> kills of the whole test
WHOLE = {"plan_and_preprocess": 26, "train": 26, "predict": 26, "reconstruct": 26, "convert": 26, "evaluate": 20, "compare": 12}
WHOLE |= {"study": 6, "folds": 6}
ROOT = Path(__file__).parents[2]
STOPPED = "interrupted; the same command goes on from here"
TIMES = re.compile(r"seconds|memory_mib|^date|^versions$")
BIDS = ["--layout", "bids"]
TRAINING = ["--device", "cpu", "--set", "cpu_width=0.1", "--set", "checks=2", "--set", "check_cases=1", "--set", "bf16=false"]
TRAINING += ["--set", "batch_size=1", "--set", "checkpoint_minutes=1e-6", "--iterations", "3"]


class Server:
    """The process of ``kill_server``, and the folders that its commands work on."""

    def __init__(self, place: Path) -> None:
        self.place, self.now, self.scratch = place, place / "now", place / "scratch"
        self.scratch.mkdir(parents=True)
        script = ROOT / "tests" / "helpers" / "kill_server.py"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(self.scratch)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, script], env=environment, text=True, **pipes)

    def run(self, *arguments: Any, **how: Any) -> dict[str, Any]:
        job = {"arguments": [*map(str, arguments), "--quiet"], "root": str(self.now), "said": str(self.place / "said.txt")}
        self.process.stdin.write(json.dumps(job | how) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def complete(self, *arguments: Any) -> dict[str, Any]:
        done = self.run(*arguments)
        assert done["status"] == 0, done["said"]
        return done

    def begin(self, state: str) -> None:
        """Replace the folder by a kept state of it."""
        shutil.rmtree(self.now, ignore_errors=True)
        shutil.copytree(self.place / state, self.now)

    def keep(self, state: str) -> None:
        shutil.copytree(self.now, self.place / state)


@contextmanager
def serving(place: Path) -> Iterator[Server]:
    """A Server with three states of its folder: ``raw``, ``prepared``, and ``trained`` with a model and its masks."""
    server = Server(place)
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


def verbs(now: Path) -> dict[str, tuple[str, list[Any]]]:
    """verb -> (state that it starts from, its arguments)."""
    raw, workspace = now / "Dataset001_A", ["--workspace", now / "w"]
    return {
        "plan_and_preprocess": ("raw", ["plan_and_preprocess", raw, *workspace]),
        "train": ("prepared", ["train", "A", "0", *workspace, *TRAINING]),
        "predict": ("trained", ["predict", "-i", raw, "-o", now / "out", "--surfaces", "stl,glb", *BIDS, *workspace]),
        "reconstruct": ("raw", ["reconstruct", "-i", raw / "labelsTr", "-o", now / "out"]),
        "convert": (
            "raw",
            ["convert", "folders", raw / "imagesTr", now / "out", "--labels", raw / "labelsTr", "--channels", "CT", "--copy"],
        ),
        "evaluate": ("trained", ["evaluate", "--reference", raw, "--predicted", now / "masks", "-o", now / "out", "--partial"]),
        "folds": ("prepared", ["train", "A", "0-1", "--at-once", "2", *workspace, *TRAINING]),
        "study": ("prepared", ["study", "A", "--folds", "0-1", *workspace, *TRAINING]),
        "compare": ("prepared", ["compare", "A", "0", "--networks", "unet,fcn", "-o", now / "out", *workspace, *TRAINING]),
    }


def timeless(value: Any) -> Any:
    """JSON without times; the status skipped counts as done."""
    if isinstance(value, dict):
        kept = {key: timeless(part) for key, part in value.items() if not TIMES.search(key) and key != "seal"}
        return kept | ({"status": "done"} if kept.get("status") == "skipped" else {})
    return [timeless(part) for part in value] if isinstance(value, list) else value


def content(path: Path) -> Any:
    """The content of a file, without times."""
    if path.name in ("comparison.csv", "comparison.md", "cost.png"):
        return ""  # the content of comparison.json, with times among the numbers
    if path.suffix == ".json":
        found = timeless(json.loads(path.read_text()))
        if path.name == "run.json" and "runs" in path.parts:
            found.pop("model", None)  # it has the folds that were finished before, in any order if two train at once
        return found
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name == "checkpoint.safetensors":
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - not a dictionary
            return tensors, timeless(json.loads(file.metadata()["state"]))
    if path.name == "methods.md":  # its last line is a digest of the rest
        return re.sub(r"took [\d., and]+ s\b|<!--.*-->", "", path.read_text())
    if path.suffix in (".html", ".md", ".csv"):
        return re.sub(r"\d+(\.\d+)?( ?(s|min|ms|MiB|GiB)\b|(?=</td>))", "", path.read_text())
    return path.read_bytes()


def state(folder: Path) -> dict[str, Any]:
    """{path: content} of all files, None for folders."""
    return {path.relative_to(folder).as_posix(): None if path.is_dir() else content(path) for path in folder.rglob("*")}


def refuse_difference(found: dict[str, Any], right: dict[str, Any], how: Any) -> None:
    assert sorted(found) == sorted(right), f"{how}: missing {sorted(right.keys() - found)}, left {sorted(found.keys() - right)}"
    different = [name for name in right if found[name] != right[name]]
    assert not different, f"{how}: {different}"


@dataclass(frozen=True)
class Disturbed:
    """How a verb was disturbed; each time the same command followed, and ended as if undisturbed.

    Attributes:
        changes: to files and folders, by an undisturbed run.
        killed: times that SIGKILL ended it; ``systematic`` of them right before one of these changes, the others at random.
        stopped: times that SIGINT, SIGTERM or SIGUSR1 ended it in an orderly way, with its message and status 130.
        late: times that it ended with status 0, because it was already finished or past all work.
    """

    changes: int
    killed: int
    systematic: int
    stopped: int
    late: int


def disturb(server: Server, verb: str, *, kills: int, stops: int = 0, seed: int = 1) -> Disturbed:
    """Kill a verb ``kills`` times and stop it ``stops`` times with each signal; repeat it each time and compare the folder.

    Half of the kills are spread evenly over all changes to files, the others are at random times; likewise the stops.

    Raises:
        AssertionError: a repeated command failed, or its result differs from that of an undisturbed run.
    """
    begin, arguments = verbs(server.now)[verb]
    server.begin(begin)
    undisturbed = server.complete(*arguments)
    right, rng = state(server.now), random.Random(seed)

    def ended(**way: Any) -> int:
        """Status of the disturbed command; the one after it must give the undisturbed state."""
        server.begin(begin)
        first = server.run(*arguments, **way)
        again = server.run(*arguments)
        assert again["status"] == 0, (verb, way, first["said"], again["said"])
        refuse_difference(state(server.now), right, (verb, way))
        if "signal" in way and first["status"]:
            assert (first["status"], first["said"].splitlines()[-1:]) == (130, [STOPPED]), (verb, way, first)
            assert "Traceback" not in first["said"], (verb, way, first["said"])
        return first["status"]

    def moments(number: int) -> list[dict[str, Any]]:
        evenly = (number + 1) // 2
        ways: list[dict[str, Any]] = [
            {"kill_at": 1 + round((i + 0.5) / evenly * (undisturbed["changes"] - 1))} for i in range(evenly)
        ]
        return ways + [{"after": rng.uniform(0.05, 1) * undisturbed["seconds"]} for _ in range(number // 2)]

    statuses = [ended(**way) for way in moments(kills)]
    systematic = statuses[: (kills + 1) // 2].count(-signal.SIGKILL)
    while statuses.count(-signal.SIGKILL) < kills and len(statuses) < kills + 20:  # in place of those that came too late
        statuses.append(ended(after=rng.uniform(0, 0.9) * undisturbed["seconds"]))
    stopped = [ended(**way, signal=name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") for way in moments(stops)]
    late = statuses.count(0) + stopped.count(0)
    return Disturbed(undisturbed["changes"], statuses.count(-signal.SIGKILL), systematic, stopped.count(130), late)
