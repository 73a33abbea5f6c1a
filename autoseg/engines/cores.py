"""How many cores this process may use, and how many of these are not kept busy by other programs.

More threads than free cores slow a training run down. After each of the thousands of small pieces of a step, all threads
wait for the last one, which waits for a core (docs/experiments/beside-others.md).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoseg.control_groups import control_groups

__all__ = ["CoreUse", "core_use", "followed_cores", "free_cores", "kept_busy", "usable_cores"]

STAT = Path("/proc/stat")
QUOTA, OLD_QUOTA = "cpu.max", ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # files of a control group
CLEARLY = 0.6  # of a core; half a core more or less would change the number of threads to and fro
SHORTEST = 0.5  # seconds; the system's clock ticks are too coarse for less
WORKING = (1, 2, 3, 6, 7, 8)  # columns of /proc/stat: user, nice, system, both kinds of interrupts, stolen time


@dataclass(frozen=True)
class CoreUse:
    """A time on any clock, the seconds that this process's cores have worked since boot, and its own part of these."""

    clock: float
    worked: float
    own: float


def usable_cores() -> int:
    """The cores that this process may use by its affinity and by the quota of its container; at least 1."""
    cores = len(_affinity())
    return cores if (quota := _quota()) is None else max(1, min(cores, int(quota)))


def core_use() -> CoreUse | None:
    """How much the cores of this process have worked so far; None if the system does not report it (other than Linux)."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        mine, ticks = {f"cpu{core}" for core in _affinity()}, os.sysconf("SC_CLK_TCK")
        rows = [line.split() for line in STAT.read_text().splitlines()]
        worked = sum(int(row[column]) for row in rows if row and row[0] in mine for column in WORKING)
        times = os.times()
        return CoreUse(time.monotonic(), worked / ticks, sum(times[:4]))
    return None


def kept_busy(before: CoreUse | None, after: CoreUse | None) -> float:
    """Average number of cores kept busy by others between two readings; 0 without readings, or if the time was too short.

    Others are assumed to use the cores beyond the container's quota first.
    """
    if before is None or after is None or after.clock - before.clock < SHORTEST:
        return 0.0
    others = (after.worked - before.worked) - (after.own - before.own)
    return max(0.0, others / (after.clock - before.clock) - (len(_affinity()) - usable_cores()))


def free_cores(usable: int, busy: float) -> int:
    """The number of threads to compute with, so that each finds a core.

    Args:
        usable: cores of this process.
        busy: cores of these kept busy by others. However busy they are, at least half of the cores are used: a fair
            scheduler gives this process as much beside one other job.
    """
    return max(1, round(_free(usable, busy)))


def followed_cores(threads: int, usable: int, busy: float) -> int:
    """The number of threads to go on with, after so many of them: as ``free_cores``, where that is clearly another number.

    Threads that share a core measure less than what the others would take, so the number follows in several steps.
    """
    return threads if abs(_free(usable, busy) - threads) < CLEARLY else free_cores(usable, busy)


def _free(usable: int, busy: float) -> float:
    return max(usable - busy, usable / 2)


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _quota() -> float | None:
    """Cores that the control groups of this process may use at a time, the smallest number; None without a limit."""
    quotas = list[float]()
    for folder, is_new in control_groups("cpu").items():
        with suppress(OSError, ValueError, ZeroDivisionError):
            numbers = (folder / QUOTA).read_text().split() if is_new else [(folder / name).read_text() for name in OLD_QUOTA]
            quota, period = map(int, numbers)  # without a limit, the quota is "max" or -1
            quotas += [quota / period] if quota > 0 else []
    return min(quotas, default=None)
