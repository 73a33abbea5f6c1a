"""The user's data set: a folder in nnU-Net's layout, read and never written.

``dataset.json`` names channels and labels; images are ``imagesTr/CASE_0000.EXT`` (one file per channel), labels
``labelsTr/CASE.EXT``. Optional keys: ``dataset`` lists the files of each case instead, wherever they are:
``{"CASE": {"images": [...], "label": ..., "patient": ...}}``; relative paths start at the data-set folder. ``patients``,
case -> patient, keeps scans of one patient in one fold; without it, patients are guessed from the names of the cases.
``lesions`` lists structures that come in any number of pieces and are also scored piece by piece. ``test`` leaves cases out
of all folds: a list of names, or files listed as under ``dataset``, with or without label. ``annotated`` names the annotated
structures of partially annotated cases (``partial``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from autoseg.data.labels import LabelSchema, read_labels
from autoseg.data.partial import read_unlabelled
from autoseg.errors import DatasetError, shown
from autoseg.imaging.dicom_series import DicomSeries
from autoseg.imaging.files import paths_of
from autoseg.names import case_name, fault_of_path, is_hidden, plain_name, without_spelling
from autoseg.workspace import read_json

__all__ = [
    "Case",
    "DatasetSpec",
    "called_alike",
    "guess_patient",
    "guess_patients",
    "image_name",
    "read_dataset",
]

ENOUGH_PATIENTS = 5  # one for each fold

# "patient001_frame12", "sub-07_ses-2_run-1", "p3-ED", "p4_pre", "p5_20240131", "knee6_left", "p7_t2": several scans of one
# patient end in such words, with or without a number; "BraTS-GLI-00005-001": the last number is the visit, by its rule
_TIMES = "frame|phase|time|timepoint|tp|visit|session|ses|scan|day|week|month|ed|es|pre|post|baseline|followup|fu|run|rep|t"
_SIDES_AND_SEQUENCES = "left|right|l|r|t[12](?:w|c|ce|gd)|flair|dwi|adc|swi|stir|space|ct|cbct|pet|mr|mri"
_DATE = r"(?:19|20)\d\d-?(?:0\d|1[0-2])-?[0-3]\d"
REPEAT = re.compile(
    rf"(?:[_-](?:(?:{_TIMES})[_-]?\d*|{_SIDES_AND_SEQUENCES}|{_DATE}))+$|(?<=^BraTS-[A-Z]{{3}}-\d{{5}})-\d{{3}}$", re.IGNORECASE
)
_WORDS = "seg|segm|segmentation|label|labels|mask|masks|msk|gt|dseg|pred|prediction"
# at the end or the beginning of the name of a label map, or all of it
LABEL_WORD = re.compile(rf"[_-]({_WORDS})$|^({_WORDS})(?:[_-]|$)", re.IGNORECASE)
NUMBER = re.compile(r"(.+)_(\d{4})")  # a name without its ending: the case, and possibly the channel


@dataclass(frozen=True)
class Case:
    """One scan: identifier, patient (cases of one patient are always in the same fold), and files.

    For prediction, the only image may be a ``DicomSeries``. ``unlabelled`` are the numbers of the structures that were not
    annotated in it.
    """

    id: str
    patient: str
    images: tuple[Path | DicomSeries, ...]
    label: Path | None
    unlabelled: tuple[int, ...] = ()

    @property
    def image_paths(self) -> tuple[Path, ...]:
        """The files of the images."""
        return tuple(path for image in self.images for path in paths_of(image))


@dataclass(frozen=True)
class DatasetSpec:
    """A data-set folder; its images are not read yet.

    Attributes:
        name: ``name`` of the folder without its ``DatasetNNN_`` prefix.
        folder: the raw folder.
        channels: channel names in order.
        labels: meaning of the label values.
        training, test: cases, sorted by identifier; no case is in both. Their files may be missing; ``check_dataset``
            reports that.
        file_ending: such as ``.nii.gz``.
        num_training: ``numTraining`` as declared, or None; only compared with the number of cases found.
        listed: the key ``dataset`` names the files; other files in ``imagesTr`` are ignored.
        lesions: structures that are also scored lesion by lesion.
    """

    name: str
    folder: Path
    channels: tuple[str, ...]
    labels: LabelSchema
    training: tuple[Case, ...]
    test: tuple[Case, ...]
    file_ending: str
    num_training: int | None = None
    listed: bool = False
    lesions: tuple[str, ...] = ()


def read_dataset(folder: str | Path) -> DatasetSpec:
    """Read ``dataset.json`` and list the cases of a data-set folder.

    Args:
        folder: path of the folder that holds ``dataset.json``.

    Returns:
        DatasetSpec

    Raises:
        DatasetError: no folder, missing or broken ``dataset.json``, a key missing or of the wrong type, or a folder whose
            files follow none of the naming rules.
    """
    folder = Path(os.path.abspath(folder))
    name = plain_name(re.sub(r"^Dataset\d+_", "", folder.name), what="data set", where=f"folder {folder}", error=DatasetError)
    description = _read_json(folder)
    try:
        channels = _channel_names(description.get("channel_names", description.get("modality")))
        labels = read_labels(_object(description, "labels"), description.get("regions_class_order"))
        ending = description.get("file_ending")
        if not isinstance(ending, str) or not ending.startswith("."):
            raise DatasetError(f'"file_ending" must be a text such as ".nii.gz", found {shown(ending)}')
        ending = ending.lower()
        plain_name(f"case{ending}", what='a file with the "file_ending"', error=DatasetError)
        lesions = _lesions(description.get("lesions", []), labels)
        patients = _patients(description)
        listing = _object(description, "dataset") if "dataset" in description else None
        cases = _listed_cases(folder, listing, patients, "dataset") if listing else ()
        test_listing, left_out = _test_entries(description.get("test", []))
        test = _listed_cases(folder, test_listing, patients, "test")  # replaces imagesTs
    except DatasetError as fault:
        raise DatasetError(f"{folder / 'dataset.json'}: {fault}") from None
    if not listing:
        _require_names(folder, ending)
        cases = _found_cases(folder / "imagesTr", folder / "labelsTr", ending, len(channels), patients)
    test = test or _found_cases(folder / "imagesTs", folder / "labelsTs", ending, len(channels), patients, labelled=False)
    training, test = _leave_out(folder, cases, test, left_out)
    try:
        named = {*patients, *_patients_listed(listing or {}, "dataset"), *_patients_listed(test_listing, "test")}
        _require_patients(named, {case.id for case in (*training, *test)})
        lacking = read_unlabelled(description, {case.id for case in (*training, *test)}, labels)
    except DatasetError as fault:
        raise DatasetError(f"{folder / 'dataset.json'}: {fault}") from None
    training, test = (tuple(replace(c, unlabelled=lacking.get(c.id, ())) for c in part) for part in (training, test))
    declared = description.get("numTraining")
    return DatasetSpec(
        name=name,
        folder=folder,
        channels=channels,
        labels=labels,
        training=training,
        test=test,
        file_ending=ending,
        num_training=declared if type(declared) is int else None,
        listed=bool(listing),
        lesions=lesions,
    )


def called_alike(name: str, others: Iterable[str]) -> str | None:
    """The only other name that differs from ``name`` by its spelling or by a word for label maps; None for none or several."""
    found = {other for other in others if other != name and _bare(other) == _bare(name)}
    return found.pop() if len(found) == 1 else None


@lru_cache(1 << 16)
def _bare(name: str) -> str:
    return without_spelling(LABEL_WORD.sub("", name))


def guess_patient(case_id: str) -> str:
    """The case identifier without a trailing frame, visit, date, side or sequence: 'p1_frame12' belongs to 'p1'.

    Only if the rest has a number that can distinguish patients: 'brain_scan_12' is unchanged.
    """
    patient = REPEAT.sub("", case_id)
    return patient if re.search(r"\d", patient) else case_id


def guess_patients(case_ids: Iterable[str]) -> dict[str, str]:
    """{case: patient} by ``guess_patient``; each case is its own patient if too few patients would remain for the folds.

    Names such as 'study2_scan_001' then mean one study of many patients, not many scans of one patient.
    """
    guessed = {case: guess_patient(case) for case in case_ids}
    too_few = len(set(guessed.values())) < ENOUGH_PATIENTS <= len(guessed)
    return {case: case for case in guessed} if too_few else guessed


def image_name(ending: str) -> re.Pattern[str]:
    """The pattern of an image file's name, its ending in small or capital letters: group 1 is the case, group 2 the channel."""
    return re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}", re.IGNORECASE)


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such data-set folder. Correct the path")
    if not path.is_file() and (folder.parent / path.name).is_file():
        raise DatasetError(f"{folder}: no dataset.json in it, but in the folder above. Give that: {folder.parent}")
    if not path.is_file():
        raise DatasetError(
            f"{folder}: no dataset.json in it. `autoseg convert folders SCANS NEW --labels LABELS` makes a folder with one; "
            "dataset_json_examples/README.md shows how to write one"
        )
    description = read_json(path, DatasetError)
    if not isinstance(description, dict):
        raise DatasetError(
            f"{path}: expected an object {{...}}, found {type(description).__name__}. Write one as dataset_json_examples/ shows"
        )
    return description


