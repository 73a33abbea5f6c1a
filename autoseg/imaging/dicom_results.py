"""DICOM results that can be written for a DICOM scan, by name; imported on demand, with optional packages.

An entry is a function ``write(path, series, labels, *, structures, model, version)``: the output file, the DicomSeries, a
LabelVolume on its grid, {structure: label values}, and texts about the model and this program.
"""

from __future__ import annotations

from collections.abc import Callable

from autoseg.registry import Later, Registry

__all__ = ["DICOM_RESULTS"]

DICOM_RESULTS: Registry[Callable[..., object]] = Registry(
    "DICOM result",
    {
        "seg": Later("autoseg.imaging.dicom_seg:write_seg"),
        "rtstruct": Later("autoseg.imaging.dicom_rtstruct:write_rtstruct"),
    },
)
