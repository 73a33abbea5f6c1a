"""``python -m autoseg.engines.child ARGUMENTS``: the command line, in a process that ends with its parent.

The parent holds the other end of its standard input and writes nothing. The system closes that end when the parent ends,
for whatever reason. This process then stops in order: a training run ends its step and writes its checkpoint.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def _stop_with_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    runpy.run_module("autoseg", run_name="__main__", alter_sys=True)
