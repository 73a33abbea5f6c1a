"""What several verbs share: the workspace, the runtime, the log, progress, and findings."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.engines import CoreUse
    from autoseg.options import Runtime
    from autoseg.workspace import Workspace

__all__ = [
    "Progress",
    "add_common",
    "asked_threads",
    "check_json_file",
    "install_log",
    "place_among_ranks",
    "print_findings",
    "runtime_of",
    "share_cores",
    "workspace_of",
]

logger = logging.getLogger(__name__)


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options that every verb has."""
    common = parser.add_argument_group("common options")
    common.add_argument("--workspace", metavar="DIR", help="default: $AUTOSEG_WORKSPACE, else ./autoseg_workspace")
    common.add_argument("--quiet", action="store_true", help="no progress; warnings are still shown")
    common.add_argument("--debug", action="store_true", help="show tracebacks")


def workspace_of(args: argparse.Namespace) -> Workspace:
    """The workspace named by the arguments, or else by the environment."""
    from autoseg.workspace import Workspace  # with numpy: too slow for --help

    return Workspace(Path(args.workspace or os.environ.get("AUTOSEG_WORKSPACE") or "autoseg_workspace").absolute())


def place_among_ranks() -> tuple[int, int, int, int]:
    """(rank, world size, local rank, local world size) from ``torchrun``; (0, 1, 0, 1) without it."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ):
        return 0, 1, 0, 1
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    index, count, local, here = (int(os.environ.get(name, default)) for name, default in names.items())
    return index, count, local, here


def runtime_of(args: argparse.Namespace) -> Runtime:
    """The Runtime given by the arguments, with progress on standard error."""
    from dataclasses import replace

    from autoseg.cli.flags import options_from
    from autoseg.options import Runtime

    return replace(options_from(args, Runtime()), progress=Progress(args.quiet))


def asked_threads() -> int | None:
    """The number of threads set in the environment, if it is one plain number."""
    words = os.environ.get("OMP_NUM_THREADS", "")
    return int(words) if words.isdecimal() and int(words) else None


def share_cores(before: CoreUse | None, device: str, remedy: str = "OMP_NUM_THREADS") -> bool:
    """Compute with the cores that other programs have left free since ``before``; log it if these are not all cores.

    Args:
        before: core use before torch was imported; the import takes long enough to see the load of other programs.
        device: device to compute on. Nothing is changed unless it is a CPU, or if the environment sets the threads.
        remedy: what sets another number, for the message.

    Returns:
        whether the number of threads is ours to choose.
    """
    from autoseg.engines import core_use, free_cores, kept_busy, usable_cores
    from autoseg.networks.cpu import use_at_most
    from autoseg.networks.devices import choose_device

    if "OMP_NUM_THREADS" in os.environ or "," in device or choose_device(device).type != "cpu":
        return False
    usable, busy = usable_cores(), kept_busy(before, core_use())
    if use_at_most(threads := free_cores(usable, busy)) and threads < usable:
        told = "other programs keep %.1f of %d cores busy: networks use %d of them (%s sets another number)"
        logger.info(told, busy, usable, threads, remedy)
    return True


def install_log(quiet: bool = False, silent: bool = False) -> None:
    """Show the package's log on standard error, with warnings marked; with ``quiet`` only the warnings.

    With ``silent`` nothing is shown: another process of the same training run shows the log.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Sentences())
    log = logging.getLogger("autoseg")
    log.handlers[:] = [handler]
    log.setLevel(logging.ERROR if silent else logging.WARNING if quiet else logging.INFO)


class _Sentences(logging.Formatter):
    """The message after its subject, with ``warning: `` in front of warnings."""

    def format(self, record: logging.LogRecord) -> str:
        from autoseg.engines import said_of

        told = said_of(record.getMessage())
        return f"warning: {told}" if record.levelno >= logging.WARNING else told


def check_json_file(file: str | None, kind: str, *, fresh: bool | None = None) -> None:
    """Check, before the work, that the FILE of ``--json`` can be written; AutosegError if not.

    Args:
        kind: of the file, as in ``places``; a file of another kind is kept, unless ``fresh``.
        fresh: whether ``--fresh`` was given; None if the verb has no such option.
    """
    from autoseg.ledger import FOREIGN, NOT_OURS
    from autoseg.places import refuse_foreign
    from autoseg.room import check_writable

    if file and file != "-":
        if not fresh:
            refuse_foreign(Path(file), kind, why=NOT_OURS if fresh is None else FOREIGN)
        check_writable(Path(file).absolute().parent)


def print_findings(findings: Any, file: str | None, summary: str) -> None:
    """Print a summary, and write findings as JSON to ``file`` if it is given; ``-`` prints the JSON instead."""
    from autoseg.workspace import write_json
    from planners.records import to_json

    if file == "-":
        print(json.dumps(to_json(findings), indent=1))
        return
    if file:
        write_json(file, findings)
    print(summary)


class Progress:
    """A bar on a terminal, a line every tenth of the work in a log, nothing with ``quiet``.

    ``progress(title, total)`` returns a function to call with the Outcome of each case.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, title: str, total: int) -> Callable[[Any], object]:
        if self.quiet or not total:
            return lambda outcome: None
        if sys.stderr.isatty():
            from tqdm import tqdm

            bar = tqdm(total=total, desc=title, unit="case", file=sys.stderr)
            return lambda outcome: (bar.update(), bar.n >= total and bar.close())
        done: list[Any] = []

        def line(outcome: Any) -> None:
            done.append(outcome)
            if len(done) == total or len(done) * 10 // total > (len(done) - 1) * 10 // total:
                print(f"{title}: {len(done)} of {total}", file=sys.stderr, flush=True)

        return line
