"""``autoseg compare``: several networks under one plan, one recipe and one budget."""

from __future__ import annotations

import argparse

from autoseg.cli.common import check_json_file, runtime_of, share_cores, workspace_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.engines import core_use
from autoseg.options import CompareOptions, Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder, name or number of a data set")
    parser.add_argument("fold", metavar="FOLD", help="the fold (0 to 4) whose validation cases are compared")
    add_flags(parser, CompareOptions, short={"target": "-o"})
    parser.add_argument("--json", metavar="FILE", help="also write everything to FILE ('-' for standard output)")
    meant = {"fresh": "train all again"}
    add_flags(parser, Runtime, only=("device", "workers", "fresh"), help=meant)


def run(args: argparse.Namespace) -> int:
    before = core_use()
    from autoseg.pipeline import compare
    from autoseg.places import COMPARISON
    from autoseg.workspace import write_text

    check_json_file(args.json, COMPARISON, fresh=args.fresh)
    share_cores(before, args.device)  # for predictions with closed gates; each training run checks for itself
    compared = compare(args.dataset, args.fold, workspace_of(args), options_from(args, CompareOptions()), runtime_of(args))
    everything = (compared.folder / COMPARISON).read_text("utf-8")
    if args.json and args.json != "-":
        write_text(args.json, everything)
    print(everything if args.json == "-" else compared.summary())
    return 1 if compared.failures else 0
