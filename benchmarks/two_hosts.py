"""Two hosts train as one: a process in each of two network namespaces, joined by a pair of virtual Ethernet devices.

    sudo env PYTHONPATH=. python benchmarks/two_hosts.py [--out benchmarks/results/two_hosts.json]

Needs Linux, root and `ip` (iproute2). The two namespaces can reach only each other; both are removed when the script ends,
however it ends. A fold of phantoms is trained by one process; then by two on the two hosts, which divide each batch; then
again, with the process on the second host killed halfway, so that torchrun restarts both. The losses of each validation must
agree to 1e-5 between the first two, and exactly between the second and the third. The result has the differences, and the
seconds of each run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import about

from autoseg.phantoms import write_phantoms
from autoseg.workspace import write_json

ROOT = Path(__file__).parents[1]
HOSTS = (("autoseg_host_a", "veth_a", "10.213.7.1"), ("autoseg_host_b", "veth_b", "10.213.7.2"))
PORT = "29577"
TOLERANCE = 1e-5
Rows = list[dict[str, Any]]


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, stderr=None if check else subprocess.DEVNULL)


@contextmanager
def two_hosts() -> Iterator[None]:
    """Make two namespaces that can reach each other and nothing else."""
    (a, device_a, _), (b, device_b, _) = HOSTS
    try:
        for name in (a, b):
            ip("netns", "add", name)
        ip("link", "add", device_a, "netns", a, "type", "veth", "peer", "name", device_b, "netns", b)
        for name, device, address in HOSTS:
            ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in (a, b):  # removes the devices as well
            ip("netns", "delete", name, check=False)


def words_of(dataset: Path, workspace: Path, steps: int) -> list[str]:
    settings = {"cpu_width": 0.1, "batch_size": 2, "divide_batch": "true", "bf16": "false", "validations": steps}
    settings |= {"validation_patches": 3, "checkpoint_minutes": 1e-6}
    words = ["-m", "autoseg", "train", str(dataset), "0", "--workspace", str(workspace), "--iterations", str(steps)]
    return [*words, "--device", "cpu", *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def on_hosts(words: Sequence[str], restarts: int) -> list[subprocess.Popen[str]]:
    """Start torchrun on each of the two hosts."""
    started = []
    for number, (name, device, address) in enumerate(HOSTS):
        call = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        call += ["--nproc-per-node", "1", "--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-id", "two_hosts"]
        call += ["--rdzv-endpoint", f"{HOSTS[0][2]}:{PORT}", "--rdzv-conf", f"is_host={int(number == 0)}"]
        call += ["--local-addr", address, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(call, env=environment(GLOO_SOCKET_IFNAME=device), text=True, **pipes))
    return started


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Wait for the processes; returns their output, or exits with it if one failed."""
    said = []
    try:
        said = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise SystemExit("\n".join(text[-3000:] for text in said))
    return said


def rows_of(workspace: Path) -> Rows:
    (file,) = workspace.glob("runs/*/*/fold_0/history.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def kill_after(workspace: Path, checks: int) -> int:
    """Kill the process of the second host once ``checks`` validations are written; returns ``checks``."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        time.sleep(0.02)
        files = list(workspace.glob("runs/*/*/fold_0/history.jsonl"))
        if files and len(files[0].read_text().splitlines()) >= checks:
            os.kill(_rank_one(workspace), signal.SIGKILL)
            return checks
    raise SystemExit("the training wrote no checks in five minutes")


def _rank_one(workspace: Path) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(workspace).encode() in words and b"RANK=1" in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    raise SystemExit("no process of the second host was found")


def compared(rows: Rows, others: Rows) -> float:
    """The largest difference of a loss between two histories of equal length."""
    if len(rows) != len(others):
        raise SystemExit(f"{len(rows)} checks and {len(others)}")
    names = ("train_loss", "validation_loss")
    return max(abs(row[name] - other[name]) for row, other in zip(rows, others, strict=True) for name in names)


def measured(place: Path, steps: int) -> dict[str, Any]:
    dataset = write_phantoms(place / "Dataset001_Phantoms", training=8, test=0, in_plane_mm=6)
    folders = {name: place / name for name in ("one", "two", "killed")}
    alone = subprocess.Popen([sys.executable, *words_of(dataset, folders["one"], steps)], env=environment())
    if alone.wait(600):
        raise SystemExit("one process alone could not train")
    ended(on_hosts(words_of(dataset, folders["two"], steps), restarts=0))
    processes = on_hosts(words_of(dataset, folders["killed"], steps), restarts=2)
    try:
        killed_after = kill_after(folders["killed"], steps // 3)
    except BaseException:
        for process in processes:
            process.kill()
        raise
    said = ended(processes)
    rows = {name: rows_of(folder) for name, folder in folders.items()}
    resumed = re.search(r"resuming at step (\d+)", "".join(said))
    return {
        "steps": steps,
        "largest_difference_of_a_loss": compared(rows["one"], rows["two"]),
        "tolerance": TOLERANCE,
        "seconds": {name: found[-1]["seconds"] for name, found in rows.items()},
        "killed": {
            "after_checks": killed_after,
            "resumed_at_step": int(resumed[1]) if resumed else None,
            "largest_difference_of_a_loss": compared(rows["two"], rows["killed"]),
        },
        "losses": {name: [[row["train_loss"], row["validation_loss"]] for row in found] for name, found in rows.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the namespaces are removed
    with tempfile.TemporaryDirectory() as name, two_hosts():
        found = measured(Path(name), options.steps)
    result = {"machine": about(), **found}
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, result)
    killed = found["killed"]
    if found["largest_difference_of_a_loss"] > TOLERANCE or killed["largest_difference_of_a_loss"] > 0:
        raise SystemExit("the losses differ")
    if killed["resumed_at_step"] is None:
        raise SystemExit("nothing was resumed")


if __name__ == "__main__":
    main()
