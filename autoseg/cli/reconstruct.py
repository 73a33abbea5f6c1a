"""``autoseg reconstruct``: surfaces and measurements of label maps of any tool."""

from pathlib import Path

from autoseg.cli.common import Progress, add_isotropic, add_surfaces, positive, speaker


def add_arguments(parser):
    parser.add_argument("-i", "--input", required=True, metavar="SEGMENTATIONS", help="a label map, or a folder of them")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    add_surfaces(parser, default="stl,glb")
    add_isotropic(parser, "CASE_iso")
    parser.add_argument("--labels", metavar="JSON", help="a dataset.json with the names; default: beside the maps")
    parser.add_argument("--workers", type=positive, help="threads; default: one per core, eight at most")
    parser.add_argument("--fresh", action="store_true", help="replace files of other programs in the way")


def run(args):
    from autoseg.pipeline import reconstruct

    done = reconstruct(
        Path(args.input),
        Path(args.output),
        surfaces="" if args.surfaces == "none" else args.surfaces,
        decimate=args.decimate,
        coordinates=args.coordinates,
        isotropic=args.isotropic,
        labels=args.labels,
        workers=args.workers,
        fresh=args.fresh,
        say=speaker(args),
        progress=Progress(args),
    )
    print(done.summary())
    return 1 if done.failures else 0