def _object(description: dict[str, Any], key: str) -> dict[str, Any]:
    value = description.get(key)
    if not isinstance(value, dict):
        raise DatasetError(f'"{key}" must be an object {{...}}, found {shown(value)}')
    return value


def _patients(description: dict[str, Any]) -> dict[str, str]:
    """{case: patient}, from the key ``patients``; a patient is named by a text or a number."""
    found = _object({"patients": {}} | description, "patients")
    return {case_name(case): _patient(case, patient, '"patients"') for case, patient in found.items()}


def _patients_listed(listing: dict[str, Any], key: str) -> dict[str, str]:
    """{case: patient} of the cases listed under ``key`` whose entry names one."""
    named = {case: entry["patient"] for case, entry in listing.items() if isinstance(entry, dict) and "patient" in entry}
    return {case_name(case): _patient(case, patient, f'"{key}"') for case, patient in named.items()}


def _patient(case: str, patient: object, where: str) -> str:
    if isinstance(patient, bool) or not isinstance(patient, str | int) or not str(patient).strip():
        raise DatasetError(
            f'{where}: case {case!r} needs the name of its patient, such as {{"{case}": "P1"}}; found {shown(patient)}. List '
            "the patient of each case, or leave the case out to have it guessed"
        )
    return str(patient)


