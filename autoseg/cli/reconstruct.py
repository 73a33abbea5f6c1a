"""``autoseg reconstruct``: surfaces and measurements of label maps of any tool."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoseg.cli.common import runtime_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.imaging.surface_formats import SURFACE_FORMATS
from autoseg.options import ReconstructOptions, Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", required=True, metavar="SEGMENTATIONS", help="a label map, or a folder of them")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    known = f"{', '.join(SURFACE_FORMATS)}; default: stl,glb; none: no surfaces"
    add_flags(parser, ReconstructOptions, help={"formats": known})
    meant = {"fresh": "also overwrite files of other programs"}
    add_flags(parser, Runtime, only=("workers", "engine", "fresh"), help=meant)


def run(args: argparse.Namespace) -> int:
    from autoseg.pipeline import reconstruct

    done = reconstruct(Path(args.input), Path(args.output), options_from(args, ReconstructOptions()), runtime_of(args))
    print(done.summary())
    return 1 if done.failures else 0
