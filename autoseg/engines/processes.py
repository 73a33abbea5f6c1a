"""One command of autoseg in a process of its own: its memory is its own, and where it is killed for want of memory the others
go on. It is the command line that a person would type, so nothing is pickled."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["STOP_SIGNALS", "on_stop_signals", "run_command"]

# what asks a command to stop: a person, the system, and a queue of jobs before it kills (not on Windows)
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


def run_command(arguments: Iterable[Any], *, on_line: Callable[[str], object]) -> int:
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
        for line in process.stderr or ():
            on_line(line.rstrip("\n"))
    if stopped:
        raise KeyboardInterrupt
    return process.returncode


@contextmanager
def _handing_on_stop_signals(process: subprocess.Popen[str]) -> Iterator[list[int]]:
    """A list that is not empty once this process was asked to stop; ``process`` is asked as well."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        process.terminate()

    with on_stop_signals(stop):
        yield stopped


@contextmanager
def on_stop_signals(handler: Callable[[int, Any], object]) -> Iterator[None]:
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
