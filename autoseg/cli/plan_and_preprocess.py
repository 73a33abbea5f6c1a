"""``autoseg plan_and_preprocess``: verify, fingerprint, plan, prepare."""

from __future__ import annotations

import argparse
import sys

from autoseg.cli.common import runtime_of, workspace_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.errors import AutosegError
from autoseg.options import PlanOptions, Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="folder, name or number of a data set")
    add_flags(parser, PlanOptions)
    parser.add_argument("--explain", action="store_true", help="print each decision with its rule and numbers")
    meant = {"fresh": "measure, plan and prepare again; also overwrite edited plans"}
    add_flags(parser, Runtime, only=["workers", "engine", "fresh"], help=meant)


def run(args: argparse.Namespace) -> int:
    status = 0
    for dataset in args.datasets:
        try:
            status = max(status, _run_one(args, dataset))
        except AutosegError as fault:
            if len(args.datasets) == 1 or args.debug:
                raise
            print(f"failed: {dataset}: {fault}", file=sys.stderr)
            status = 1
    return status


def _run_one(args: argparse.Namespace, dataset: str) -> int:
    from autoseg.pipeline import plan_and_preprocess

    planned = plan_and_preprocess(dataset, workspace_of(args), options_from(args, PlanOptions()), runtime_of(args))
    print(planned.summary())
    if args.explain:
        print(planned.plan.explain())
    return 1 if planned.failures else 0
