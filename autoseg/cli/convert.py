"""``autoseg convert``: a known file layout to a data-set folder."""

from __future__ import annotations

import argparse

from autoseg.cli.common import check_json_file, print_findings, runtime_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.data.layouts import LAYOUTS
from autoseg.options import ConvertOptions, Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layout", metavar="LAYOUT", help=", ".join(LAYOUTS))
    sources = "the downloaded folder; folders: of the scans, or a table of the cases; join: a data-set folder. Never written to"
    parser.add_argument("source", metavar="SRC", help=sources)
    parser.add_argument("target", metavar="DST", help="the data-set folder to make")
    add_flags(parser, ConvertOptions)
    add_flags(parser, Runtime, only=("workers",))
    parser.add_argument("--json", metavar="FILE", help="also write the findings to FILE ('-' for standard output)")


def run(args: argparse.Namespace) -> int:
    from autoseg.pipeline import convert
    from autoseg.places import FINDINGS

    check_json_file(args.json, FINDINGS)
    done = convert(args.layout, args.source, args.target, options_from(args, ConvertOptions()), runtime_of(args))
    print_findings(done.findings, args.json, done.summary())
    return 1 if done.left_out or done.failures else 0
