"""Which scans lie at a place: a file, a folder of them, a data set's test cases, or series of DICOM."""

from __future__ import annotations

import logging
from pathlib import Path

from autoseg.data.dataset import Case, cases_in, read_dataset
from autoseg.errors import AutosegError
from autoseg.imaging.files import FORMATS, ending_of, is_dicom, series_in
from autoseg.inference.bundle import Bundle

__all__ = ["find_cases"]

logger = logging.getLogger(__name__)


def find_cases(source: Path, bundle: Bundle) -> tuple[list[Case], str]:
    """(cases, file ending) of a scan, a folder of scans, or a tree of DICOM series; files that are of no case are named."""
    cases, ending = _find(source, bundle)
    _say_unused(source, cases)
    return cases, ending


def _find(source: Path, bundle: Bundle) -> tuple[list[Case], str]:
    """(cases, file ending) of a scan, a folder of scans, or a tree of DICOM series."""
    if source.is_file() and is_dicom(source):
        return _dicom_cases(source, bundle)
    if source.is_file():
        ending = ending_of(source)
        name = source.name[: -len(ending)].removesuffix("_0000")
        return [Case(name, name, (source,), None)], ending
    if not source.is_dir():
        raise AutosegError(f"{source}: there is no such file or folder")
    for ending in dict.fromkeys((bundle.file_ending, *FORMATS)):
        if cases := cases_in(source, ending, len(bundle.channels)):
            return list(cases), ending
    if (source / "dataset.json").is_file():
        spec = read_dataset(source)
        if not spec.test:
            raise AutosegError(f"{source}: a data set without test cases. Give the folder of the scans, such as imagesTr")
        return list(spec.test), spec.file_ending
    return _dicom_cases(source, bundle)


def _dicom_cases(source: Path, bundle: Bundle) -> tuple[list[Case], str]:
    """A case for each series; labels are written as NIfTI."""
    found = series_in(source)
    for sentence in found.left_out:
        logger.warning("left out: %s", sentence)
    for series in (one for one in found.series if one.origin):
        logger.info("%s: gives away the patient; its case is called %s", series.origin, series.name)
    if not found.series:
        known, left = ", ".join(FORMATS), "".join(f"\n  left out: {sentence}" for sentence in found.left_out)
        raise AutosegError(
            f"{source}: no scans in it; expected CASE_0000{bundle.file_ending}, another of {known}, or DICOM{left}"
        )
    if not any(series.planes[0].samples == len(bundle.channels) for series in found.series):
        raise AutosegError(
            f"{source}: the model needs {len(bundle.channels)} channels ({', '.join(bundle.channels)}), and DICOM does not say "
            "which series is which. Convert them to CASE_0000.nii.gz, CASE_0001.nii.gz and so on, and give the folder of these"
        )
    return [Case(series.name, series.name, (series,), None) for series in found.series], ".nii.gz"


def _say_unused(source: Path, cases: list[Case]) -> None:
    """Name the images of a folder that are of no case, such as CASE.EXT beside CASE_0000.EXT."""
    used = {path for case in cases for path in case.images}
    files = sorted(source.iterdir()) if source.is_dir() else []
    unused = [path.name for path in files if path not in used and path.name.endswith(tuple(FORMATS)) and path.name[0] != "."]
    if unused:
        more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
        logger.warning("not used, because they are no channel of a case: %s%s", ", ".join(unused[:5]), more)
