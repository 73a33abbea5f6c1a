"""``autoseg demo``: synthetic scans, planned, trained, predicted and scored on this machine."""

from __future__ import annotations

import argparse

from autoseg.cli.common import runtime_of, share_cores
from autoseg.cli.flags import add_flags, told
from autoseg.engines import core_use
from autoseg.options import Runtime
from autoseg.options.parsing import duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", default="autoseg_demo", metavar="DIR", help="folder for all results (default ./autoseg_demo)"
    )
    parser.add_argument(
        "--time", type=told(duration), default=duration("2m"), metavar="2m", help="length of the training run (default 2m)"
    )
    add_flags(
        parser, Runtime, only=["device", "fresh"], help={"fresh": "train again, even if the folder holds an earlier demo"}
    )


def run(args: argparse.Namespace) -> int:
    before = core_use()
    from autoseg.pipeline import demo

    share_cores(before, args.device)
    result = demo(args.folder, args.time, runtime_of(args))
    print(result.summary())
    return 1 if result.failures else 0
