"""``autoseg train``: one fold, several, or all cases; then its validation cases predicted and scored."""

from __future__ import annotations

import argparse

from autoseg.cli.common import runtime_of, workspace_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.options import Runtime, TrainOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder, name or number of a data set")
    parser.add_argument(
        "fold",
        metavar="FOLD",
        help="a fold (0 to 4), several (0,1,2 or 0-4, with one report at the end), or all (every case, no validation)",
    )
    add_flags(parser, TrainOptions)
    meant = {
        "fresh": "start again from step 0 and replace an earlier run of this name",
        "workers": "threads for preparing and scoring",
    }
    add_flags(parser, Runtime, help=meant)


def run(args: argparse.Namespace) -> int:
    from autoseg.pipeline import train

    options = options_from(args, TrainOptions())
    folds = train(
        args.dataset,
        args.fold,
        workspace_of(args),
        options,
        runtime_of(args),
        on_training=lambda training: _show(training.explain(decisions=options.explain), options),
        on_fold=lambda fold: print(fold.summary(), flush=True),
        on_report=lambda found: print(found.summary(), flush=True),
    )
    return 1 if any(fold.failures for fold in folds) else 0


def _show(text: str, options: TrainOptions) -> None:
    if options.dry_run or options.explain:
        print(text, flush=True)
