"""``autoseg train``: one fold, several, or all cases; then its validation cases predicted and scored."""

import argparse
import json

from autoseg.cli.common import Progress, duration, positive, speaker, workspace_of


def add_arguments(parser):
    parser.add_argument("dataset", metavar="DATASET", help="folder, name or number of a data set")
    parser.add_argument("fold", metavar="FOLD", help="a fold (0 to 4), several (0,1,2), or all (every case, none held back)")
    parser.add_argument("--plan", metavar="NAME", help="default: fullres_3d, or slices_2d for 2D images")
    parser.add_argument("--network", metavar="NAME", help="default: the plan's; also a JSON file like a plan's network entry")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--time", type=duration, metavar="30m", help="train that long, by the clock")
    length.add_argument("--iterations", type=positive, metavar="N", help="train so many steps; default: the plan's")
    parser.add_argument(
        "--recipe", default="autoseg", metavar="FILE", help="autoseg (default), parity (nnU-Net's), or a JSON file"
    )
    parser.add_argument(
        "--set", action="append", default=[], type=setting, metavar="KEY=VALUE", help="change one setting of the recipe"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="same seed, same training (default 0)")
    parser.add_argument("--name", metavar="RUN", help="name of the run; default: plan and network")
    parser.add_argument("--from", dest="start", metavar="MODEL", help="start with the weights of a model")
    parser.add_argument("--fresh", action="store_true", help="start anew, over an earlier run of this name")
    parser.add_argument("--workers", type=positive, help="threads for preparing and scoring")


def whole(text):
    """A whole number from 0; for argparse."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, found {text!r}")
    return int(text)


def setting(text):
    """'key=value' as a pair; the value is JSON, or a text where it is not."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def run(args):
    from autoseg.pipeline import train

    folds = train(
        args.dataset,
        args.fold,
        workspace_of(args),
        plan=args.plan,
        network=args.network,
        seconds=args.time,
        iterations=args.iterations,
        recipe=args.recipe,
        settings=dict(args.set),
        device=args.device,
        seed=args.seed,
        name=args.name,
        start=args.start,
        fresh=args.fresh,
        workers=args.workers,
        say=speaker(args),
        progress=Progress(args),
        on_fold=lambda fold: print(fold.summary(), flush=True),
    )
    return 1 if any(fold.failures for fold in folds) else 0
