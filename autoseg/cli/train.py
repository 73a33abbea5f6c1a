"""``autoseg train``: one fold, several, or all cases; then its validation cases predicted and scored."""

from autoseg.cli.common import Progress, add_training, speaker, workspace_of


def add_arguments(parser):
    parser.add_argument("dataset", metavar="DATASET", help="folder, name or number of a data set")
    parser.add_argument("fold", metavar="FOLD", help="a fold (0 to 4), several (0,1,2), or all (every case, none held back)")
    parser.add_argument("--network", metavar="NAME", help="default: the plan's; also a JSON file like a plan's network entry")
    add_training(parser)
    parser.add_argument("--name", metavar="RUN", help="name of the run; default: plan and network")
    parser.add_argument("--from", dest="start", metavar="MODEL", help="start with the weights of a model")
    parser.add_argument("--fresh", action="store_true", help="start anew, over an earlier run of this name")


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