def _require_patients(named: set[str], cases: set[str]) -> None:
    """Refuse names of no case while some case has no patient, which would be guessed from its name."""
    unknown, lacking = sorted(named - cases), sorted(cases - named)
    if unknown and lacking:
        raise DatasetError(
            f'"patients" names {", ".join(unknown[:4])}; there is no such case, and {", ".join(lacking[:4])} '
            f"{'has' if len(lacking) == 1 else 'have'} no patient. Correct the names, as case -> patient"
        )


def _lesions(found: object, labels: LabelSchema) -> tuple[str, ...]:
    """The structures that the key ``lesions`` lists."""
    if not isinstance(found, list) or any(name not in labels.structures for name in found):
        known = ", ".join(labels.structures)
        raise DatasetError(f'"lesions" must be a list of structures, of {known}; found {shown(found)}')
    return tuple(dict.fromkeys(found))


def _channel_names(channels: object) -> tuple[str, ...]:
    numbers = [str(number) for number in range(len(channels))] if isinstance(channels, dict) else []
    if not isinstance(channels, dict) or not numbers or set(channels) != set(numbers):
        raise DatasetError(
            f'"channel_names" must number the channels from 0, such as {{"0": "T1", "1": "FLAIR"}}; found {shown(channels)}'
        )
    return tuple(str(channels[number]) for number in numbers)


def _require_names(folder: Path, ending: str) -> None:
    """Refuse a folder in which no file follows the rules; ``check_dataset`` reports single odd files."""
    for path in (folder / "imagesTr", folder / "labelsTr"):
        if not path.is_dir():
            present = ", ".join(sorted(other.name for other in _files(folder) if other.is_dir())) or "none"
            raise DatasetError(f"{folder}: expected a folder {path.name}, found {present}. Rename it or make one")
        names = sorted(file.name for file in _files(path))
        if not _ending_in(path, ending):
            raise DatasetError(
                f"{path}: expected files that end in {ending!r}, the file_ending of dataset.json; found "
                f"{f'{len(names)} others such as {names[0]}' if names else 'none'}. Correct file_ending or convert them"
            )
    names = [file.name for file in _ending_in(folder / "imagesTr", ending)]
    if not any(image_name(ending).fullmatch(name) for name in names):
        raise DatasetError(
            f"{folder / 'imagesTr'}: expected images named CASE_0000{ending} (case, four digits of the channel), found "
            f"{names[0]}. Rename it to {names[0][: -len(ending)]}_0000{ending}, and the others alike"
        )


