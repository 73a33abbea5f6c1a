"""``autoseg evaluate``: predictions of any tool against references."""

from pathlib import Path

from autoseg.cli.common import Progress, positive, speaker


def add_arguments(parser):
    parser.add_argument("--reference", required=True, metavar="DIR", help="folder of reference labels")
    parser.add_argument("--predicted", required=True, metavar="DIR", help="folder of predicted labels, same file names")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="folder for report.html, metrics.csv, .json, .md and summary.json"
    )
    parser.add_argument("--labels", metavar="JSON", help="a dataset.json; default: beside the folders, else every value found")
    parser.add_argument(
        "--tolerance-mm", type=float, metavar="X", help="of NSD; default: the larger of 1 mm and the voxel size"
    )
    parser.add_argument("--partial", action="store_true", help="score the cases that were predicted; others are no failures")
    parser.add_argument("--workers", type=positive, help="threads")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args):
    from autoseg.pipeline import evaluate

    report = evaluate(
        Path(args.reference),
        Path(args.predicted),
        Path(args.output),
        labels=args.labels,
        tolerance_mm=args.tolerance_mm,
        partial=args.partial,
        workers=args.workers,
        say=speaker(args),
        progress=Progress(args),
    )
    print((Path(args.output) / "metrics.json").read_text() if args.json else report.table())
    return 1 if report.failures else 0
