"""``autoseg recipe``: every setting of a training run, and where its value comes from."""

from __future__ import annotations

import argparse
import json

from autoseg.cli.common import runtime_of, workspace_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.options import Runtime, TrainOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    about = "folder, name or number of a data set; also shows what is decided for it"
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help=about)
    parser.add_argument("--show", action="store_true", help="every setting, its value, meaning and source (default)")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    add_flags(parser, TrainOptions, only=("network",))
    add_flags(parser, Runtime, only=("device",))


def run(args: argparse.Namespace) -> int:
    from autoseg.pipeline import show_recipe

    options = options_from(args, TrainOptions())
    found = show_recipe(options, args.dataset, workspace_of(args), runtime_of(args))
    print(json.dumps(found.as_json(), indent=1) if args.json else found.summary())
    return 0
