"""The local engine: threads of this process.

Threads, not processes: the work is decompression, BLAS and file access, which release the interpreter lock. No worker can be
killed unnoticed, and a script needs no ``__main__`` guard. A failed case is returned with its exception; the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from autoseg.engines.cores import usable_cores
from autoseg.engines.steps import OnDone, Outcome, Pipelined, Step

__all__ = ["LocalEngine", "default_workers", "map_cases"]


def default_workers() -> int:
    """One thread per usable core, eight at most."""
    return min(8, usable_cores())


@dataclass(frozen=True)
class LocalEngine:
    """Maps a step over items in threads of this process.

    Attributes:
        workers: threads; None for ``default_workers()``; 1 runs a step in the caller's thread. For a pipelined step: threads
            that read and write, and items that may wait in memory before and after the device; None for two.
    """

    workers: int | None = None

    def map(
        self,
        step: Step,
        items: Iterable[Any],
        *,
        name: Callable[[Any], str] = str,
        on_done: OnDone | None = None,
    ) -> list[Outcome]:
        """As ``steps.Engine``. ``KeyboardInterrupt`` stops after the items already begun."""
        runner = step.setup()
        if not isinstance(runner, Pipelined):
            return map_cases(runner.run, items, workers=self.workers, name=name, on_done=on_done)
        found = []
        for outcome in _pipelined(runner, items, name, self.workers or 2):
            found.append(outcome)
            if on_done:
                on_done(outcome)
        return found


def map_cases(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    workers: int | None = None,
    name: Callable[[Any], str] = str,
    on_done: OnDone | None = None,
) -> list[Outcome]:
    """Call ``function(item)`` for every item, several at a time.

    Args:
        function: called in a thread; its exceptions become ``Outcome.error``.
        items: iterable; taken one by one as threads come free, so at most ``workers`` items are in progress.
        workers: number of threads; None for ``default_workers()``; 1 runs in the caller's thread.
        name: item -> the name in its Outcome.
        on_done: called in the caller's thread with each Outcome as it arrives.

    Returns:
        list of Outcome in the order of the items. ``KeyboardInterrupt`` stops after the items already begun.
    """
    workers = default_workers() if workers is None else workers

    def attempt(item: Any) -> Outcome:
        return _attempt(name(item), function, item)

    report = on_done or (lambda outcome: None)
    if workers <= 1:
        outcomes = []
        for item in items:
            outcomes.append(attempt(item))
            report(outcomes[-1])
        return outcomes

    found: dict[int, Outcome] = {}
    running: dict[Future[Outcome], int] = {}
    with ThreadPoolExecutor(workers) as pool:
        for position, item in enumerate(items):
            running[pool.submit(attempt, item)] = position
            if len(running) >= workers:
                _collect(running, found, report)
        while running:
            _collect(running, found, report)
    return [found[position] for position in sorted(found)]


def _attempt(name: str, function: Callable[[Any], Any], value: Any) -> Outcome:
    try:
        return Outcome(name, function(value))
    except Exception as error:  # noqa: BLE001 - reported to the caller, case by case
        return Outcome(name, error=error)


def _collect(running: dict[Future[Outcome], int], found: dict[int, Outcome], report: OnDone) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        outcome = future.result()
        found[running.pop(future)] = outcome
        report(outcome)


def _pipelined(runner: Pipelined, items: Iterable[Any], name: Callable[[Any], str], workers: int) -> Iterator[Outcome]:
    """Yield the Outcome of each item in order; reading, the device and writing of different items overlap."""
    waiting, begun, ending = deque(items), deque[Future[Outcome]](), deque[Future[Outcome]]()
    pool = ThreadPoolExecutor(workers)
    try:
        while waiting or begun:
            while waiting and len(begun) < workers:
                item = waiting.popleft()
                begun.append(pool.submit(_attempt, name(item), runner.begin, item))
            worked = _then(begun.popleft().result(), runner.work)
            ending.append(pool.submit(_then, worked, runner.finish))
            while ending and (len(ending) > workers or ending[0].done()):
                yield ending.popleft().result()
        while ending:
            yield ending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _then(outcome: Outcome, function: Callable[[Any], Any]) -> Outcome:
    """``function`` applied to the value; a failure stays as it is."""
    return outcome if outcome.error else _attempt(outcome.name, function, outcome.value)
