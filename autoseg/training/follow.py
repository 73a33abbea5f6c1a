"""A training run on a CPU that makes room for programs that start while it trains, and takes back cores that become free.

Two runs lose a third to one after the other if the first keeps a thread for each core (docs/experiments/beside-others.md).
"""

from __future__ import annotations

import logging
import time

import torch

from autoseg.engines import core_use, followed_cores, kept_busy, usable_cores
from autoseg.names import counted
from autoseg.networks.cpu import use_threads

__all__ = ["FollowCores"]

logger = logging.getLogger(__name__)

SECONDS = 10.0  # between two looks


class FollowCores:
    """Called after each step: looks every ten seconds how busy other programs keep the cores, and changes the number of threads
    of this process that compute networks. It says so each time."""

    def __init__(self) -> None:
        self.before, self.looked = core_use(), time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self.looked < SECONDS:
            return
        now, usable = core_use(), usable_cores()
        busy = kept_busy(self.before, now)
        self.before, self.looked = now, time.monotonic()
        threads = torch.get_num_threads()
        if now and (wanted := followed_cores(threads, usable, busy)) != threads:
            use_threads(wanted)
            told = "other programs keep %.1f of %d cores busy now: %s instead of %d (--threads sets a fixed number)"
            logger.info(told, busy, usable, counted(wanted, "thread"), threads)
