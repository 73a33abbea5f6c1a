"""``autoseg train``: one fold, several, or all cases; then its validation cases predicted and scored."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from autoseg.cli.common import asked_threads, install_log, place_among_ranks, runtime_of, share_cores, workspace_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.engines import core_use
from autoseg.errors import AutosegError
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
        "fresh": "start again from step 0 and replace an earlier run of this name; the coarse stage of a cascade only if its "
        "settings, data or plan changed"
    }
    add_flags(parser, Runtime, only=("device", "workers", "fresh"), help=meant)


def run(args: argparse.Namespace) -> int:
    before = core_use()
    from autoseg.pipeline import train
    from autoseg.training.ranks import Withdrawn, join

    options, (index, count, local, here) = options_from(args, TrainOptions()), place_among_ranks()
    args.quiet = args.quiet or index > 0
    install_log(args.quiet, silent=index > 0)
    try:
        with join(index, count, args.device, local=local, here=here) as (ranks, device):
            options = replace(options, threads=options.threads or asked_threads())
            follow = options.threads is None and count == 1 and share_cores(before, device, "--threads")
            folds = train(
                args.dataset,
                args.fold,
                workspace_of(args),
                options,
                replace(runtime_of(args), device=device, fresh=args.fresh and not _is_restart(), follow=follow),
                on_training=lambda training: _show(training.explain(decisions=options.explain), options),
                on_fold=lambda fold: print(fold.summary(), flush=True),
                on_report=lambda found: print(found.summary(), flush=True),
                ranks=ranks,
            )
    except KeyboardInterrupt:
        if index == 0:
            raise
        return 130
    except Withdrawn:
        if index == 0 or args.debug:
            raise
        return 2
    except AutosegError as fault:
        if index == 0:
            raise
        raise type(fault)(f"process {index}: {fault}") from fault
    return 1 if any(fold.failures for fold in folds) else 0


def _is_restart() -> bool:
    """Whether ``torchrun`` or SLURM restarted this command; the training run is then resumed."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def _show(text: str, options: TrainOptions) -> None:
    if options.dry_run or options.explain:
        print(text, flush=True)
