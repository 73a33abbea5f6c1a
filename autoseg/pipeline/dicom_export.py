"""DICOM results beside the labels, for scans that came as DICOM."""

import importlib
import logging
from functools import partial
from pathlib import Path

from autoseg import __version__
from autoseg.errors import AutosegError
from autoseg.imaging.dicom_series import DicomSeries
from autoseg.inference.cohort import Exporter
from autoseg.registry import Registry

__all__ = ["DICOM_RESULTS", "dicom_exporters"]

logger = logging.getLogger(__name__)

# name -> module and function; imported when asked for, since they need optional packages
DICOM_RESULTS = Registry(
    "DICOM result",
    {
        "seg": ("autoseg.imaging.dicom_seg", "write_seg"),
        "rtstruct": ("autoseg.imaging.dicom_rtstruct", "write_rtstruct"),
    },
)


def dicom_exporters(kinds, cases, bundle, folder):
    """An Exporter for each kind, which writes ``CASE_KIND.dcm``, and ``KIND_notes`` into the record of the case where values of
    the images' headers had to be left empty.

    Raises:
        AutosegError: an unknown kind; scans that are not DICOM, which such results have to refer to; missing packages.
    """
    writers = {kind: _writer(*DICOM_RESULTS[kind]) for kind in kinds}
    others = [case.id for case in cases if not isinstance(case.images[0], DicomSeries)] if kinds else []
    if others:
        raise AutosegError(
            f"--write {','.join(kinds)}: such results refer to the DICOM images of a scan, and {others[0]} did not come as "
            "DICOM. Give the folder of its series as input, or leave --write out"
        )
    how = {
        "structures": dict(zip(bundle.labels.structures, bundle.labels.values, strict=True)),
        "model": f"{Path(bundle.name).name} {bundle.digest}",
        "version": __version__,
    }

    def write(kind, case, prediction, prepared, logits):
        path = Path(folder) / f"{case.id}_{kind}.dcm"
        notes = writers[kind](path, case.images[0], prediction.labels, **how)
        for note in notes:
            logger.warning("%s, %s: %s", case.id, kind, note)
        return [path], {f"{kind}_notes": notes} if notes else {}

    return [Exporter(kind, (f"_{kind}.dcm",), partial(write, kind)) for kind in kinds]


def _writer(module, function):
    try:
        return getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise AutosegError(f"{error.name} is not installed, and DICOM needs it: pip install autoseg[dicom]") from error
