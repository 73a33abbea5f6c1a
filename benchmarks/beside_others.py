"""How much training slows down beside other work on the same cores, by the number of threads and how they wait.

    python benchmarks/beside_others.py [--repeats 3] [--seconds 4] [--arms ...] [--situations ...] [--follow]

The steps are those of a small U-Net on noise. An arm is an environment in which torch was loaded, and a number of threads. Two
processes of each environment are started once. In each turn, one of them or both take steps for some seconds: one alone, beside
one busy loop, or beside as many busy loops as there are cores; or both at the same time, the second one also with half of the
cores, as autoseg starts it while another run is at work. Arms are interleaved. Each turn is stored at once in
``results/beside_others.json``, and stored turns are not measured again.

*Rate* is steps per second, of both processes together if two train. Compared with one after the other, two training runs at
once lose 1 - rate of both / rate of one alone. Beside busy loops, a fair scheduler would give a run cores / (cores + loops) of
its rate alone. The CPU time per step shows the cause: threads that spin while others have the core waste CPU time, and threads
that wait for one without a core use none. With ``--follow`` there is one more arm: it begins with all cores, and changes its
number of threads with the free ones, as ``autoseg train`` does. That takes it ten seconds, so turns must be longer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE / "results" / "beside_others.json"
CORES = os.cpu_count() or 1
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "as it is": {},
    "spin 1000": {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
# situation -> (processes that train, busy loops); in the last one the second process has threads for only half of the cores
LATER = "another begins later"
SITUATIONS = {"alone": (1, 0), "one loop": (1, 1), "a loop a core": (1, CORES), "two trainings": (2, 0), LATER: (2, 0)}
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--arms", nargs="+", default=list(ENVIRONMENTS), choices=list(ENVIRONMENTS))
    parser.add_argument("--situations", nargs="+", default=list(SITUATIONS), choices=list(SITUATIONS))
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--work", action="store_true", help="take steps as the standard input says")
    args = parser.parse_args()
    if args.work:
        work()
        return
    stored: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {"turns": {}}
    arms = [(arm, threads, False) for threads in sorted({1, CORES}) for arm in args.arms]
    arms += [(args.arms[0], CORES, True)] if args.follow else []
    with ExitStack() as stack:
        workers: dict[str, list[subprocess.Popen[str]]] = {}
        for repeat in range(args.repeats):
            for situation in args.situations:
                for arm, threads, follow in arms:
                    name = f"{arm}, {threads} threads{', following' if follow else ''}"
                    turns = stored["turns"].setdefault(situation, {}).setdefault(name, [])
                    if len(turns) > repeat:
                        continue
                    if arm not in workers:
                        workers[arm] = [stack.enter_context(started(ENVIRONMENTS[arm])) for _ in range(2)]
                    turns.append(turn(workers[arm], situation, threads, args.seconds, follow))
                    print(situation, name, turns[-1], flush=True)
                    write(args.out, stored)
    print(table(stored["turns"]))


def write(path: Path, stored: dict[str, Any]) -> None:
    from machine import about

    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({**stored, "machine": about()}, indent=1))
    draft.replace(path)


@contextmanager
def started(environment: dict[str, str]) -> Any:
    """Yield a process that takes steps on request."""
    own = {name: value for name, value in os.environ.items() if name not in WAITING} | environment
    words = [sys.executable, __file__, "--work"]
    with subprocess.Popen(words, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            ask(process, CORES, 0.5)  # the first steps set things up
            answer(process)
            yield process
        finally:
            process.terminate()


def ask(process: subprocess.Popen[str], threads: int, seconds: float, follow: bool = False) -> None:
    assert process.stdin
    process.stdin.write(f"{threads} {seconds} {follow:d}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def turn(
    workers: list[subprocess.Popen[str]], situation: str, threads: int, seconds: float, follow: bool = False
) -> dict[str, float]:
    """Steps per second, and CPU seconds per step, in a situation."""
    trainings, loops = SITUATIONS[situation]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        time.sleep(0.2 * bool(busy))
        for number, process in enumerate(workers[:trainings]):
            ask(process, max(1, CORES // 2) if number and situation == LATER else threads, seconds, follow)
        found = [answer(process) for process in workers[:trainings]]
    finally:
        for loop in busy:
            loop.kill()
            loop.wait()
    steps = sum(one["steps"] for one in found)
    rate = sum(one["steps"] / one["seconds"] for one in found)
    return {"rate": round(rate, 4), "cpu_per_step": round(sum(one["cpu"] for one in found) / steps, 4)}


def work() -> None:
    """Read lines ``THREADS SECONDS FOLLOW``; take steps for so long, and print their number and what they took."""
    import torch

    from autoseg.networks import build_network
    from autoseg.networks.cpu import put_channels_last
    from autoseg.room import keep_memory
    from autoseg.training.follow import FollowCores
    from planners import NetworkSpec

    keep_memory()
    torch.manual_seed(0)
    strides = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    network = build_network(NetworkSpec("unet", 1, 3, (8, 16, 32), strides, ((3, 3, 3),) * 3, (2, 2, 2), (2, 2))).train()
    put_channels_last(network)
    optimizer, x = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9), torch.rand(2, 1, 32, 40, 32)
    for line in sys.stdin:
        threads, seconds, follow = line.split()
        after_step = FollowCores() if int(follow) else lambda: None
        torch.set_num_threads(int(threads))
        begun, cpu, steps = time.perf_counter(), time.process_time(), 0
        while not steps or time.perf_counter() - begun < float(seconds):
            optimizer.zero_grad(set_to_none=True)
            network(x).square().mean().backward()
            optimizer.step()
            after_step()
            steps += 1
        found = {"steps": steps, "seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
        print(json.dumps(found), flush=True)


def table(turns: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Markdown: medians of rates relative to the first arm with all cores alone, and of CPU time per step."""
    arms = list(next(iter(turns.values())))
    base = statistics.median(one["rate"] for one in turns["alone"][f"as it is, {CORES} threads"])
    lines = ["| arm | " + " | ".join(turns) + " |", "|---" * (1 + len(turns)) + "|"]
    for arm in arms:
        cells = []
        for found in turns.values():
            rates, cpu = ([one[key] for one in found.get(arm, [])] for key in ("rate", "cpu_per_step"))
            middle, low, high = statistics.median(rates) / base, min(rates) / base, max(rates) / base
            cells.append(f"{middle:.2f} ({low:.2f}–{high:.2f}), {statistics.median(cpu):.2f} s")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
