"""Steps without dependencies, for workers in other processes, which import only this file."""

import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import AutosegError


@dataclass(frozen=True)
class Square:
    """Squares numbers, and writes a file for each; 2 raises an error, 3 logs a warning."""

    folder: Path
    seconds: float = 0.0
    device: str = ""

    def setup(self):
        return self

    def run(self, number):
        time.sleep(self.seconds)
        if number == 2:
            raise ValueError("two is broken")
        if number == 3:
            logging.getLogger("autoseg.tests").warning("three is odd")
        (self.folder / f"{number}.txt").write_text(f"{os.getpid()} {self.device}")
        return number**2


@dataclass(frozen=True)
class Unready(Square):
    """Fails in ``setup``."""

    def setup(self):
        raise AutosegError("model.zip: there is no such model")


@dataclass(frozen=True)
class Deadly(Square):
    """1 kills the process that tries it."""

    def run(self, number):
        time.sleep(0.2)
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2
