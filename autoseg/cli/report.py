"""``autoseg report``: the HTML page of a run, of predictions, of reconstructions, or of an evaluation."""

from pathlib import Path

from autoseg.cli.common import Progress, positive


def add_arguments(parser):
    told = "a run's fold (runs/NAME/RUN/fold_0), predictions, reconstructions, or an evaluation"
    parser.add_argument("path", metavar="PATH", help=told)
    parser.add_argument(
        "--images", metavar="DIR", help="folder of the scans; default: imagesTr beside the references' labelsTr"
    )
    parser.add_argument("--reference", metavar="DIR", help="folder of reference labels; default: those that were scored")
    parser.add_argument(
        "--predicted", metavar="DIR", help="folder of predicted labels; default: PATH, or those that were scored"
    )
    parser.add_argument("--workers", type=positive, help="threads")


def run(args):
    from autoseg.pipeline import report

    done = report(
        Path(args.path),
        images=args.images,
        reference=args.reference,
        predicted=args.predicted,
        workers=args.workers,
        progress=Progress(args),
    )
    print(done.summary())
    return 0
