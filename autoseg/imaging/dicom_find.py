"""Find the volumes in a file, a folder or a tree of DICOM files.

Files are grouped by SeriesInstanceUID. Since de-identification may give one identifier to several series, different patients
and studies are separate series; so are folders whose images lie at the same positions and differ in nothing else. Within a
series, images of another size or orientation form separate volumes. So do several echoes, times or image types at the same
positions or between each other, if the headers distinguish them. Copies (the same identifier and pixels) count once.
Localisers, images without a position and objects that are not images are left out and reported.
"""

import hashlib
import itertools
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from autoseg.errors import FileError
from autoseg.imaging.dicom_apart import TRAITS, alike, are_ambiguous, are_placed, told_apart
from autoseg.imaging.dicom_file import open_dataset
from autoseg.imaging.dicom_patient import PATIENT_TAGS, pseudonymise
from autoseg.imaging.dicom_series import FINEST_MM, DicomSeries, Plane, depths_mm
from autoseg.imaging.raw import is_dicom_start
from autoseg.imaging.tree import files_under, is_closed
from autoseg.names import counted

__all__ = ["Found", "Header", "Told", "find_series", "header_of", "planes_of", "tell_series"]

Header = dict[str, Any]  # element by keyword
Member = tuple[Path, Header]  # a file of a series

_PLANE_TAGS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    *TRAITS,
)
_FILE_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "NumberOfSeriesRelatedInstances",
    "ImagesInAcquisition",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Units",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_TAGS = [*_FILE_TAGS, *_PLANE_TAGS, *PATIENT_TAGS]
FARTHEST_MM, LARGEST = 1e6, 1e30  # a kilometre, and slopes: larger values mean damage
NO_SCANS = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "SR", "PR", "KO", "DOC", "REG", "FID", "RWV", "PLAN"}


@dataclass(frozen=True)
class Found:
    """The content of a folder: ``series``, sorted by name, and ``left_out``, a sentence for everything left out."""

    series: tuple[DicomSeries, ...]
    left_out: tuple[str, ...]


def find_series(source: str | os.PathLike[str], *, inverts: bool = False, among: Iterable[Path] | None = None) -> Found:
    """Every volume in a file, a folder or a tree.

    Args:
        source: path of a folder, including subfolders and links to folders; of a DICOMDIR, which means its folder; or of one
            DICOM file, which must be complete by itself.
        inverts: invert values of MONOCHROME1, see ``DicomSeries``.
        among: only these files of the folder. The names of their series then end with a digest of the images' identifiers, so
            that they do not depend on other files.

    Returns:
        Found

    Raises:
        FileError: the file is not a DICOM file, or is one slice of several.
    """
    source = Path(source)
    if source.name.upper() == "DICOMDIR":
        source = source.parent
    folder = source if source.is_dir() else source.parent
    closed: list[OSError] = []
    paths = among if among is not None else files_under(source, closed.append) if source.is_dir() else [source]
    groups: dict[str, list[Member]] = defaultdict(list)
    others: Counter[str] = Counter()
    unreadable: list[str] = []
    for path in paths:
        header = header_of(path)
        if header is None:
            unreadable += [path.name] if _may_be_slice(path) else []
            continue
        if str(header.get("Modality")) in NO_SCANS or not (_whole(header, "Rows") and _whole(header, "Columns")):
            others[str(header.get("Modality") or "no modality")] += "SOPClassUID" in header  # a DICOMDIR has none
            continue
        groups[str(header.get("SeriesInstanceUID") or path.parent)].append((path, header))
    if source != folder:
        if not groups:
            raise FileError(f"{source}: expected a DICOM image, found {', '.join(others) or 'something else'}. Give a scan.")
        _refuse_part(source, next(iter(groups)))
    series: list[DicomSeries] = []
    left_out = [f"{n} DICOM files that are no images ({kind})" for kind, n in others.items() if n]
    if unreadable:
        kind = "closed, damaged, or not DICOM despite the name"
        left_out.append(f"{counted(len(unreadable), 'file')} {kind}, such as {unreadable[0]}")
    if closed:
        left_out.append(f"{counted(len(closed), 'folder')} that cannot be read ({closed[0].strerror})")
    for members in groups.values():
        for found, note in _of_one_identifier(members, source):
            series += found
            left_out += note
    series = [replace(one, inverts=True) for one in series] if inverts else series
    return Found(_with_unique_names(series, every=among is not None), tuple(left_out))


@dataclass(frozen=True)
class Told:
    """The series of a file from its header: the identifier, and the number of files; 0 if not stated."""

    series: str
    files: int


