import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autoseg.engines import map_cases, run_command, run_commands

ROOT = Path(__file__).parents[1]


def test_results_come_in_the_order_of_the_items():
    outcomes = map_cases(lambda n: n * n, range(20), workers=3)
    assert [o.value for o in outcomes] == [n * n for n in range(20)]


def test_one_failure_stops_nobody_else():
    def work(n):
        if n == 2:
            raise ValueError("two is broken")
        return n

    for workers in (1, 3):
        outcomes = map_cases(work, range(5), workers=workers)
        assert [o.error is None for o in outcomes] == [True, True, False, True, True]
        assert str(outcomes[2].error) == "two is broken"


def test_no_more_items_are_in_the_making_than_there_are_workers():
    lock, now, most = threading.Lock(), [0], [0]

    def items():
        for n in range(30):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            yield n

    map_cases(lambda n: n, items(), workers=2, on_done=lambda o: now.__setitem__(0, now[0] - 1))
    assert most[0] <= 3


def test_a_command_runs_apart_and_tells_its_status_and_its_errors():
    lines = []
    assert run_command(["verify", "Nowhere"], on_line=lines.append) == 2
    assert lines[0].startswith("DatasetError: 'Nowhere' is neither a folder nor a data set")


def test_commands_at_the_same_time_are_told_apart_and_one_that_fails_stops_no_other():
    lines = [[], []]
    statuses = run_commands([["verify", "Nowhere"], ["--help"]], on_line=lambda number, line: lines[number].append(line))
    assert statuses == [2, 0]
    assert lines[0][0].startswith("DatasetError: 'Nowhere'")
    assert lines[1] == []  # its words are results, on standard output

    def fail(number, line):
        raise ValueError("the listener is broken")

    with pytest.raises(ValueError, match="the listener is broken"):
        run_commands([["verify", "Nowhere"]], on_line=fail)


def test_who_stops_the_caller_stops_the_command(tmp_path):
    lines = []

    def stop(line):
        lines.append(line)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_command(["demo", "--folder", tmp_path / "demo", "--device", "cpu"], on_line=stop)
    assert lines[0] == "drawing 30 phantoms of an abdomen"
    assert len(lines) < 5  # it did not go on
    assert signal.getsignal(signal.SIGTERM) is before


CALLER = """
import sys
from autoseg.engines import run_command

run_command(["demo", "--folder", sys.argv[1], "--device", "cpu"], on_line=lambda line: print(line, flush=True))
"""


def children_of(pid):
    """Process numbers of the children of a process (Linux)."""
    return [int(number) for task in Path(f"/proc/{pid}/task").iterdir() for number in (task / "children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are listed by Linux")
def test_a_command_ends_with_the_process_that_started_it(tmp_path):
    command = [sys.executable, "-c", CALLER, tmp_path / "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True) as caller:
        assert caller.stdout.readline() == "drawing 30 phantoms of an abdomen\n"
        (child,) = children_of(caller.pid)
        caller.kill()
        caller.wait()
        end = time.monotonic() + 120
        while Path(f"/proc/{child}").exists() and "\nState:\tZ" not in Path(f"/proc/{child}/status").read_text():
            assert time.monotonic() < end
            time.sleep(0.1)


VERB = """
import sys, time
from autoseg import cli
from autoseg.cli import verify


def work(args):
    try:
        print("working", flush=True)
        time.sleep(600)
    finally:
        time.sleep(0.5)
        print("ended in order", flush=True)


verify.run = work
sys.exit(cli.main(["verify", "X"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_whatever_asks_to_stop_ends_a_command_in_order(name):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", VERB], env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes) as process:
        assert process.stdout.readline() == "working\n"
        process.send_signal(getattr(signal, name))
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM if name != "SIGINT" else signal.SIGUSR1)  # a queue of jobs may ask twice
        out, told = process.communicate(timeout=120)
    assert out == "ended in order\n"
    assert told == "interrupted; the same command goes on from here\n"
    assert process.returncode == 130
