"""A stage of the pipeline as a value, and the outcome of each case.

A *step* is a frozen dataclass of paths and options, so it pickles. ``setup`` is called once per worker and returns the runner
for the cases; what is slow to load (a model, a plan) is loaded there. Workers receive paths, not arrays. An *engine* maps a
step over items; a step does not know its engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from autoseg.errors import AutosegError

__all__ = ["Engine", "OnDone", "Outcome", "Pipelined", "Runner", "Step", "reason_of", "values_of"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one item: ``value``, or the ``error`` (an Exception) that its function raised."""

    name: str
    value: Any = None
    error: Exception | None = None


OnDone = Callable[[Outcome], object]


class Runner(Protocol):
    """What a worker does with each item."""

    def run(self, item: Any) -> Any: ...


@runtime_checkable
class Pipelined(Protocol):
    """A runner in three parts; an engine may run different parts for different items at the same time.

    ``begin`` reads, ``work`` uses the device (one item at a time), ``finish`` writes. Each receives the result of the last.
    """

    def begin(self, item: Any) -> Any: ...

    def work(self, begun: Any) -> Any: ...

    def finish(self, worked: Any) -> Any: ...


class Step(Protocol):
    """A stage, ready to be sent to a worker."""

    def setup(self) -> Runner | Pipelined: ...


class Engine(Protocol):
    """Runs a step: one Outcome for each item, in the order of the items, even if others fail."""

    def map(
        self,
        step: Step,
        items: Iterable[Any],
        *,
        name: Callable[[Any], str] = str,
        on_done: OnDone | None = None,
    ) -> list[Outcome]: ...


def values_of(outcomes: Sequence[Outcome]) -> list[Any]:
    """The values of outcomes, in their order; raises the first error, if there is one."""
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def reason_of(error: BaseException) -> str:
    """Why something failed, never empty: the message of our own errors, with its class for others."""
    text = str(error).strip()
    return text if isinstance(error, AutosegError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
