"""``autoseg plan_and_preprocess``: verify, fingerprint, plan, prepare."""

import sys

from autoseg.cli.common import Progress, positive, speaker, workspace_of
from autoseg.errors import AutosegError


def add_arguments(parser):
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="folder, name or number of a data set")
    parser.add_argument(
        "--planner", metavar="NAME", help="the plan to prepare the cases for; default: fullres_3d, or slices_2d for 2D images"
    )
    parser.add_argument("--preset", default="classic", metavar="NAME", help="classic (default), or residual encoders m, l, xl")
    parser.add_argument("--memory-gb", type=float, metavar="X", help="graphics memory to plan for; default: the preset's own")
    parser.add_argument("--parity", action="store_true", help="decide as nnU-Net does, to the number")
    parser.add_argument("--explain", action="store_true", help="print each decision with its rule and numbers")
    parser.add_argument("--dry-run", action="store_true", help="measure and plan, write nothing")
    parser.add_argument("--no-preprocess", action="store_true", help="stop after planning")
    parser.add_argument("--workers", type=positive, help="threads; default: one per core, eight at most")
    parser.add_argument("--fresh", action="store_true", help="measure, plan and prepare anew, over edited plans too")


def run(args):
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


def _run_one(args, dataset):
    from autoseg.pipeline import plan_and_preprocess

    planned = plan_and_preprocess(
        dataset,
        workspace_of(args),
        planner=args.planner,
        preset=args.preset,
        memory_gb=args.memory_gb,
        parity=args.parity,
        preprocess=not (args.no_preprocess or args.dry_run),
        dry_run=args.dry_run,
        workers=args.workers,
        fresh=args.fresh,
        say=speaker(args),
        progress=Progress(args),
    )
    print(planned.summary())
    if args.explain:
        print(planned.plan.explain())
    return 1 if planned.failures else 0