def tell_series(path: Path) -> Told | None:
    """Told of an image; None if the file is not DICOM or not an image."""
    header = header_of(path)
    if header is None or str(header.get("Modality")) in NO_SCANS or not _whole(header, "Rows"):
        return None
    stated = _whole(header, "NumberOfSeriesRelatedInstances") or _whole(header, "ImagesInAcquisition") or 0
    return Told(str(header.get("SeriesInstanceUID") or path.parent), stated)


def header_of(path: Path) -> Header | None:
    """The needed elements by keyword; None if the file is not DICOM or is too damaged."""
    if not _begins_as_dicom(path):
        return None
    try:
        return _elements(open_dataset(path, stop_before_pixels=True, specific_tags=_TAGS))
    except FileError:
        return None


def _may_be_slice(path: Path) -> bool:
    """Whether a file that could not be read is called as slices are; without an ending, where it cannot even be opened."""
    ending = path.suffix.lower()
    return ending in (".dcm", ".ima") or ((not ending or ending[1:].isdigit()) and is_closed(path))


def _begins_as_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM; pipes and other special files are not opened."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_dicom_start(file.read(132))
    except OSError:
        return False


def _elements(dataset: Dataset) -> Header:
    """{keyword: value} of the elements that have a value; None for an unreadable value, such as the number '1,5'."""
    found: Header = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid but readable values
        for tag in dataset.keys():  # noqa: SIM118 - iterating reads the values
            try:
                element = dataset[tag]
            except Exception:  # pydicom raises many types
                found[keyword_for_tag(tag)] = None
                continue
            if element.value not in (None, ""):
                found[element.keyword] = element.value
    return found


def _refuse_part(path: Path, uid: str) -> None:
    """Refuse one slice of several, which is hardly ever intended."""
    others = [other for other in path.parent.iterdir() if other != path and other.is_file()]
    others = [other for other in others if (header := header_of(other)) and str(header.get("SeriesInstanceUID")) == uid]
    if others:
        raise FileError(
            f"{path}: is one of {len(others) + 1} files of its series. Give the folder, or put this file into one of its own."
        )


def _of_one_identifier(members: list[Member], source: Path) -> Iterator[tuple[list[DicomSeries], list[str]]]:
    """``_volumes`` of each series among the files of one SeriesInstanceUID."""
    patients: dict[tuple[str, ...], list[Member]] = defaultdict(list)
    for path, header in members:
        patients[tuple(str(header.get(key) or "") for key in ("PatientID", "StudyInstanceUID"))].append((path, header))
    for of_one in patients.values():
        groups = _folders_of(of_one)
        notes = []
        if len(patients) > 1:
            notes.append("Files of several patients or studies have its identifier; they were told apart by patient and study.")
        if len(groups) > 1:
            notes.append("Files of several folders have its identifier and positions; they were told apart by folder.")
        for group in groups:
            yield _volumes(group, source, notes)


def _folders_of(members: list[Member]) -> list[list[Member]]:
    """The files by folder if they are volumes only so; else all in one list."""
    folders: dict[Path, list[Member]] = defaultdict(list)
    for path, header in members:
        folders[path.parent].append((path, header))
    if len(folders) == 1:
        return [members]
    planes = _planes_of_all(members)[0]
    within = [[plane for plane in planes if plane.path.parent == folder] for folder in folders]
    return list(folders.values()) if are_ambiguous(planes) and not any(map(are_ambiguous, within)) else [members]


def _planes_of_all(members: list[Member], pseudonymised: Callable[[str], str] = str) -> tuple[list[Plane], int]:
    """(planes of the files, without copies; number of copies)."""
    planes: list[Plane] = []
    for i, (path, header) in enumerate(members, start=1):
        planes += planes_of(path, header, path.name if pseudonymised(path.name) == path.name else f"file {i}")
    kept: dict[tuple[Any, ...], list[Plane]] = defaultdict(list)
    pixels: dict[Path, tuple[str, bytes]] = {}
    for plane in planes:
        same = kept[plane.uid or plane.path, plane.frame, plane.position]
        if not any(_are_copies(plane.path, other.path, pixels) for other in same):
            same.append(plane)
    unique = {id(plane) for same in kept.values() for plane in same}
    return [plane for plane in planes if id(plane) in unique], len(planes) - len(unique)


def _are_copies(path: Path, other: Path, known: dict[Path, tuple[str, bytes]]) -> bool:
    """Whether two files hold the same pixels, as far as can be seen without decoding; ``known`` are those already read."""
    for one in {path, other} - set(known):
        try:
            dataset = open_dataset(one, specific_tags=["PixelData"])
            digest = hashlib.blake2b(dataset.get("PixelData") or b"").digest()
            known[one] = str(dataset.file_meta.TransferSyntaxUID), digest
        except FileError:
            known[one] = "", b""
    return known[path] == known[other] or known[path][0] != known[other][0]


