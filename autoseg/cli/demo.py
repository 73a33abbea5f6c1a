"""``autoseg demo``: made-up scans, planned, trained, predicted and scored on this machine."""

from pathlib import Path

from autoseg.cli.common import Progress, duration, speaker


def add_arguments(parser):
    parser.add_argument(
        "--folder", default="autoseg_demo", metavar="DIR", help="where everything goes (default ./autoseg_demo)"
    )
    parser.add_argument(
        "--time", type=duration, default=duration("2m"), metavar="2m", help="length of the training (default 2m)"
    )
    parser.add_argument("--fresh", action="store_true", help="train anew, over an earlier demo in the folder")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")


def run(args):
    from autoseg.pipeline import demo

    result = demo(
        Path(args.folder),
        seconds=args.time,
        device=args.device,
        fresh=args.fresh,
        say=speaker(args),
        progress=Progress(args),
    )
    print(result.summary())
    return 1 if result.failures else 0
