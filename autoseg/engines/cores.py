"""How many cores there are for this process: those that it may use, and of these the ones that nobody else keeps busy.

More threads than free cores cost a training run more than they give. After each of the thousands of small pieces of a step all
threads wait for the last one, and that one waits for a core (docs/experiments/beside-others.md).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CoreUse", "core_use", "free_cores", "kept_busy", "usable_cores"]

STAT = Path("/proc/stat")
QUOTA = Path("/sys/fs/cgroup/cpu.max")
OLD_QUOTA = tuple(Path("/sys/fs/cgroup/cpu") / name for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
SHORTEST = 0.5  # seconds; in less time the few ticks of the system say little
WORKING = (1, 2, 3, 6, 7, 8)  # columns of /proc/stat: user, nice, system, interrupts of both kinds, and taken by other machines


@dataclass(frozen=True)
class CoreUse:
    """Seconds on any clock, those that the cores of this process have worked since they started, and its own among them."""

    clock: float
    worked: float
    own: float


def usable_cores() -> int:
    """The cores that this process may use by its affinity and by the quota of its container; at least 1."""
    cores = len(_affinity())
    return cores if (quota := _quota()) is None else max(1, min(cores, int(quota)))


def core_use() -> CoreUse | None:
    """How much the cores of this process have worked so far; None where the system does not say (other than Linux)."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        mine, ticks = {f"cpu{core}" for core in _affinity()}, os.sysconf("SC_CLK_TCK")
        rows = [line.split() for line in STAT.read_text().splitlines()]
        worked = sum(int(row[column]) for row in rows if row and row[0] in mine for column in WORKING)
        times = os.times()
        return CoreUse(time.monotonic(), worked / ticks, sum(times[:4]))
    return None


def kept_busy(before: CoreUse | None, after: CoreUse | None) -> float:
    """Cores that others kept busy between two looks, on the average; 0 where nobody says, or the time was too short.

    Of cores that the container's quota leaves out, others are taken to use theirs first.
    """
    if before is None or after is None or after.clock - before.clock < SHORTEST:
        return 0.0
    others = (after.worked - before.worked) - (after.own - before.own)
    return max(0.0, others / (after.clock - before.clock) - (len(_affinity()) - usable_cores()))


def free_cores(usable: int, busy: float) -> int:
    """The threads to compute with, so that each finds a core.

    Args:
        usable: cores of this process.
        busy: of these, kept busy by others. Who comes later takes half of the cores, though, however busy they are: a fair
            system gives it as much beside one other job.
    """
    return max(1, round(max(usable - busy, usable / 2)))


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _quota() -> float | None:
    """Cores that the container may use at a time, by either version of cgroups; None without a limit."""
    with suppress(OSError, ValueError):
        quota, period = QUOTA.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota_us, period_us = (int(path.read_text()) for path in OLD_QUOTA)
        return quota_us / period_us if quota_us > 0 else None
    return None
