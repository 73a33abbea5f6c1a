"""``autoseg study``: cross-validates configurations, decides between them, and leaves one model."""

from __future__ import annotations

import argparse

from autoseg.cli.common import runtime_of, share_cores, workspace_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.engines import core_use
from autoseg.options import Runtime, StudyOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder, name or number of a data set")
    add_flags(parser, StudyOptions, help={"plan": "the same as --plans with one name"})
    meant = {"fresh": "train and decide everything again"}
    add_flags(parser, Runtime, only=("device", "workers", "engine", "fresh"), help=meant)


def run(args: argparse.Namespace) -> int:
    before = core_use()
    from autoseg.pipeline import study

    if args.engine == "local":
        share_cores(before, args.device)  # for predictions of ensembles; each training run checks for itself
    done = study(args.dataset, workspace_of(args), options_from(args, StudyOptions()), runtime_of(args))
    print(done.summary())
    return 1 if done.failures else 0
