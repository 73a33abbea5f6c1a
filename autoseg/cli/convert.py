"""``autoseg convert``: a known arrangement of files to a data-set folder."""

import json

from autoseg.cli.common import Progress, positive, speaker
from autoseg.data.layouts import LAYOUTS


def add_arguments(parser):
    parser.add_argument("layout", metavar="LAYOUT", help=", ".join(LAYOUTS))
    parser.add_argument("source", metavar="SRC", help="the folder as it was downloaded, or a table; it is never written to")
    parser.add_argument("target", metavar="DST", help="data-set folder to be made")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--link", action="store_true", help="hard links under nnU-Net's names; default: files stay where they are")
    how.add_argument("--copy", action="store_true", help="copies under nnU-Net's names")
    parser.add_argument("--skip-bad", action="store_true", help="leave cases with errors out instead of refusing")
    parser.add_argument("--workers", type=positive, help="threads; default: one per core, eight at most")
    parser.add_argument("--json", metavar="FILE", help="write the findings there too ('-' for standard output)")
    layout = parser.add_argument_group("options of layouts")
    layout.add_argument("--cine", action="store_true", default=None, help="acdc: every frame of the 4D series as a test case")
    layout.add_argument("--labels", metavar="DIR", help="folders: folder of labels")
    layout.add_argument("--channels", metavar="A,B", help="folders: names of channels, such as CT; bids: suffixes, such as T1w")
    layout.add_argument("--names", metavar="FILE", help="folders, bids: names of label values, JSON or a table")
    layout.add_argument("--ignore", type=int, metavar="VALUE", help="folders, bids: label value of voxels without annotation")
    layout.add_argument("--derivative", metavar="NAME", help="bids: the folder below derivatives whose labels count")


def run(args):
    from autoseg.pipeline import convert
    from autoseg.workspace import write_json
    from planners.records import to_json

    names = ("cine", "labels", "channels", "names", "ignore", "derivative")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "channels" in options:
        options["channels"] = [name.strip() for name in options["channels"].split(",")]
    converted = convert(
        args.layout,
        args.source,
        args.target,
        options=options,
        mode="link" if args.link else "copy" if args.copy else "reference",
        skip_bad=args.skip_bad,
        workers=args.workers,
        say=speaker(args),
        progress=Progress(args),
    )
    if args.json == "-":
        print(json.dumps(to_json(converted.findings), indent=1))
    else:
        if args.json:
            write_json(args.json, converted.findings)
        print(converted.summary())
    return 1 if converted.left_out or converted.failures else 0
