"""Commands of autoseg in separate processes: if one is killed for lack of memory, the others go on.
Each is the command line that a person would type, so nothing is pickled."""

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
    """Run one command of autoseg in its own process, with this Python and this package.

    Args:
        arguments: of the command line; paths are absolute, because the process starts in another folder.
        on_line: called with each line of its standard error as it arrives; its standard output is dropped.

    Returns:
        int: the exit status, or the negative number of the signal that killed it.

    Raises:
        KeyboardInterrupt: this process received one of ``STOP_SIGNALS``; the command received it as well and
            has ended in order.
    """
    return run_commands([arguments], on_line=lambda number, line: on_line(line))[0]


def run_commands(commands: Iterable[Iterable[Any]], *, on_line: Callable[[int, str], object]) -> list[int]:
    """Run commands of autoseg at the same time, each as ``run_command``; a failed one does not stop the others.

    Args:
        on_line: called in this thread with the number of a command, from 0, and a line of its standard error.

    Returns:
        Their exit statuses.

    Raises:
        KeyboardInterrupt: as in ``run_command``, once all have ended.
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
        stdin=subprocess.PIPE,  # the command watches it and ends with this process, even if this one is killed
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=Path(__file__).parents[2],  # where this package is found first
    )


def _read(number: int, process: subprocess.Popen[str], lines: SimpleQueue[tuple[int, str | None]]) -> None:
    """Put the lines of a process into the queue, and None at its end."""
    try:
        for line in process.stderr or ():
            lines.put((number, line.rstrip("\n")))
    finally:
        lines.put((number, None))


def _listen(lines: SimpleQueue[tuple[int, str | None]], speakers: int, on_line: Callable[[int, str], object]) -> None:
    """Pass on every line until all speakers have ended."""
    while speakers:
        number, line = lines.get()
        if line is None:
            speakers -= 1
        else:
            on_line(number, line)


@contextmanager
def _handing_on_stop_signals(processes: Sequence[subprocess.Popen[str]]) -> Iterator[list[int]]:
    """Yields a list that is no longer empty once this process was asked to stop; passes the signal on to ``processes``."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        for process in processes:
            process.terminate()

    with on_stop_signals(stop):
        yield stopped


@contextmanager
def on_stop_signals(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Call ``handler(number, frame)`` for ``STOP_SIGNALS`` within the block; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
