"""A process that runs commands of autoseg in child processes, and kills or stops them on request.

It reads one JSON object per line from standard input: ``arguments`` of the command line, ``root`` (the folder in which changes
are counted), ``said`` (a file for the output), and, to kill the command, ``kill_at`` (the change to a file or folder, from 1,
right before which it is killed) or ``after`` (seconds), and ``signal`` if it is not SIGKILL. It answers with one line:
``status`` (negative: the signal), ``changes``, ``seconds`` and ``said`` (the output).

Modules are imported once and each command runs in a fork, which makes many kills affordable. Changes are counted by an audit
hook of Python: opening a file for writing, renaming, removing, making folders. autoseg has no code for this.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "tempfile.mkdtemp")


def watch(root: str, kill_at: int | None, number_of_signal: int, counter: mmap.mmap) -> None:
    """Count the changes below ``root`` by this process, and send it the signal before change number ``kill_at``."""
    lock = threading.Lock()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        is_change = event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING)
        if not is_change or not isinstance(arguments[0], str | Path) or not str(arguments[0]).startswith(root):
            return
        with lock:
            (number,) = struct.unpack("q", counter[:8])
            counter[:8] = struct.pack("q", number + 1)
            if number + 1 == kill_at:
                os.kill(os.getpid(), number_of_signal)

    sys.addaudithook(hook)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job in a fork; returns the answer."""
    from autoseg.cli import main

    counter, said, sent = mmap.mmap(-1, 8), Path(job["said"]), signal.Signals[job.get("signal", "SIGKILL")]
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            watch(job["root"], job.get("kill_at"), sent, counter)
            status = main(job["arguments"])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 98
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    if job.get("after") is not None:
        killer = threading.Timer(job["after"], os.kill, (child, sent))
        killer.start()
    _, ended = os.waitpid(child, 0)
    if job.get("after") is not None:
        killer.cancel()
    (changes,) = struct.unpack("q", counter[:8])
    return {
        "status": os.waitstatus_to_exitcode(ended),
        "changes": changes,
        "seconds": time.monotonic() - begun,
        "said": said.read_text(),
    }


if __name__ == "__main__":
    import autoseg.page.page
    import autoseg.pipeline  # noqa: F401 - so that no child has to

    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
