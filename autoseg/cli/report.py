"""``autoseg report``: the HTML report of a run, of predictions, of reconstructions, or of an evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoseg.cli.common import runtime_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.options import ReportOptions, Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    told = "a run's fold (runs/DATASET/RUN/fold_0), a study (studies/DATASET/NAME), or results of another verb"
    parser.add_argument("path", metavar="PATH", help=told)
    add_flags(parser, ReportOptions)
    add_flags(parser, Runtime, only=("workers", "fresh"), help={"fresh": "also overwrite a report.html of another program"})


def run(args: argparse.Namespace) -> int:
    from autoseg.pipeline import report

    print(report(Path(args.path), options_from(args, ReportOptions()), runtime_of(args)).summary())
    return 0
