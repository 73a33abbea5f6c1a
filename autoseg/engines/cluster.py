"""The engine ``dask``: processes of this machine, or of a running cluster, using Dask's ``distributed``.

A step is sent to each worker once and set up there once, so a model stays loaded. Items and outcomes are sent as paths and
values, never as arrays. If a worker dies, it is replaced and its items are repeated; results do not change, because steps
write whole files. If the scheduler dies, finished items stay finished: run the same command again.

A cluster started here listens only on this machine and requires the certificate made for it, since anyone who can connect
to a worker can run code on it. There is no dashboard, and nothing is sent elsewhere.
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


CONNECT_SECONDS = 10.0  # a live scheduler answers much faster
COMING_SECONDS = 30.0  # for the first worker of a cluster that may still be starting
START_SECONDS = 120.0  # for processes of this machine when it is busy
ALONE_SECONDS, SAID_SECONDS = 300.0, 30.0  # without any worker: until an error, and until a message
LOOK_SECONDS = 3.0  # between two checks of the workers, while enough items are out
AHEAD = 2  # items per worker thread: one running, one waiting
STARTS = 3  # attempts to start processes of this machine
DEATHS = 3  # worker deaths that an item survives; after one more, the item is blamed


@dataclass(frozen=True)
class DaskEngine:
    """Maps a step over items in processes.

    Attributes:
        address: of a scheduler: ``tcp://HOST:PORT``, ``tls://HOST:PORT``, or the path of the ``.json`` file that it wrote;
            '' for processes of this machine that last as long as the call.
        workers: number of these processes; None for one per device, or two without devices.
        devices: such as ``cuda:0``; assigned to the processes in turn as the ``device`` of the step; empty for its own.
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
        """As ``steps.Engine``; ``on_done`` is called as items finish, in any order.

        Raises:
            EngineError: no scheduler answers; a worker has other versions, or other files; the scheduler is lost.
            AutosegError: raised by the step's ``setup`` on a worker.
        """
        folder = getattr(step, "folder", None)
        with _client(self) as client, _seen_by_all(folder) as seen, _handed(client, step, seen, self) as key:
            return _map(client, key, enumerate(items), name, on_done or (lambda outcome: None))


@contextmanager
def _handed(client: Any, step: Step, seen: str | None, engine: DaskEngine) -> Iterator[str]:
    """Yields the key under which every worker knows the step; removed on exit."""
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
        with suppress(Exception):  # the scheduler may be gone, which has been reported
            client.unregister_worker_plugin(hand.name)


def _map(
    client: Any, call: str, waiting: Iterator[tuple[int, Any]], name: Callable[[Any], str], on_done: OnDone
) -> list[Outcome]:
    """Submit items, a few ahead of the workers, and collect their outcomes."""
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
    """A worker's outcome of an item. TimeoutError: that worker has died since, and another repeats the item."""
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
    except (CancelledError, OSError) as fault:  # including a closed connection
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
    """Whether scheduler and workers are alive, and how many items may be out."""

    def __init__(self, client: Any) -> None:
        self.client, self.threads, self.looked, self.alone = client, 0, -LOOK_SECONDS, time.monotonic()
        self.is_told = False

    def room(self) -> int:
        """How many items may be out; updated at intervals, as workers come and go."""
        if time.monotonic() - self.looked > LOOK_SECONDS or not self.threads:
            self.check()
        return AHEAD * max(1, self.threads)

    def check(self) -> None:
        """Raise EngineError if the scheduler is gone, or there has been no worker for too long."""
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
    """A client of the scheduler, once it answers and has at least one worker."""
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

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # the error below says the same
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
    """Warn if other machines can reach a scheduler that requires no certificate."""
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
    """A client of our own cluster, which ends with the client, and with this process for whatever reason it ends."""
    import dask.config
    from distributed import Client, LocalCluster, Security

    threads = str(max(1, usable_cores() // workers))
    settings = {
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.scheduler.worker-saturation": 1.0,  # a dying worker loses only the item it was running
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
            threads_per_worker=2 if devices else 1,  # one reads and writes while the other uses the device
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
    """A cluster, started again if one of its workers died during the start.

    Raises:
        EngineError: a worker died at every attempt.
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
    """Delay stop signals to the end of the block: a half-started cluster cannot be closed in order."""
    asked: list[int] = []
    with on_stop_signals(lambda number, frame: asked.append(number)):
        yield
    if asked:
        raise KeyboardInterrupt


@contextmanager
def _seen_by_all(folder: Any) -> Iterator[str | None]:
    """A folder inside the results folder, seen only by workers that share it; None without results."""
    if folder is None:
        yield None
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with draft_folder(Path(folder)) as draft:
        yield os.path.abspath(draft)
