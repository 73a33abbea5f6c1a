"""``autoseg compare``: several networks under one plan, one recipe and one budget."""

import argparse

from autoseg.cli.common import Progress, add_training, positive, speaker, workspace_of


def add_arguments(parser):
    parser.add_argument("dataset", metavar="DATASET", help="folder, name or number of a data set")
    parser.add_argument("fold", metavar="FOLD", help="the fold (0 to 4) whose held-back cases are compared")
    parser.add_argument("--networks", metavar="A,B,C", help="the first is paired with each other one; default: all there are")
    add_training(parser)
    parser.add_argument(
        "--repeats",
        type=positive,
        default=1,
        metavar="N",
        help="train each network N times, with --seed and the seeds after it",
    )
    parser.add_argument(
        "--match-flops", action="store_true", help="scale widths to the operations per patch of the first network"
    )
    parser.add_argument(
        "--margin",
        type=share,
        default=0.005,
        metavar="X",
        help="Dice within which networks are called equivalent (default 0.005)",
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="folder for the tables; default: WORKSPACE/comparisons/NAME")
    parser.add_argument("--json", metavar="FILE", help="write everything there too ('-' for standard output)")
    parser.add_argument("--fresh", action="store_true", help="train all anew")


def share(text):
    """A number above 0 and below 1; for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, found {text!r}")
    return value


def run(args):
    from autoseg.pipeline import compare
    from autoseg.workspace import write_text

    compared = compare(
        args.dataset,
        args.fold,
        workspace_of(args),
        networks=[name.strip() for name in args.networks.split(",")] if args.networks else None,
        seconds=args.time,
        iterations=args.iterations,
        match_flops=args.match_flops,
        plan=args.plan,
        recipe=args.recipe,
        settings=dict(args.set),
        device=args.device,
        seed=args.seed,
        repeats=args.repeats,
        margin=args.margin,
        target=args.output,
        fresh=args.fresh,
        workers=args.workers,
        say=speaker(args),
        progress=Progress(args),
    )
    everything = (compared.folder / "comparison.json").read_text()
    if args.json and args.json != "-":
        write_text(args.json, everything)
    print(everything if args.json == "-" else compared.summary())
    return 1 if compared.failures else 0
