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

__all__ = ["run_command"]


def run_command(arguments: Iterable[Any], *, on_line: Callable[[str], object]) -> int:
    """Run one command of autoseg in a process of its own, of this Python and this package.

    Args:
        arguments: of the command line; paths are absolute, because the process starts in another folder.
        on_line: called with each line of its standard error as it comes; its standard output is dropped.

    Returns:
        int: the exit status; the negative number of the signal that killed it.

    Raises:
        KeyboardInterrupt: somebody asked this process to stop (interrupt or terminate); the command was asked too, and
            has ended in its own orderly way.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "autoseg", *map(str, arguments)],
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
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        process.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
