"""``autoseg predict``: scans in, results out."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoseg.cli.common import runtime_of, share_cores, workspace_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.engines import core_use
from autoseg.imaging.dicom_results import DICOM_RESULTS
from autoseg.imaging.surface_formats import SURFACE_FORMATS
from autoseg.options import PredictOptions, Runtime
from autoseg.registry import Registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", required=True, metavar="IN", help="a scan, a folder of scans, or DICOM files")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    parser.add_argument(
        "-m", "--model", metavar="MODEL", help="model folder, zip or name; default: the only model of the workspace"
    )
    named = ", ".join(("probabilities", "seg_nrrd (CASE.seg.nrrd for 3D Slicer)", *Registry("output", {})))  # without torch
    dicom = f"{', '.join(DICOM_RESULTS)} (DICOM results) and seg_each (one DICOM object for each structure)"
    written = f"further results: {named}; for DICOM scans {dicom}"
    add_flags(parser, PredictOptions, help={"write": written, "formats": f"{', '.join(SURFACE_FORMATS)}; default: none"})
    add_flags(parser, Runtime, help={"fresh": "predict finished cases again; also overwrite files of other programs"})


def run(args: argparse.Namespace) -> int:
    before = core_use()
    from autoseg.pipeline import find_model, predict

    options = options_from(args, PredictOptions())
    if args.engine == "local":
        share_cores(before, args.device)
    model = find_model(args.model, workspace_of(args))
    if options.watch is not None:
        from autoseg.pipeline import watch

        watch(Path(args.input), Path(args.output), model, options, runtime_of(args))  # until it is stopped
    done = predict(Path(args.input), Path(args.output), model, options, runtime_of(args))
    print(done.summary())
    return 1 if done.failures else 0
