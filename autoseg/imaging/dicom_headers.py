"""Headers of a series, for objects derived from it: segmentations and structure sets.

Such objects repeat the patient and study elements of the images. Anonymisers and old exports write invalid values into them (a
date of birth ``anonymous``, a sex ``Male``); invalid values are left empty here and reported.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.config import RAISE
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, DT, STR_VR, TM, validate_value

from autoseg.errors import FileError
from autoseg.imaging.dicom_file import open_dataset
from autoseg.imaging.dicom_series import DicomSeries
from autoseg.imaging.raw import digest_of
from autoseg.imaging.volume import LabelVolume

__all__ = ["headers_of", "plain_text", "series_number", "unique_identifier"]

# elements that derived objects repeat: must have a value; may be empty
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
_GROUPS = (0x0008, 0x0010, 0x0012)  # of study, patient and trial
_OF_THE_IMAGE = ("ImageType", "Modality", "SpecificCharacterSet")
_SEXES = ("M", "F", "O")
_TIMES = {"DA": DA, "DT": DT, "TM": TM}
_LARGEST_NUMBER = 2**31 - 1  # of an integer string


def headers_of(series: DicomSeries) -> tuple[list[FileDataset], tuple[str, ...]]:
    """(header of each file without the voxels, in the order of the planes; sentences about values left empty).

    Texts are decoded and will be written as UTF-8. All elements that such objects repeat exist, empty if necessary. Images
    without a frame of reference (some anonymisers remove it) get one derived from their series. Identifiers are unchanged,
    since other systems know the images by them.

    Raises:
        FileError: an unreadable file, or one without an identifier that such objects must repeat.
    """
    headers: list[FileDataset] = []
    emptied: dict[str, None] = {}  # in order, each once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid but readable values
        for path, called in {plane.path: plane.called for plane in series.planes}.items():
            header = _read(series, path, called)
            emptied |= dict.fromkeys(_without_odd_values(header))
            if not header.get("FrameOfReferenceUID"):
                header.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference", str(header.SeriesInstanceUID)])
            header.SpecificCharacterSet = "ISO_IR 192"
            for name in _MAY_BE_EMPTY:
                if name not in header:
                    setattr(header, name, "")
            headers.append(header)
    if not emptied:
        return headers, ()
    return headers, (f"Left empty, since the images hold values there that DICOM does not allow: {', '.join(emptied)}.",)


def _read(series: DicomSeries, path: Path, called: str) -> FileDataset:
    try:
        header = open_dataset(path, called, stop_before_pixels=True)
        header.decode()
    except FileError as fault:
        raise FileError(f"{series}: {fault}") from fault
    if missing := [name for name in _NEEDED if not header.get(name)]:
        raise FileError(f"{series}: {called} has no {', '.join(missing)}, which DICOM results must repeat. Ask for NIfTI only.")
    return header


def _without_odd_values(header: FileDataset) -> Iterator[str]:
    """Remove invalid values of elements that derived objects may repeat; yields the names of these elements."""
    for tag in list(header.keys()):
        name = keyword_for_tag(tag)
        is_repeated = tag.group in _GROUPS and name not in _OF_THE_IMAGE or name in (*_MAY_BE_EMPTY, "SeriesNumber")
        if name and is_repeated and not _is_proper(header, tag):
            del header[tag]
            yield name


def _is_proper(header: FileDataset, tag: BaseTag) -> bool:
    try:
        element = header[tag]
        if element.VR in ("SQ", "UI"):
            return True
        values = element.value if isinstance(element.value, MultiValue) else [element.value]
        for value in values:
            _validate(element, value)
    except Exception:  # pydicom raises many types
        return False
    return len(values) <= 1 or element.keyword not in _MAY_BE_EMPTY


def _validate(element: DataElement, value: Any) -> None:
    """Raise an exception for an invalid value."""
    if value in (None, ""):
        return
    if element.VR in ("DS", "IS"):  # accept any readable number
        float(value)
    elif element.VR in STR_VR:
        validate_value(element.VR, value, RAISE)
    if element.VR in _TIMES:
        _TIMES[element.VR](value)
    if element.keyword == "PatientSex" and value not in _SEXES:
        raise ValueError(value)


def unique_identifier(series: DicomSeries, labels: LabelVolume, model: str, kind: str) -> Callable[[str], str]:
    """A function from a word to a UID that is unique to the images, labels and model."""
    about = [kind, model, *(plane.uid for plane in series.planes), digest_of(np.ascontiguousarray(labels.data).tobytes())]
    return lambda word: generate_uid(entropy_srcs=[word, *about])


def series_number(header: Dataset, base: int) -> int:
    """Number of a derived series: ``base`` plus the number of the images' series."""
    number = int(header.get("SeriesNumber") or 0)
    return base + number if 0 <= number <= _LARGEST_NUMBER - base else base


def plain_text(text: str) -> str:
    """A valid DICOM text of up to 64 characters: no backslash, which separates values, and no control characters."""
    return "".join("/" if sign == "\\" else sign if sign.isprintable() else " " for sign in text)[:64].strip() or "unnamed"
