"""The engine for ``NAME[:ADDRESS]``, as given on the command line."""

from __future__ import annotations

from importlib.util import find_spec

from autoseg.engines.local import LocalEngine
from autoseg.engines.steps import Engine
from autoseg.errors import EngineError

__all__ = ["ENGINES", "INSTALL", "engine_of"]

ENGINES = ("local", "dask")
INSTALL = "Install it with: pip install distributed cryptography"


def engine_of(asked: str, workers: int | None = None, devices: tuple[str, ...] = ()) -> Engine:
    """The requested engine; nothing is started or connected yet.

    Args:
        asked: ``local``, ``dask`` for processes of this machine, or ``dask:ADDRESS`` for the workers of a scheduler.
        workers: number of threads, or of processes to start.
        devices: shared by these processes; see ``DaskEngine``.

    Raises:
        EngineError: no engine has that name, or it is not installed.
    """
    name, colon, address = asked.partition(":")
    if name not in ENGINES:
        raise EngineError(f"--engine {asked}: there is no such engine. Known: {', '.join(ENGINES)}")
    if name == "local":
        if colon:
            raise EngineError(f"--engine {asked}: the local engine has no address. Give --engine local")
        return LocalEngine(workers)
    if colon and not address:
        raise EngineError(f"--engine {asked}: expected an address behind the colon, such as tls://node1:8786, or no colon")
    if find_spec("distributed") is None:
        raise EngineError(f"--engine {asked}: the package distributed is not installed. {INSTALL}")
    from autoseg.engines.cluster import DaskEngine  # takes a tenth of a second, too slow for --help

    return DaskEngine(address, workers, devices)
