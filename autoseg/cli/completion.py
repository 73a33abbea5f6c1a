"""``autoseg completion``: the script for shell completion of our commands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "tcsh")  # supported by shtab
FILES = ("FILE", "JSON")
FOLDERS = ("DIR", "OUT", "DATASET", "SRC", "DST", "SEGMENTATIONS", "PATH", "MODEL", "IN")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="prints the script for this shell")


def run(args: argparse.Namespace) -> int:
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """The completion script of ``autoseg`` for a shell; completing a word then runs no Python.

    Raises:
        AutosegError: shtab, which generates the script, is not installed.
    """
    from autoseg.cli import whole_parser
    from autoseg.errors import AutosegError

    try:
        import shtab
    except ImportError as fault:
        raise AutosegError("completion needs the package shtab. Install it: pip install shtab") from fault
    parser = whole_parser()
    for action in _actions(parser):
        if action.metavar in FILES or action.metavar in FOLDERS:
            action.complete = shtab.FILE if action.metavar in FILES else shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of all verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _actions(part)
        else:
            yield action
