"""Doing the same to many cases at once, and doing one thing apart from the others.

Threads, not processes, for cases: the work is decompression, BLAS and file access, which release the interpreter lock;
nothing is pickled, no worker can be killed unseen, and a script needs no ``__main__`` guard. A case that fails is returned
as a failure with its exception, and the others go on.

One process, for a whole command that is compared with others: its memory is its own, and where it is killed for want of
memory the others go on. It is the command line that a person would type, so nothing is pickled there either.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["STOP_SIGNALS", "Outcome", "default_workers", "map_cases", "on_stop_signals", "run_command"]

# what asks a command to stop: a person, the system, and a queue of jobs before it kills (not on Windows)
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


@dataclass(frozen=True)
class Outcome:
    """What became of one item: ``value``, or the ``error`` (an Exception) that its function raised."""

    name: str
    value: Any = None
    error: Exception | None = None


def default_workers():
    """As many threads as this process may use cores, eight at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def map_cases(function: Callable, items, *, workers: int | None = None, name: Callable = str, on_done=None):
    """Call ``function(item)`` for every item, several at a time.

    Args:
        function: called in a thread; its exceptions become ``Outcome.error``.
        items: iterable; taken one by one as threads come free, so at most ``workers`` results are in the making.
        workers: number of threads; None for ``default_workers()``; 1 runs in the caller's thread.
        name: item -> the name in its Outcome.
        on_done: called in the caller's thread with each Outcome as it comes.

    Returns:
        list of Outcome in the order of the items. ``KeyboardInterrupt`` stops after the items already begun.
    """
    workers = default_workers() if workers is None else workers

    def attempt(item):
        try:
            return Outcome(name(item), function(item))
        except Exception as error:  # noqa: BLE001 - reported to the caller, case by case
            return Outcome(name(item), error=error)

    report = on_done or (lambda outcome: None)
    if workers <= 1:
        outcomes = []
        for item in items:
            outcomes.append(attempt(item))
            report(outcomes[-1])
        return outcomes

    found, running = {}, {}
    with ThreadPoolExecutor(workers) as pool:
        for position, item in enumerate(items):
            running[pool.submit(attempt, item)] = position
            if len(running) >= workers:
                _collect(running, found, report)
        while running:
            _collect(running, found, report)
    return [found[position] for position in sorted(found)]


def _collect(running, found, report):
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        outcome = future.result()
        found[running.pop(future)] = outcome
        report(outcome)


def run_command(arguments, *, on_line):
    """Run one command of autoseg in a process of its own, of this Python and this package.

    Args:
        arguments: of the command line; paths are absolute, because the process starts in another folder.
        on_line: called with each line of its standard error as it comes; its standard output is dropped.

    Returns:
        int: the exit status; the negative number of the signal that killed it.

    Raises:
        KeyboardInterrupt: somebody asked this process to stop (``STOP_SIGNALS``); the command was asked too, and
            has ended in its own orderly way.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "autoseg.engines.child", *map(str, arguments)],
        stdin=subprocess.PIPE,  # which the command watches: it ends with this process, also where that is killed
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=Path(__file__).parents[2],  # where this very package is found first
    )
    with _handing_on_stop_signals(process) as stopped, process:
        for line in process.stderr:
            on_line(line.rstrip("\n"))
    if stopped:
        raise KeyboardInterrupt
    return process.returncode


@contextmanager
def _handing_on_stop_signals(process):
    """A list that is not empty once this process was asked to stop; ``process`` is asked as well."""
    stopped = []

    def stop(number, frame):
        stopped.append(number)
        process.terminate()

    with on_stop_signals(stop):
        yield stopped


@contextmanager
def on_stop_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Call ``handler(number, frame)`` for each of ``STOP_SIGNALS``, as long as it lasts; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
