"""Commands of autoseg in processes of their own: their memory is their own, and where one is killed for want of memory the
others go on. It is the command line that a person would type, so nothing is pickled."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

__all__ = ["STOP_SIGNALS", "on_stop_signals", "run_command", "run_commands"]

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
    return run_commands([arguments], on_line=lambda number, line: on_line(line))[0]


def run_commands(commands: Iterable[Iterable[Any]], *, on_line: Callable[[int, str], object]) -> list[int]:
    """Run commands of autoseg at the same time, each as ``run_command``; one that fails stops no other.

    Args:
        on_line: called in this thread with the number of a command, from 0, and a line of its standard error.

    Returns:
        Their exit statuses.

    Raises:
        KeyboardInterrupt: as ``run_command``, once all have ended.
    """
    lines: SimpleQueue[tuple[int, str | None]] = SimpleQueue()
    with ExitStack() as stack:
        processes = [stack.enter_context(_started(arguments)) for arguments in commands]
        stopped = stack.enter_context(_handing_on_stop_signals(processes))
        for number, process in enumerate(processes):
            threading.Thread(target=_read, args=(number, process, lines), daemon=True).start()
        try:
            _listen(lines, len(processes), on_line)
        except BaseException:
            for process in processes:
                process.terminate()
            raise
        for process in processes:  # which have closed their standard error
            process.wait()
    if stopped:
        raise KeyboardInterrupt
    return [process.returncode for process in processes]


def _started(arguments: Iterable[Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autoseg.engines.child", *map(str, arguments)],
        stdin=subprocess.PIPE,  # which the command watches: it ends with this process, also where that is killed
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=Path(__file__).parents[2],  # where this very package is found first
    )


def _read(number: int, process: subprocess.Popen[str], lines: SimpleQueue[tuple[int, str | None]]) -> None:
    """Put what a process says into the queue, and None at its end."""
    try:
        for line in process.stderr or ():
            lines.put((number, line.rstrip("\n")))
    finally:
        lines.put((number, None))


def _listen(lines: SimpleQueue[tuple[int, str | None]], speakers: int, on_line: Callable[[int, str], object]) -> None:
    """Hand on every line until all speakers have ended."""
    while speakers:
        number, line = lines.get()
        if line is None:
            speakers -= 1
        else:
            on_line(number, line)


@contextmanager
def _handing_on_stop_signals(processes: Sequence[subprocess.Popen[str]]) -> Iterator[list[int]]:
    """A list that is not empty once this process was asked to stop; the ``processes`` are asked as well."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        for process in processes:
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