def _volumes(members: list[Member], source: Path, notes: Iterable[str] = ()) -> tuple[list[DicomSeries], list[str]]:
    """(list of DicomSeries, sentences about what was left out), from the files of one series; ``notes`` are about it."""
    folder, pseudonymised = Path(os.path.commonpath([path.parent for path, _ in members])), pseudonymise(members)
    number, uid = _whole(members[0][1], "SeriesNumber"), str(members[0][1].get("SeriesInstanceUID") or "")
    inner = (source.name,) if source.is_file() else folder.relative_to(source).parts or (source.resolve().name,)
    title = f"series {'without number' if number is None else number} ({f'UID ...{uid[-8:]}' if uid else 'no UID'}) in "
    title += "/".join(map(pseudonymised, inner))
    unique, copies = _planes_of_all(members, pseudonymised)
    planes = [plane for plane in unique if "LOCALIZER" not in dict(plane.traits).get("ImageType", "").upper()]
    groups = alike(planes)
    if reason := _no_volume(planes, groups):
        return [], [f"{title}: {counted(len(unique), 'image')} left out: {reason}"]
    name, is_alias = _name(folder, number, source, pseudonymised)
    notes = [*notes, *([f"{copies} copies of images were left out."] if copies else [])]
    if is_alias:
        notes.append("It is named after its study, since its folder, file or number identifies the patient.")
    origin = (source if source.is_file() else folder) if is_alias else None
    if len(planes) < len(unique):
        notes.append(f"{counted(len(unique) - len(planes), 'localiser')} left out.")
    if stray := sum(len(group) == 1 for group in groups) if len(groups) > 1 else 0:
        notes.append(f"{counted(stray, 'single image')} of another size or orientation left out.")
        groups = [group for group in groups if len(group) > 1]
    volumes = [volume for group in groups for volume in told_apart(group)]
    if len(volumes) == 1:
        return [DicomSeries(name, title, _sorted(volumes[0][0]), tuple(notes), origin)], []
    notes.append(f"The series holds {len(volumes)} volumes.")
    return [
        DicomSeries(f"{name}_{letter}", f"{title}, part {letter}{why}", _sorted(part), tuple(notes), origin)
        for letter, (part, why) in zip(_letters(), volumes, strict=False)
    ], []


def _name(folder: Path, number: int | None, source: Path, pseudonymised: Callable[[str], str]) -> tuple[str, bool]:
    """(name of a series, from folders and its number or from its only file; whether a part of it was replaced)."""
    numbers = [] if number is None else [f"s{number}"]
    words = [source.stem] if source.is_file() else [*(folder.relative_to(source).parts or [source.resolve().name]), *numbers]
    shown = [pseudonymised(word) for word in words]
    is_alias = shown != words
    if is_alias:  # once is enough; files with the same name get numbers
        shown = list(dict.fromkeys([*shown, *map(pseudonymised, numbers)]))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(shown)).strip("-._") or "series", is_alias


def _no_volume(planes: list[Plane], groups: list[list[Plane]]) -> str | None:
    """Why images (``groups``: those by size and direction) cannot be a volume at all; None if they may be one."""
    if not planes:
        return "localisers"
    if not any(plane.position for plane in planes):
        return (
            "none has a position in the patient (projections, ultrasound, screenshots, reports, or frames without "
            "ImagePositionPatient); save pictures as .png to segment them as such"
        )
    if len(groups) > 1 and all(len(group) == 1 for group in groups):
        return "no two are parallel and of one size (localisers, projections)"
    return None