def _found_cases(
    images: Path, labels: Path, ending: str, n_channels: int, patients: dict[str, str], labelled: bool = True
) -> tuple[Case, ...]:
    """Every case that has an image or a label, complete or not.

    A number is a channel number only if there are as many channels: with one channel, ``scan_1001`` is not a file of ``scan``.
    If the folder holds only ``_0000`` files, each is assumed to hold all channels (colour pictures, 4D files).
    """
    pattern = image_name(ending)
    there = {(case_name(match[1]), int(match[2])): path for path in _files(images) if (match := pattern.fullmatch(path.name))}
    there = {key: path for key, path in there.items() if key[1] < n_channels}
    in_one_file = bool(there) and all(number == 0 for _, number in there)
    maps = {case_name(path.name[: -len(ending)]): path for path in _ending_in(labels, ending)}
    found = {case for case, _ in there} | (set(maps) if labelled else set())
    patients = guess_patients(found - set(patients)) | patients
    return tuple(
        Case(
            id=case,
            patient=patients[case],
            images=tuple(
                there.get((case, n), images / f"{case}_{n:04d}{ending}") for n in range(1 if in_one_file else n_channels)
            ),
            label=maps.get(case, labels / f"{case}{ending}" if labelled else None),
        )
        for case in sorted(found)
    )


def _ending_in(folder: Path, ending: str) -> list[Path]:
    """The files of a folder with an ending, in any letter case; the ending in lower case comes last."""
    return sorted(path for path in _files(folder) if path.name.lower().endswith(ending.lower()))


def _listed_cases(folder: Path, listing: dict[str, Any], patients: dict[str, str], key: str) -> tuple[Case, ...]:
    """The cases listed under ``key`` of dataset.json; under ``test`` they need no label."""
    cases = []
    patients = patients | _patients_listed(listing, key)
    patients = guess_patients({case_name(case) for case in listing} - set(patients)) | patients
    for case, entry in sorted((case_name(case), entry) for case, entry in listing.items()):
        plain_name(case, what=f'"{key}": case', error=DatasetError)
        images = entry.get("images") if isinstance(entry, dict) else None
        label = entry.get("label") if images else None
        needed = [label] if key == "dataset" or label is not None else []
        if not isinstance(images, list) or not images or not all(isinstance(path, str) for path in (*images, *needed)):
            raise DatasetError(f'"{key}": case {case!r} needs "images", a list of paths, and "label", a path')
        if fault := next((fault for path in (*images, *needed) if (fault := fault_of_path(path))), ""):
            raise DatasetError(f'"{key}": case {case!r}: expected paths of files, found {fault}. Correct them')
        cases.append(
            Case(
                id=case,
                patient=patients[case],
                images=tuple(folder / path for path in images),
                label=folder / label if label is not None else None,
            )
        )
    return tuple(cases)


def _test_entries(test: object) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(files listed as under ``dataset``, names of training cases to leave out), from the key ``test``.

    A list of paths, as in the Decathlon, is ignored: everything in imagesTs is a test case anyway.
    """
    if isinstance(test, dict):
        return test, ()
    if not isinstance(test, list) or not all(isinstance(name, str) for name in test):
        raise DatasetError(f'"test" must be a list of cases, or an object as "dataset" is; found {shown(test)}')
    return {}, tuple(name for name in test if "/" not in name)


def _leave_out(
    folder: Path, cases: tuple[Case, ...], test: tuple[Case, ...], names: tuple[str, ...]
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """(training, test), with the cases ``names`` moved from training to test."""
    if unknown := sorted(set(names) - {case.id for case in (*cases, *test)}):
        raise DatasetError(
            f'{folder / "dataset.json"}: "test" names {", ".join(unknown[:4])}; there is no such case. Correct the names'
        )
    moved = set(names)
    training = tuple(case for case in cases if case.id not in moved)
    if names and not training:
        raise DatasetError(f'{folder / "dataset.json"}: "test" names every case; expected some to train on. Take some out')
    test = tuple(case for case in test if case.id not in moved) + tuple(case for case in cases if case.id in moved)
    return training, tuple(sorted(test, key=lambda case: case.id))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not is_hidden(path.name)] if folder.is_dir() else []
