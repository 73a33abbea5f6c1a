"""What several verbs share: the workspace, progress, units of time, and tables of findings."""

import argparse
import json
import logging
import os
import re
import sys
from pathlib import Path

from autoseg.imaging.surface_formats import SURFACE_FORMATS

__all__ = [
    "Progress",
    "add_common",
    "add_isotropic",
    "add_surfaces",
    "add_training",
    "duration",
    "install_log",
    "positive",
    "print_findings",
    "runtime_of",
    "speaker",
    "workspace_of",
]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_common(parser):
    """The options that every verb has."""
    common = parser.add_argument_group("common options")
    common.add_argument("--workspace", metavar="DIR", help="default: $AUTOSEG_WORKSPACE, else ./autoseg_workspace")
    common.add_argument("--quiet", action="store_true", help="no progress")
    common.add_argument("--debug", action="store_true", help="show tracebacks")


def add_surfaces(parser, default=""):
    """How surfaces of structures are written."""
    told = f"default {default}; none for none" if default else "default: none"
    parser.add_argument("--surfaces", default=default, metavar="stl,glb", help=f"{', '.join(SURFACE_FORMATS)}; {told}")
    parser.add_argument("--decimate", type=float, default=0.0, metavar="SHARE", help="take away this share of their triangles")
    parser.add_argument("--coordinates", default="lps", choices=["lps", "ras"], help="of surface files (default lps)")


def add_isotropic(parser, what):
    """``--isotropic [MM]``: None where it is not given, 0 without a length."""
    told = f"also write {what} with cubic voxels; without MM as fine as the finest spacing"
    parser.add_argument("--isotropic", type=edge_mm, nargs="?", const=0.0, metavar="MM", help=told)


def add_training(parser):
    """What ``train`` and ``compare`` have in common: plan, length, recipe, device and seed."""
    parser.add_argument("--plan", metavar="NAME", help="default: fullres_3d, or slices_2d for 2D images")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--time", type=duration, metavar="30m", help="train that long, by the clock")
    length.add_argument("--iterations", type=positive, metavar="N", help="train so many steps; default: the plan's")
    parser.add_argument(
        "--recipe",
        default="autoseg",
        metavar="FILE",
        help="autoseg (default), parity (nnU-Net's), another name, or a JSON file",
    )
    parser.add_argument(
        "--set", action="append", default=[], type=setting, metavar="KEY=VALUE", help="change one setting of the recipe"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="same seed, same training (default 0)")
    parser.add_argument("--workers", type=positive, help="threads for preparing and scoring")


def workspace_of(args):
    from autoseg.workspace import Workspace  # with numpy: too slow for --help

    return Workspace(Path(args.workspace or os.environ.get("AUTOSEG_WORKSPACE") or "autoseg_workspace").absolute())


def runtime_of(args):
    """The Runtime that the arguments say, with progress on standard error."""
    from dataclasses import replace

    from autoseg.cli.flags import options_from
    from autoseg.options import Runtime

    return replace(options_from(args, Runtime), progress=Progress(args))


def duration(text):
    """'90s', '30m', '1.5h' or '2d' as seconds; for argparse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 30m or 1.5h, found {text!r}")
    return float(match[1]) * UNITS[match[2]]


def edge_mm(text):
    """A length above 0; for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected the edge of a voxel in mm, found {text!r}")
    return value


def positive(text):
    """A whole number above 0; for argparse."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


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


def install_log(quiet=False):
    """Show what the package logs on standard error: sentences as they are, warnings as such; with ``quiet`` those alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Sentences())
    log = logging.getLogger("autoseg")
    log.handlers[:] = [handler]
    log.setLevel(logging.WARNING if quiet else logging.INFO)


class _Sentences(logging.Formatter):
    """The message, with ``warning: `` before it where it is one."""

    def format(self, record):
        return f"warning: {record.getMessage()}" if record.levelno >= logging.WARNING else record.getMessage()


def speaker(args):
    """A function that prints a sentence to standard error, or nothing with ``--quiet``."""
    return (lambda text: None) if args.quiet else (lambda text: print(text, file=sys.stderr, flush=True))


def print_findings(findings, file, summary):
    """Print a summary, and write findings as JSON to a file where one is named; for ``-`` print these instead."""
    from autoseg.workspace import write_json
    from planners.records import to_json

    if file == "-":
        print(json.dumps(to_json(findings), indent=1))
        return
    if file:
        write_json(file, findings)
    print(summary())


class Progress:
    """A bar on a terminal, a line every tenth of the work in a log, nothing with ``--quiet``.

    ``progress(title, total)`` returns a function to call with the Outcome of each case.
    """

    def __init__(self, args):
        self.quiet = args.quiet

    def __call__(self, title, total):
        if self.quiet or not total:
            return lambda outcome: None
        if sys.stderr.isatty():
            from tqdm import tqdm

            bar = tqdm(total=total, desc=title, unit="case", file=sys.stderr)
            return lambda outcome: (bar.update(), bar.n >= total and bar.close())
        done = []

        def line(outcome):
            done.append(outcome)
            if len(done) == total or len(done) * 10 // total > (len(done) - 1) * 10 // total:
                print(f"{title}: {len(done)} of {total}", file=sys.stderr, flush=True)

        return line
