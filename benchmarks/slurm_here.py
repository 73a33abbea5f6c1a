"""Submit what `autoseg slurm` prints to a real SLURM: controller, daemon and munge on this machine, while the script runs.

    sudo env PYTHONPATH=. python benchmarks/slurm_here.py [--out benchmarks/results/slurm.json]

Needs Linux and root. It installs nothing; Debian and Ubuntu have what it needs:

    apt-get install slurm-wlm munge

All files of the daemons, with keys, ports and logs, are in a temporary folder, and the daemons end with the script. A study of
phantoms with two configurations and two folds each is submitted as one array. Of its four jobs, one is requeued, one gets the
signal that precedes a time limit, one is cancelled, and one is undisturbed. The report job must then not run, and the same
command must print the one job left, after which the report is made. The histories must be those of a study without SLURM. A
prediction in two shards follows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import about

from autoseg.phantoms import write_phantoms
from autoseg.workspace import write_json

ROOT = Path(__file__).parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue", "sinfo")
PATIENCE = 900.0
CONFIGURATION = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket,cred_expire=15
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
KillWait=20
JobCompType=jobcomp/filetxt
JobCompLoc={place}/ended.txt
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=60 State=UP
"""


@contextmanager
def slurm(place: Path) -> Iterator[dict[str, str]]:
    """Run a SLURM of one node; yields the environment variables for its commands."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: not found. Debian and Ubuntu: apt-get install slurm-wlm munge")
    for name in ("munge", "state", "spool"):
        (place / name).mkdir(mode=0o700)
    key = place / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    configuration = place / "slurm.conf"
    host, (controller, daemon) = socket.gethostname().split(".")[0], free_ports(2)
    configuration.write_text(CONFIGURATION.format(host=host, place=place, controller=controller, daemon=daemon))
    environment = {**os.environ, "SLURM_CONF": str(configuration), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    munge = [f"--{name}={place}/munge/{name.partition('-')[0]}" for name in ("key-file", "socket", "pid-file", "log-file")]
    munge += [f"--seed-file={place}/munge/seed"]
    commands = [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(command, env=environment, **quiet))
            time.sleep(1)
        until(lambda: " idle" in run(environment, "sinfo", "-h", "-o", "%P %T"), "the node is not idle", 60)
        yield environment
    finally:
        if len(started) == len(commands):
            run(environment, "scancel", "--partition=all", check=False)
            until(lambda: not run(environment, "squeue", "-h", check=False).strip(), "jobs go on", 60)
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def run(environment: dict[str, str], *words: str, check: bool = True) -> str:
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"{words[0]} ended with status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout


def until(holds: Callable[[], bool], otherwise: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(otherwise)
        time.sleep(0.3)


class Queue:
    """A SLURM, and the transcript of what happened in it."""

    def __init__(self, environment: dict[str, str], place: Path) -> None:
        self.environment, self.place, self.begun = environment, place, time.monotonic()
        self.told: list[dict[str, Any]] = []

    def note(self, what: str, **more: Any) -> None:
        entry = {"seconds": round(time.monotonic() - self.begun, 1), "what": what, **more}
        self.told.append(entry)
        print(json.dumps(entry), flush=True)

    def run(self, *words: str, check: bool = True) -> str:
        return run(self.environment, *words, check=check)

    def submit(self, *words: str) -> tuple[str, str, str]:
        """Run ``autoseg slurm`` and submit its script; returns (script, id of the array or '', id of the report job)."""
        script = self.run(sys.executable, "-m", "autoseg", "slurm", "--logs", str(self.place / "logs"), *words)
        file = self.place / "submission"
        file.write_text(script)
        numbers = re.findall(r"\d+", said := self.run("bash", str(file)))
        jobs = len(re.findall(r"^  \d+\) words=", script, re.MULTILINE))
        self.note("submitted", command=["autoseg", "slurm", "--", words[words.index("--") + 1]], jobs=jobs, said=said.strip())
        return script, numbers[0] if jobs else "", numbers[-1]

    def state(self, job: str) -> str:
        """State of a job, such as PENDING, RUNNING, COMPLETED, CANCELLED; '' if the queue has no such job."""
        found = re.search(r"JobState=(\w+)", self.run("scontrol", "show", "job", job, check=False))
        return found[1] if found else ""

    def restarts(self, job: str) -> int:
        found = re.search(r"Restarts=(\d+)", self.run("scontrol", "show", "job", job, check=False))
        return int(found[1]) if found else 0

    def ended(self, job: str) -> bool:
        return self.state(job) in ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "")


def study_words(dataset: Path, workspace: Path, steps: int) -> list[str]:
    settings = {"cpu_width": 0.1, "batch_size": 1, "bf16": "false", "validations": 4, "validation_patches": 1}
    settings |= {"checkpoint_minutes": 0.005, "patience": "null"}
    words = ["study", str(dataset), "--networks", "unet,fcn", "--folds", "0-1", "--iterations", str(steps)]
    words += ["--device", "cpu", "--workspace", str(workspace), "--workers", "1"]
    return [*words, *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


def histories(workspace: Path) -> dict[str, list[Any]]:
    """{run/fold: rows of its history without seconds}."""
    found = {}
    for file in sorted(workspace.glob("runs/*/*/fold_*/history.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        found["/".join(file.parts[-3:-1])] = [{key: row[key] for key in row if key != "seconds"} for row in rows]
    return found


def differences(one: dict[str, list[Any]], other: dict[str, list[Any]]) -> dict[str, str]:
    """{fold: number of rows, and the first difference} for each fold whose rows differ."""
    found = {}
    for fold in sorted(set(one) | set(other)):
        rows, others = one.get(fold, []), other.get(fold, [])
        if rows != others:
            first = next((pair for pair in zip(rows, others, strict=False) if pair[0] != pair[1]), ({}, {}))
            what = {key: (first[0].get(key), first[1].get(key)) for key in first[0] if first[0][key] != first[1].get(key)}
            found[fold] = f"{len(rows)} and {len(others)} rows, first difference at step {first[0].get('step')}: {what}"
    return found


def checkpoint_of(workspace: Path, words: str) -> Path:
    """The checkpoint of the training run whose command line in the printed script is ``words``."""
    name, fold = re.search(r"--name (\S+)", words), re.search(r"train \S+ (\d)", words)
    if not name or not fold:
        raise SystemExit(f"no training is in: {words}")
    return next(iter(workspace.glob("runs/*"))) / name[1] / f"fold_{fold[1]}" / "checkpoint.safetensors"


def begun(workspace: Path, array: str, script: str, index: int) -> str:
    """Wait until a job of the array has written a checkpoint; returns its id."""
    job, line = f"{array}_{index}", next(line for line in script.splitlines() if line.startswith(f"  {index}) "))
    until(lambda: any(workspace.glob("runs/*")) and checkpoint_of(workspace, line).is_file(), f"job {index} has no checkpoint")
    return job


def studied(queue: Queue, place: Path, dataset: Path, steps: int) -> Path:
    """Submit a study, disturb it and complete it; returns its workspace."""
    workspace = place / "a workspace of it's own"
    words = ("--at-once", "1", "--time", "30m", "--", *study_words(dataset, workspace, steps))
    script, array, report = queue.submit(*words)
    job = begun(workspace, array, script, 0)
    queue.run("scontrol", "requeue", job)
    queue.note("the first job is requeued by the queue")
    job = begun(workspace, array, script, 1)
    # scancel would repeat the signal for two minutes if the job is back in the queue before it checks again
    queue.run("timeout", "2", "scancel", "--batch", "--signal=USR1", job, check=False)
    until(lambda: queue.restarts(job) > 0 or queue.state(job) == "PENDING", "the warned job was not requeued")
    queue.note("the second job is warned, writes its checkpoint and goes back into the queue by itself")
    job = begun(workspace, array, script, 2)
    queue.run("scancel", job)
    queue.note("the third job is cancelled")
    until(lambda: all(queue.ended(f"{array}_{i}") for i in range(4)) and queue.ended(report), "the array did not end")
    states = [queue.state(f"{array}_{i}") for i in range(4)]
    restarts = [queue.restarts(f"{array}_{i}") for i in range(4)]
    queue.note("the array has ended", states=states, restarts=restarts, report=queue.state(report))
    if states != ["COMPLETED", "COMPLETED", "CANCELLED", "COMPLETED"] or restarts[:2] != [1, 1] or restarts[2:] != [0, 0]:
        raise SystemExit("the jobs did not end as they should")
    if queue.state(report) == "COMPLETED":
        raise SystemExit("the report of a study that was not complete has run")
    _, array, report = queue.submit(*words)
    until(lambda: queue.ended(report), "the report did not end")
    queue.note("what was left has ended", states=[queue.state(f"{array}_0")], report=queue.state(report))
    if queue.state(report) != "COMPLETED" or not list(workspace.glob("studies/*/*/study.md")):
        raise SystemExit("the study was not reported")
    script, array, _ = queue.submit(*words)
    if array:
        raise SystemExit("the same command still finds jobs that are left")
    return workspace


def predicted(queue: Queue, place: Path, dataset: Path, workspace: Path) -> None:
    """Predict the test cases in two shards."""
    model = next(path for path in workspace.glob("models/*") if path.name.endswith("_study"))
    words = ["predict", "-i", str(dataset / "imagesTs"), "-o", str(place / "masks"), "-m", str(model), "--device", "cpu"]
    _, array, report = queue.submit("--shards", "2", "--", *words, "--workspace", str(workspace))
    until(lambda: queue.ended(report), "the report did not end")
    masks = len(list((place / "masks").glob("*.nii.gz")))
    states = [queue.state(f"{array}_{i}") for i in range(2)]
    queue.note("predicted in two shards", states=states, report=queue.state(report), masks=masks)
    if masks != len(list((dataset / "imagesTs").iterdir())) or not (place / "masks" / "measurements.csv").is_file():
        raise SystemExit("the shards are not complete")


def logs(place: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted((place / "logs").glob("*.txt")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="of each training (default 500)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the daemons are stopped
    with tempfile.TemporaryDirectory() as name, slurm(Path(name)) as environment:
        place = Path(name)
        version = run(environment, "sinfo", "--version").strip()
        dataset = write_phantoms(place / "Dataset001_Phantoms", training=6, test=2, in_plane_mm=8)
        queue = Queue(environment, place)
        try:
            workspace = studied(queue, place, dataset, options.steps)
            alone = place / "alone"
            run(environment, sys.executable, "-m", "autoseg", *study_words(dataset, alone, options.steps))
            different = differences(histories(workspace), histories(alone))
            queue.note("the same study without SLURM", folds=len(histories(alone)), different_histories=different)
            predicted(queue, place, dataset, workspace)
        except SystemExit:
            print(logs(place), file=sys.stderr)
            raise
    result = {"machine": about(), "slurm": version, "transcript": queue.told}
    if options.out:
        write_json(options.out, result)
    if different:
        raise SystemExit("the histories differ from those of a study without SLURM")


if __name__ == "__main__":
    main()
