"""``autoseg evaluate``: predictions of any tool against references."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoseg.cli.common import runtime_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.options import EvaluateOptions, Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", required=True, metavar="DIR", help="folder of reference labels")
    parser.add_argument("--predicted", required=True, metavar="DIR", help="folder of predicted labels, same file names")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="folder for report.html, metrics.csv, .json, .md and summary.json"
    )
    add_flags(parser, EvaluateOptions)
    add_flags(parser, Runtime, only=("workers", "engine", "fresh"), help={"fresh": "also overwrite files of other programs"})
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    from autoseg.pipeline import evaluate

    options = options_from(args, EvaluateOptions())
    report = evaluate(Path(args.reference), Path(args.predicted), Path(args.output), options, runtime_of(args))
    print((Path(args.output) / "metrics.json").read_text("utf-8") if args.json else report.table())
    return 1 if report.failures else 0
