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
    """The workspace that the arguments, or else the environment, name."""
    from autoseg.workspace import Workspace  # with numpy: too slow for --help

    return Workspace(Path(args.workspace or os.environ.get("AUTOSEG_WORKSPACE") or "autoseg_workspace").absolute())


def place_among_ranks() -> tuple[int, int, int, int]:
    """What ``torchrun`` says of this process: its number and that of all, and both on this machine; without it (0, 1, 0, 1)."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ):
        return 0, 1, 0, 1
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    index, count, local, here = (int(os.environ.get(name, default)) for name, default in names.items())
    return index, count, local, here


def runtime_of(args: argparse.Namespace) -> Runtime:
    """The Runtime that the arguments say, with progress on standard error."""
    from dataclasses import replace

    from autoseg.cli.flags import options_from
    from autoseg.options import Runtime

    return replace(options_from(args, Runtime()), progress=Progress(args.quiet))


def asked_threads() -> int | None:
    """The threads that the environment asks for by one plain number."""
    words = os.environ.get("OMP_NUM_THREADS", "")
    return int(words) if words.isdecimal() and int(words) else None


def share_cores(before: CoreUse | None, device: str, remedy: str = "OMP_NUM_THREADS") -> None:
    """Compute with the cores that others left free since ``before``, and say so where that is not all of them.

    Args:
        before: from before torch was imported, which takes long enough to see what others do.
        device: that computes; on others than a CPU nothing is done, as where the environment has a number of threads.
        remedy: how to ask for another number.
    """
    from autoseg.engines import core_use, free_cores, kept_busy, usable_cores
    from autoseg.networks.cpu import use_at_most
    from autoseg.networks.devices import choose_device

    if "OMP_NUM_THREADS" in os.environ or "," in device or choose_device(device).type != "cpu":
        return
    usable, busy = usable_cores(), kept_busy(before, core_use())
    if use_at_most(threads := free_cores(usable, busy)) and threads < usable:
        told = "other programs keep %.1f of %d cores busy: networks use %d of them (%s sets another number)"
        logger.info(told, busy, usable, threads, remedy)


def install_log(quiet: bool = False, silent: bool = False) -> None:
    """Show what the package logs on standard error: sentences as they are, warnings as such; with ``quiet`` those alone.

    With ``silent`` not even those: another process of this training shows them.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Sentences())
    log = logging.getLogger("autoseg")
    log.handlers[:] = [handler]
    log.setLevel(logging.ERROR if silent else logging.WARNING if quiet else logging.INFO)


class _Sentences(logging.Formatter):
    """The message, with what it is about before it, and ``warning: `` where it is one."""

    def format(self, record: logging.LogRecord) -> str:
        from autoseg.engines import said_of

        told = said_of(record.getMessage())
        return f"warning: {told}" if record.levelno >= logging.WARNING else told


def print_findings(findings: Any, file: str | None, summary: Callable[[], str], fresh: bool = False) -> None:
    """Print a summary, and write findings as JSON to a file where one is named; for ``-`` print these instead."""
    from autoseg.places import FINDINGS, refuse_foreign
    from autoseg.workspace import write_json
    from planners.records import to_json

    if file == "-":
        print(json.dumps(to_json(findings), indent=1))
        return
    if file:
        if not fresh:
            refuse_foreign(Path(file), FINDINGS)
        write_json(file, findings)
    print(summary())


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
