"""DICOM results beside the labels, for scans that came as DICOM."""

from functools import partial
from pathlib import Path

from autoseg import __version__
from autoseg.errors import AutosegError
from autoseg.imaging.dicom_results import DICOM_RESULTS
from autoseg.imaging.dicom_series import DicomSeries
from autoseg.inference.cohort import Exporter

__all__ = ["dicom_exporters"]


def dicom_exporters(kinds, cases, bundle, folder):
    """An Exporter for each kind, which writes ``CASE_KIND.dcm``.

    Raises:
        AutosegError: an unknown kind; scans that are not DICOM, which such results have to refer to; missing packages.
    """
    writers = {kind: _writer(kind) for kind in kinds}
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
        writers[kind](path, case.images[0], prediction.labels, **how)
        return [path], {}

    return [Exporter(kind, (f"_{kind}.dcm",), partial(write, kind)) for kind in kinds]


def _writer(kind):
    try:
        return DICOM_RESULTS[kind]
    except ImportError as error:
        raise AutosegError(f"{error.name} is not installed, and DICOM needs it: pip install autoseg[dicom]") from error