def planes_of(path: Path, header: Header, called: str | None = None) -> Iterator[Plane]:
    """The images of a file; messages use its name, or ``called``."""
    rows, columns = _whole(header, "Rows") or 0, _whole(header, "Columns") or 0
    own, shared = header, _macros(_items(header, "SharedFunctionalGroupsSequence"))
    each = _items(header, "PerFrameFunctionalGroupsSequence")
    frames = min(_whole(header, "NumberOfFrames") or 1, max(1, len(each), path.stat().st_size))  # a file cannot hold more
    if frames > 1 and not each:  # frame positions are missing, or vendor-specific
        own = {key: value for key, value in own.items() if key != "ImagePositionPatient"}
    for frame in range(frames):
        values = {**own, **shared, **(_macros([each[frame]]) if frame < len(each) else {})}
        spacing, thickness = _numbers(values, "PixelSpacing", 2), _numbers(values, "SliceThickness", 1)
        position = _numbers(values, "ImagePositionPatient", 3)
        yield Plane(
            path=path,
            frame=frame,
            called=called or path.name,
            uid=str(own.get("SOPInstanceUID", "")),
            shape=(rows, columns),
            position=position if position and max(map(abs, position)) < FARTHEST_MM else None,
            orientation=_directions(values),
            spacing_mm=spacing if spacing and FINEST_MM < min(spacing) <= max(spacing) < FARTHEST_MM else None,
            thickness_mm=thickness[0] if thickness and FINEST_MM < thickness[0] < FARTHEST_MM else None,
            slope=(_numbers(values, "RescaleSlope", 1) or (1.0,))[0],
            intercept=(_numbers(values, "RescaleIntercept", 1) or (0.0,))[0],
            samples=_whole(own, "SamplesPerPixel") or 1,
            is_inverted=own.get("PhotometricInterpretation") == "MONOCHROME1",
            problem=_problem(values),
            unit=str(own.get("Units") or ""),
            traits=tuple((key, str(values[key])) for key in TRAITS if values.get(key) is not None),
        )


def _problem(values: Header) -> str:
    if "MOSAIC" in str(values.get("ImageType", "")).upper():
        return "expected one slice, found the slices of a whole volume laid out in one image (a mosaic)"
    if values.get("PhotometricInterpretation") == "PALETTE COLOR":
        return "expected intensities, found indices of a colour palette"
    if values.get("ModalityLUTSequence"):
        return "expected a slope and an intercept, found a table of values (ModalityLUTSequence)"
    for key, senseless in (("RescaleSlope", 0.0), ("RescaleIntercept", None)):
        number = (_numbers(values, key, 1) or (None,))[0]
        if key in values and (number is None or number == senseless or abs(number) > LARGEST):
            return f"expected a usable {key}, found {values[key]}"
    return ""


def _macros(groups: Iterable[Dataset]) -> Header:
    """The elements in the functional groups of a frame, by keyword; each group is a sequence of one item."""
    macros = [
        value for group in groups for value in _elements(group).values() if isinstance(value, Sequence) and len(value) == 1
    ]
    return {key: value for macro in macros for key, value in _elements(macro[0]).items() if key in _PLANE_TAGS}


def _items(values: Mapping[str, Any], key: str) -> Sequence | tuple[()]:
    """The items of a sequence; none if it is missing or damaged."""
    value = values.get(key)
    return value if isinstance(value, Sequence) else ()


def _whole(values: Mapping[str, Any], key: str) -> int | None:
    """A whole number, or None."""
    number = _numbers(values, key, 1)
    return int(number[0]) if number and number[0].is_integer() else None


def _numbers(values: Mapping[str, Any], key: str, count: int) -> tuple[float, ...] | None:
    """``count`` finite numbers, or None."""
    value: Any = values.get(key)
    try:
        numbers = tuple(float(v) for v in (value if count > 1 else [value]))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _directions(values: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Six direction cosines of two orthogonal unit vectors, or None."""
    numbers = _numbers(values, "ImageOrientationPatient", 6)
    if numbers is None:
        return None
    pair = np.reshape(numbers, (2, 3))
    return numbers if np.abs(pair @ pair.T - np.eye(2)).max() < 1e-3 else None


def _sorted(planes: list[Plane]) -> tuple[Plane, ...]:
    """Planes sorted along the normal; those without a position in the order of their files."""
    depths = depths_mm(planes) if are_placed(planes) else np.zeros(len(planes))
    order = sorted(zip(depths, planes, strict=True), key=lambda item: (item[0], str(item[1].path), item[1].frame))
    return tuple(plane for _, plane in order)


def _letters() -> Iterator[str]:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return itertools.chain(alphabet, ("".join(pair) for pair in itertools.product(alphabet, repeat=2)))


def _with_unique_names(series: list[DicomSeries], *, every: bool = False) -> tuple[DicomSeries, ...]:
    """Series sorted by name; equal names, or with ``every`` all names, get a digest of the images' identifiers at the end, and
    a letter if these are equal too."""
    count = Counter(one.name for one in series)
    named = [one if count[one.name] == 1 and not every else replace(one, name=f"{one.name}_{_mark(one)}") for one in series]
    count = Counter(one.name for one in named)
    letters: dict[str, Iterator[str]] = defaultdict(_letters)
    named = [one if count[one.name] == 1 else replace(one, name=f"{one.name}_{next(letters[one.name])}") for one in named]
    return tuple(sorted(named, key=lambda one: one.name))


def _mark(series: DicomSeries) -> str:
    return hashlib.blake2b("".join(sorted({plane.uid for plane in series.planes})).encode(), digest_size=3).hexdigest()
