"""Doing the same to many cases at once.

Threads, not processes: the work is decompression, BLAS and file access, which release the interpreter lock; nothing is
pickled, no worker can be killed unseen, and a script needs no ``__main__`` guard. A case that fails is returned as a
failure with its exception, and the others go on.
"""

import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome", "default_workers", "map_cases"]


@dataclass(frozen=True)
class Outcome:
    """What became of one item: ``value``, or the ``error`` (an Exception) that its function raised."""

    name: str
    value: Any = None
    error: Exception | None = None


def default_workers():
    """As many threads as this process may use cores, eight at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def map_cases(function: Callable, items, *, workers: int | None = None, name: Callable = str, on_done=None):
    """Call ``function(item)`` for every item, several at a time.

    Args:
        function: called in a thread; its exceptions become ``Outcome.error``.
        items: iterable; taken one by one as threads come free, so at most ``workers`` results are in the making.
        workers: number of threads; None for ``default_workers()``; 1 runs in the caller's thread.
        name: item -> the name in its Outcome.
        on_done: called in the caller's thread with each Outcome as it comes.

    Returns:
        list of Outcome in the order of the items. ``KeyboardInterrupt`` stops after the items already begun.
    """
    workers = default_workers() if workers is None else workers

    def attempt(item):
        try:
            return Outcome(name(item), function(item))
        except Exception as error:  # noqa: BLE001 - reported to the caller, case by case
            return Outcome(name(item), error=error)

    report = on_done or (lambda outcome: None)
    if workers <= 1:
        outcomes = []
        for item in items:
            outcomes.append(attempt(item))
            report(outcomes[-1])
        return outcomes

    found, running = {}, {}
    with ThreadPoolExecutor(workers) as pool:
        for position, item in enumerate(items):
            running[pool.submit(attempt, item)] = position
            if len(running) >= workers:
                _collect(running, found, report)
        while running:
            _collect(running, found, report)
    return [found[position] for position in sorted(found)]


def _collect(running, found, report):
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        outcome = future.result()
        found[running.pop(future)] = outcome
        report(outcome)
