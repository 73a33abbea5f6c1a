"""What a worker of the ``dask`` engine does: it keeps a step set up and runs it on the items it receives."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from platform import python_version_tuple
from typing import Any

from distributed import WorkerPlugin
from distributed.protocol.pickle import loads

from autoseg import __version__, errors
from autoseg.engines.steps import Outcome, Pipelined, reason_of
from autoseg.errors import AutosegError, EngineError

__all__ = ["Call", "HandStep", "Tried", "about", "try_item"]


@cache
def about() -> dict[str, str]:
    """The versions that must match at both ends, so that results agree and pickled values can be read."""
    found = {"python": ".".join(python_version_tuple()[:2]), "autoseg": __version__}
    for package in ("distributed", "numpy", "torch"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@dataclass(frozen=True)
class Call:
    """What a worker must know about a call of ``map``.

    Attributes:
        key: unique to the call.
        folder: base of relative paths.
        seen: a folder that the workers must also see.
        versions: as returned by ``about``.
        step: the step, serialised by Dask; deserialised where it is set up, since that may take seconds.
        ours: the workers were started for this call, which ends them; they ignore Ctrl+C, which is for the command.
        devices: assigned to workers in turn by their number; empty for the device of the step.
    """

    key: str
    folder: str
    seen: str | None
    versions: dict[str, str]
    step: bytes
    ours: bool
    devices: tuple[str, ...] = ()


class HandStep(WorkerPlugin):  # type: ignore[misc,unused-ignore]
    """Sends a call to every worker, including those that join later, and removes it at the end."""

    def __init__(self, call: Call) -> None:
        self.call, self.name = call, f"autoseg-{call.key}"

    def setup(self, worker: Any) -> None:
        devices = self.call.devices
        _BENCH.calls[self.call.key] = (self.call, devices[int(worker.name) % len(devices)] if devices else "")
        if self.call.ours:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def teardown(self, worker: Any) -> None:
        _BENCH.forget(self.call.key)


@dataclass(frozen=True)
class Tried:
    """The outcome of an item, and what was logged during it: (logger, level, message)."""

    outcome: Outcome
    said: tuple[tuple[str, int, str], ...]


def try_item(key: str, name: str, item: Any) -> Tried:
    """Run the step of a call on an item, in a worker. Raises EngineError if the fault lies with the worker."""
    with _BENCH.runner(key) as runner, _listening() as said:
        try:
            value = _run(runner, item)
        except Exception as error:  # noqa: BLE001 - reported to the caller, item by item
            return Tried(Outcome(name, error=_portable(error)), tuple(said))
        return Tried(Outcome(name, value), tuple(said))


def _run(runner: Any, item: Any) -> Any:
    if not isinstance(runner, Pipelined):
        return runner.run(item)
    begun = runner.begin(item)  # with several threads per worker, reading and writing overlap with the device
    with _BENCH.device:
        worked = runner.work(begun)
    return runner.finish(worked)


def _portable(error: Exception) -> AutosegError:
    """An error of a type known at both ends, with the same reason."""
    cls = getattr(errors, type(error).__name__, AutosegError) if isinstance(error, AutosegError) else AutosegError
    return cls(reason_of(error))


class _Bench:
    """The calls known to this process, and the runner of one; another call's runner replaces it once it is unused."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[Call, str]] = {}  # with the device of this process, '' for the step's own
        self.changed, self.device = threading.Condition(), threading.Lock()
        self.key, self.users, self.loaded = "", 0, None

    @contextmanager
    def runner(self, key: str) -> Iterator[Any]:
        with self.changed:
            self.changed.wait_for(lambda: self.key == key or not self.users)
            if self.key != key:
                self.key, self.loaded = "", None  # before the next is loaded: two may not fit
                self.loaded = _set_up(*self.calls[key])
                self.key = key
            self.users += 1
            runner = self.loaded
        try:
            yield runner
        finally:
            with self.changed:
                self.users -= 1
                self.changed.notify_all()

    def forget(self, key: str) -> None:
        """Drop a call and what was loaded for it, without waiting for items still running."""
        self.calls.pop(key, None)
        if self.key == key:
            self.key, self.loaded = "", None


_BENCH = _Bench()


def _set_up(call: Call, device: str) -> Any:
    """The runner of a step, in this worker."""
    where = f"the worker on {socket.gethostname()}"
    other = [
        f"{name} {about().get(name, 'none')} instead of {wanted}"
        for name, wanted in call.versions.items()
        if about().get(name) != wanted
    ]
    if other:
        raise EngineError(f"{where} has {', '.join(other)}. Start the workers from the environment of this command")
    remedy = "Keep data, models and results on a disk that all machines see under the same path"
    try:
        os.chdir(call.folder)
    except OSError as fault:
        raise EngineError(f"{where} does not see the folder {call.folder} ({fault.strerror}). {remedy}") from fault
    if call.seen and not os.path.exists(call.seen):
        raise EngineError(f"{where} sees another folder {os.path.dirname(call.seen)} than this command. {remedy}")
    try:
        step = loads(call.step)
        return (replace(step, device=device) if device else step).setup()
    except Exception as fault:
        raise EngineError(f"{where} cannot begin: {reason_of(fault)}. {remedy}") from fault


@contextmanager
def _listening() -> Iterator[list[tuple[str, int, str]]]:
    """Collects what this thread logs as a warning or worse, for the caller's log."""
    said: list[tuple[str, int, str]] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == threading.get_ident():
                said.append((record.name, record.levelno, record.getMessage()))

    ear, log = Ear(logging.WARNING), logging.getLogger("autoseg")
    log.addHandler(ear)
    try:
        yield said
    finally:
        log.removeHandler(ear)
