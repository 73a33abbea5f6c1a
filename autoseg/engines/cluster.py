"""The engine ``dask``: processes of this machine, or of a cluster that runs already, by Dask's ``distributed``.

A step travels to each worker once and is set up there once, so a model stays loaded; items and what becomes of them travel,
and these are paths and values, never arrays. A worker that dies is replaced and its items are done again, which no result
shows, because steps write whole files. What has been done stays done where the scheduler dies: the same command goes on.

What is started here listens on this machine alone and lets in nobody without the certificate made for it, since whoever may
speak to a worker may run code on it. Nothing is shown in a browser, and nothing is sent to anybody.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from autoseg.atomic import draft_folder
from autoseg.engines.choice import INSTALL
from autoseg.engines.cores import usable_cores
from autoseg.engines.processes import on_stop_signals
from autoseg.engines.steps import OnDone, Outcome, Step, reason_of
from autoseg.errors import AutosegError, EngineError

__all__ = ["DaskEngine"]

logger = logging.getLogger(__name__)


CONNECT_SECONDS = 10.0  # a scheduler that lives answers in far less
COMING_SECONDS = 30.0  # for the first worker of a cluster, which may be starting
START_SECONDS = 120.0  # for processes of this machine, on a busy one
ALONE_SECONDS, SAID_SECONDS = 300.0, 30.0  # without any worker, before that is an error, and before it is said
LOOK_SECONDS = 3.0  # between two looks at the workers, while there is enough to do
AHEAD = 2  # items handed out for each thread of the workers: one that is done, one that waits
STARTS = 3  # attempts to start processes of this machine
DEATHS = 3  # of workers that an item survives; one more, and it is the item that kills them


@dataclass(frozen=True)
class DaskEngine:
    """Maps a step over items in processes.

    Attributes:
        address: of a scheduler, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``, or the path of the ``.json`` file that it wrote;
            '' for processes of this machine that live as long as the call.
        workers: how many of these; None for one on each device, or two.
        devices: such as ``cuda:0``, one for each of them in turn, as the ``device`` of the step; empty for its own.
    """

    address: str = ""
    workers: int | None = None
    devices: tuple[str, ...] = ()

    def map(
        self,
        step: Step,
        items: Iterable[Any],
        *,
        name: Callable[[Any], str] = str,
        on_done: OnDone | None = None,
    ) -> list[Outcome]:
        """As ``steps.Engine``; ``on_done`` is called as items are done, in whatever order.

        Raises:
            EngineError: nobody answers; a worker is of other versions, or does not see the same files; the scheduler is lost.
            AutosegError: of the step's ``setup``, on a worker.
        """
        folder = getattr(step, "folder", None)
        with _client(self) as client, _seen_by_all(folder) as seen, _handed(client, step, seen, self) as key:
            return _map(client, key, enumerate(items), name, on_done or (lambda outcome: None))


@contextmanager
def _handed(client: Any, step: Step, seen: str | None, engine: DaskEngine) -> Iterator[str]:
    """The key under which every worker knows the step, as long as it lasts."""
    from distributed.protocol.pickle import dumps

    from autoseg.engines.bench import Call, HandStep, about

    ours = not engine.address
    call = Call(uuid4().hex, os.getcwd(), seen, about(), dumps(step), ours, engine.devices if ours else ())
    hand = HandStep(call)
    try:
        client.register_plugin(hand)
    except Exception as fault:
        raise _unfit(client.scheduler.address, fault) from fault
    try:
        yield hand.call.key
    finally:
        with suppress(Exception):  # the scheduler may be gone, which was an error already
            client.unregister_worker_plugin(hand.name)


def _map(
    client: Any, call: str, waiting: Iterator[tuple[int, Any]], name: Callable[[Any], str], on_done: OnDone
) -> list[Outcome]:
    """Hand items out, a few ahead of the workers, and take in what becomes of them."""
    from autoseg.engines.bench import try_item

    arrived: SimpleQueue[Any] = SimpleQueue()
    running: dict[Any, tuple[int, str]] = {}
    found: dict[int, Outcome] = {}
    pulse = _Pulse(client)
    while True:
        for position, item in islice(waiting, max(0, pulse.room() - len(running))):
            future = client.submit(try_item, call, name(item), item, key=f"autoseg-{call}-{position}", pure=False)
            running[future] = (position, name(item))
            future.add_done_callback(arrived.put)
        if not running:
            return [found[position] for position in sorted(found)]
        try:
            future = arrived.get(timeout=1.0)
        except Empty:
            pulse.check()
            continue
        position, label = running[future]
        try:
            found[position] = outcome = _outcome(future, label, client)
        except (TimeoutError, asyncio.TimeoutError):
            pulse.check()
            arrived.put(future)
            continue
        del running[future]
        future.release()
        on_done(outcome)


def _outcome(future: Any, name: str, client: Any) -> Outcome:
    """What a worker says of an item. TimeoutError: the worker that said it has died since, and another one is at it."""
    from distributed import KilledWorker

    address = client.scheduler.address
    if future.status == "cancelled":
        raise _lost(address)
    try:
        tried = future.result(timeout=CONNECT_SECONDS)
    except KilledWorker:
        why = f"{DEATHS + 1} workers died while they computed it, as happens when memory runs out"
        remedy = "Give it a worker with more memory, or try it alone with --engine local"
        return Outcome(name, error=EngineError(f"{why}. {remedy}"))
    except (AutosegError, TimeoutError, asyncio.TimeoutError):
        raise
    except (CancelledError, OSError) as fault:  # a connection that is closed among them
        raise _lost(address) from fault
    except Exception as fault:
        raise (_unfit(address, fault) if client.status == "running" else _lost(address)) from fault
    for logger_name, level, message in tried.said:
        logging.getLogger(logger_name).log(level, "%s", message)
    outcome: Outcome = tried.outcome
    return outcome


def _unfit(address: str, fault: BaseException) -> EngineError:
    remedy = "Start the workers from the Python environment of this command"
    return EngineError(f"a worker of {address} cannot do the work: {reason_of(fault)}. {remedy}")


def _lost(address: str) -> EngineError:
    return EngineError(
        f"the scheduler at {address} is lost. What was finished stays; start it again and give the same command, which goes on"
    )


class _Pulse:
    """Whether scheduler and workers live, and how many items may be out."""

    def __init__(self, client: Any) -> None:
        self.client, self.threads, self.looked, self.alone = client, 0, -LOOK_SECONDS, time.monotonic()
        self.is_told = False

    def room(self) -> int:
        """How many items may be out; looked up now and then, as workers come and go."""
        if time.monotonic() - self.looked > LOOK_SECONDS or not self.threads:
            self.check()
        return AHEAD * max(1, self.threads)

    def check(self) -> None:
        """Raise EngineError where the scheduler is gone, or there has been no worker for long."""
        if self.client.status != "running":
            raise _lost(self.client.scheduler.address)
        try:
            self.threads = sum(self.client.nthreads().values())
        except Exception as fault:
            raise _lost(self.client.scheduler.address) from fault
        self.looked = time.monotonic()
        self.alone = self.looked if self.threads else self.alone
        if self.looked - self.alone > SAID_SECONDS and not self.is_told:
            self.is_told = True
            logger.warning("no worker is there; waiting for one, %g s at most", ALONE_SECONDS)
        if self.looked - self.alone > ALONE_SECONDS:
            raise EngineError(
                f"the scheduler at {self.client.scheduler.address} has had no worker for {ALONE_SECONDS:g} s. "
                "Start workers, then give the same command, which goes on"
            )


@contextmanager
def _client(engine: DaskEngine) -> Iterator[Any]:
    """A client of the scheduler that answers, with a worker or more."""
    import dask.config

    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_SECONDS:g}s"}))
        if engine.address:
            client = stack.enter_context(_of_address(engine.address))
            _wait_for_workers(client, engine.address)
            _tell_trust(client.scheduler.address)
        else:
            client = stack.enter_context(_of_this_machine(engine.workers or len(engine.devices) or 2, len(engine.devices)))
        yield client


@contextmanager
def _of_address(address: str) -> Iterator[Any]:
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it knows is in the error below
    is_file = address.endswith(".json")
    if is_file and not Path(address).is_file():
        raise EngineError(f"{address}: there is no such file. Give the --scheduler-file that `dask scheduler` wrote")
    try:
        client = Client(scheduler_file=address) if is_file else Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, KeyError) as fault:
        raise EngineError(
            f"--engine dask:{address}: no scheduler answers there ({reason_of(fault)}). Start one with `dask scheduler`, and "
            "workers with `dask worker`, or correct the address, such as tls://node1:8786"
        ) from fault
    try:
        yield client
    finally:
        client.close(timeout=2.0)


def _wait_for_workers(client: Any, address: str) -> None:
    until = time.monotonic() + COMING_SECONDS
    if not client.nthreads():
        logger.warning("the scheduler at %s has no worker yet; waiting for one, %g s at most", address, COMING_SECONDS)
    while not client.nthreads():
        if time.monotonic() > until:
            raise EngineError(f"the scheduler at {address} has no worker. Start some: dask worker {address} --nthreads 1")
        time.sleep(0.1)


def _tell_trust(address: str) -> None:
    """Warn where strangers may reach a scheduler that asks for no certificate."""
    scheme, _, place = address.rpartition("://")
    host = place.rpartition(":")[0].strip("[]")
    with suppress(ValueError):
        if scheme == "tcp" and not ipaddress.ip_address(host).is_loopback:
            logger.warning(
                "%s: anyone who reaches this scheduler can run code as you. Give it certificates (tls://), see SECURITY.md",
                address,
            )


@contextmanager
def _of_this_machine(workers: int, devices: int) -> Iterator[Any]:
    """A client of a cluster of our own, which ends with it, and with this process however that ends."""
    import dask.config
    from distributed import Client, LocalCluster, Security

    threads = str(max(1, usable_cores() // workers))
    settings = {
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.scheduler.worker-saturation": 1.0,  # a worker that dies takes no item with it but the one it was at
        "distributed.diagnostics.nvml": False,
        "distributed.nanny.pre-spawn-environ": {f"{name}_NUM_THREADS": threads for name in ("OMP", "MKL", "OPENBLAS")},
        "distributed.comm.timeouts.connect": f"{START_SECONDS:g}s",
    }
    try:
        security = Security.temporary()
    except ImportError as fault:
        raise EngineError(f"--engine dask: {reason_of(fault)}. {INSTALL}") from fault
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="autoseg-dask-", ignore_cleanup_errors=True))
        stack.enter_context(dask.config.set(settings))
        start = partial(
            LocalCluster,
            n_workers=workers,
            threads_per_worker=2 if devices else 1,  # one reads and writes while the device has the item of the other
            host="tls://127.0.0.1",
            security=security,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            dashboard_address=None,
            memory_limit=0,
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        )
        with _stopped_afterwards():
            cluster = stack.enter_context(_started(start))
        yield stack.enter_context(Client(cluster, set_as_default=False))


def _started(start: Callable[[], Any]) -> Any:
    """A cluster, begun anew where one of its workers died before it was there.

    Raises:
        EngineError: one died each time.
    """
    for left in reversed(range(STARTS)):
        try:
            return start()
        except RuntimeError as fault:
            why = f"the workers of --engine dask do not start: {reason_of(fault)}"
            if not left:
                remedy = "Check whether there is enough memory for them, start fewer (--workers 1), or use --engine local"
                raise EngineError(f"{why}, {STARTS} times. {remedy}") from fault
            logger.warning("%s; starting them again", why)
    raise AssertionError("unreachable: the last attempt returns or raises")


@contextmanager
def _stopped_afterwards() -> Iterator[None]:
    """Who asks to stop meanwhile is heard at the end: a cluster that is half started cannot be closed in order."""
    asked: list[int] = []
    with on_stop_signals(lambda number, frame: asked.append(number)):
        yield
    if asked:
        raise KeyboardInterrupt


@contextmanager
def _seen_by_all(folder: Any) -> Iterator[str | None]:
    """A folder within that of the results, which only a worker with the same folder sees; None where there are no results."""
    if folder is None:
        yield None
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with draft_folder(Path(folder)) as draft:
        yield os.path.abspath(draft)
