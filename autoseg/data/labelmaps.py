"""The label maps in a folder and the meaning of their values: references, predictions, maps of other tools.

Label maps are recognised by their ending, in upper or lower case. If a folder holds several kinds of files, the more specific
kind counts: segmentations of 3D Slicer (``.seg.nrrd``) before plain ``.nrrd``, which are then the scans; volumes before
pictures, which may be views of them; DICOM only if there is nothing else. Files that autoseg derives from a map or a scan
(``CASE_iso``, ``CASE_iso_cubic``, ``CASE.seg.nrrd``) are not maps of their own cases. They are recognised by the record beside
them or by their header, never by name.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.dataset import read_dataset
from autoseg.data.labels import LabelSchema, groups_of, read_labels
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.files import (
    FORMATS,
    PICTURES,
    SEGMENTATION,
    description_of,
    ending_of,
    is_slicer_segmentation,
    left_unread,
    read_label_volume,
    segment_names,
    stem_of,
)
from autoseg.imaging.values import count_values
from autoseg.names import is_hidden
from autoseg.workspace import as_record, read_json

__all__ = [
    "LabelMaps",
    "completed",
    "find_label_maps",
    "groups_beside",
    "label_maps",
    "named_labels",
    "names_in",
    "no_folder",
    "references_in",
    "refuse_other_references",
    "refuse_other_values",
    "schema_of",
    "segments_of",
    "told_maps",
]

logger = logging.getLogger(__name__)

DERIVED = ("_iso", "_iso_cubic")  # suffixes of a case's name in derived files
SIGN = "derived:"  # how their headers begin
MADE_BY = "autoseg "  # how the records of what we write begin


@dataclass(frozen=True)
class LabelMaps:
    """``maps``: {case: path}, sorted by case; ``left_out``: a sentence for each kind of file left out."""

    maps: dict[str, Path]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """What is known about predictions that were just made.

    Attributes:
        labels: what their values mean.
        ending: of their files.
        cases: names to score.
        images: the scans of each case, for the HTML report.
    """

    labels: LabelSchema
    ending: str
    cases: Collection[str]
    images: Mapping[str, Any]


def label_maps(folder: str | Path) -> dict[str, Path]:
    """{case: path} of the label maps in a folder; see ``find_label_maps``."""
    return find_label_maps(folder).maps


def told_maps(folder: str | Path) -> dict[str, Path]:
    """{case: path} of the label maps in a folder; files left out are logged as warnings."""
    found = find_label_maps(folder)
    for sentence in found.left_out:
        logger.warning("left out: %s", sentence)
    return found.maps


def no_folder(path: Path) -> str:
    """What a path that is no folder is, in words."""
    return "expected a folder of label maps, found a file" if path.exists() else "there is no such folder"


def find_label_maps(folder: str | Path) -> LabelMaps:
    """The label maps in a folder, each case once; in a data-set folder, the labels of its training and test cases.

    If a case has files with two endings, the more common ending counts.

    Raises:
        AutosegError: no such folder. A folder without label maps is not an error.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AutosegError(f"{folder}: {no_folder(folder)}. Correct the path")
    files = sorted(path for path in folder.iterdir() if not is_hidden(path.name) and not path.is_dir())  # also broken links
    known = [path for path in files if path.name.lower().endswith(tuple(FORMATS))]
    copies = _copies(known)
    segmentations = {path for path in known if is_slicer_segmentation(path) and path not in copies}
    left_out: list[str] = []

    def keep(paths: list[Path], others: Iterable[Path], why: str) -> list[Path]:
        kept = set(paths)
        if gone := [path for path in others if path not in kept]:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            left_out.append(f"{gone[0].name}{more}: {why}")
        return paths

    known = keep([path for path in known if path not in copies], known, "made from the label maps beside them")
    if volumes := [path for path in known if ending_of(path) not in PICTURES]:
        known = keep(volumes, known, "pictures beside volumes are taken to be views of them")
    if segmentations:
        plain = {ending_of(path) for path in segmentations}
        scans = {path for path in known if ending_of(path) in plain and path not in segmentations}
        known = keep([path for path in known if path not in scans], known, "beside segmentations (.seg.nrrd) taken to be scans")
    if known:
        derived = _derived(known)
        made = [path for path in known if path not in derived]
        known = keep(made, known, "derived from another file, as its record or its header says") if made else known
    dicom = [path for path in files if path.name.lower().endswith(SEGMENTATION)]
    known = keep(known, dicom, "DICOM beside label maps of other kinds") if known else dicom
    if not known and (folder / "dataset.json").is_file():
        dataset = read_dataset(folder)
        labels = {case.id: case.label for case in dataset.training if case.label}
        tests = {case.id: case.label for case in dataset.test if case.label}
        twice = [f"{case}: the label of a test case called as a training case" for case in tests if case in labels]
        return LabelMaps(dict(sorted((tests | labels).items())), tuple(twice))
    left_out += left_unread(files)
    usual = Counter(_kind(path) for path in known)
    found = {stem_of(path): path for path in sorted(known, key=lambda path: usual[_kind(path)])}
    keep(list(found.values()), known, "another file of the same case, of an ending that more files have, counts")
    return LabelMaps(dict(sorted(found.items())), tuple(left_out))


def references_in(folder: str | Path) -> dict[str, Path]:
    """{case: path} of the label maps in a folder, as ``told_maps``; AutosegError if there are none."""
    found = told_maps(folder)
    if not found:
        raise AutosegError(
            f"{folder}: no label files in it; expected one of {', '.join(FORMATS)}. Give the folder that holds them"
        )
    return found


def named_labels(
    folders: str | Path | Sequence[str | Path], maps: Mapping[str, Path], *, labels: str | Path | None = None
) -> LabelSchema | None:
    """The meaning of label values from files, without reading voxels; None if no file gives it.

    In this order: ``labels``; a dataset.json in or beside one of the folders; the ``CASE.json`` or ``run.json`` of a
    prediction. Names stored in a map itself (DICOM segmentations, ``.seg.nrrd``) are read by ``segment_names``.

    Args:
        folders: of the maps, and others that may hold a dataset.json; the first one found counts.
        maps: {case: path}.
        labels: path of a dataset.json.

    Raises:
        AutosegError: ``labels`` is not a dataset.json.
    """
    several = [folders] if isinstance(folders, str | Path) else folders
    places = [Path(folder) for folder in several]
    beside = [folder.parent for folder in places]
    for path in [Path(labels)] if labels else [folder / "dataset.json" for folder in dict.fromkeys((*places, *beside))]:
        if labels and not path.is_file():
            raise AutosegError(f"{path}: there is no such file. Correct the path")
        if path.is_file():
            description = read_json(path)
            if not isinstance(description, dict) or not isinstance(description.get("labels"), dict):
                raise DatasetError(f"{path}: no labels in it; expected a dataset.json. Give one that names the structures")
            try:
                return read_labels(description["labels"], description.get("regions_class_order"))
            except DatasetError as fault:
                raise DatasetError(
                    f"{path}: {fault}. Or give another one to autoseg evaluate or autoseg reconstruct with --labels"
                ) from None
    return _of_predictions(maps)


def schema_of(
    folders: str | Path | Sequence[str | Path],
    maps: Mapping[str, Path],
    *,
    labels: str | Path | None = None,
    also: Iterable[Path] = (),
) -> LabelSchema:
    """The meaning of label values: ``named_labels``, else the names stored in the maps, else "label N".

    Values without a name in any map follow as "label N". Values that a dataset.json does not declare are not added.

    Args:
        also: further maps whose values count, such as predictions beside references; unreadable ones are skipped here,
            since they are reported where they are used.

    Raises:
        DatasetError: no names and no value but 0; maps that name one value differently.
    """
    if told := named_labels(folders, maps, labels=labels):
        return told
    others = tuple(also)
    values = {value for path in (*maps.values(), *others) for value in _values_in(path)}
    schema = completed(_of_segments(maps.values(), others), values)
    if not schema.structures:
        found = "nothing but background (0) in them" if values else "none that can be read"
        raise DatasetError(f"expected label maps with structures, found {found}. Look at the files, or give --labels")
    return schema


def completed(schema: LabelSchema | None, values: Iterable[int]) -> LabelSchema:
    """The schema plus a structure "label N" for each undeclared value; None if it would have no structure."""
    schema = schema or LabelSchema((), (), False, ())
    rest = sorted(set(values) - set(schema.declared_values) - {schema.ignore})
    return LabelSchema(
        structures=(*schema.structures, *(f"label {value}" for value in rest)),
        values=(*schema.values, *((value,) for value in rest)),
        has_regions=schema.has_regions,
        paint_values=(*schema.paint_values, *rest),
        ignore=schema.ignore,
    )


def _kind(path: Path) -> str:
    """The kind of a file; files of one kind come from one tool."""
    return SEGMENTATION if path.name.lower().endswith(SEGMENTATION) else ending_of(path)


def _derived(paths: Iterable[Path]) -> set[Path]:
    """The files that autoseg derived from others."""
    found = set()
    for path in paths:
        stem = stem_of(path)
        case = next((stem.removesuffix(end) for end in DERIVED if stem.endswith(end)), None)
        if case and (path.name in _record_beside(path, case).get("outputs", ()) or description_of(path).startswith(SIGN)):
            found.add(path)
    return found


def _copies(paths: Sequence[Path]) -> set[Path]:
    """``.seg.nrrd`` files that autoseg made from the label maps beside them; a file edited since is not a copy.

    Slicer writes its own header, so both the header and the record must confirm it.
    """
    names = {path.name for path in paths}
    found = set()
    for path in (path for path in paths if is_slicer_segmentation(path)):
        written = set(_record_beside(path, case := stem_of(path)).get("outputs", ())) & names
        if path.name in written and any(stem_of(other) == case for other in written - {path.name}):
            found |= {path} if description_of(path).startswith(SIGN) else set()
    return found


def _record_beside(path: Path, case: str) -> dict[str, Any]:
    """The ``CASE.json`` that autoseg wrote beside a map; {} if there is none, or another program's."""
    manifest = path.parent / f"{case}.json"
    try:
        record = read_json(manifest) if manifest.is_file() else {}
    except AutosegError:
        return {}
    return record if isinstance(record, dict) and str(record.get("made_by", "")).startswith(MADE_BY) else {}


def refuse_other_values(
    labels: LabelSchema, maps: Mapping[str, Path], known: Mapping[str, tuple[int, ...]] | None = None
) -> None:
    """Raise DatasetError if the records beside the maps, or ``known``, give a structure of ``labels`` none of its values.

    Two models or data sets may number the same structures differently; scores would then compare one with another.

    Args:
        labels: how the maps are to be read.
        maps: {case: path}.
        known: what their values mean; None for the record beside each of them, if it is of a prediction.
    """
    for case, path in maps.items():
        told = groups_beside(path, case) if known is None else known
        for name, values in labels.groups.items():
            if not set(told.get(name, values)) & set(values):
                raise DatasetError(
                    f"{path}: expected {name} as {_listed(values)}, found that it is {_listed(told[name])} in this map. "
                    "Renumber the maps, or give a dataset.json that is true of all of them"
                )


def refuse_other_references(folder: Path, references: Mapping[str, Path], target: Path, labels: LabelSchema) -> None:
    """Raise AutosegError if the references lie in the output folder, or number structures differently from a model's labels."""
    if target.exists() and target.samefile(folder):
        raise AutosegError(f"{target}: holds the references. Results need a folder of their own")
    told = None
    with contextlib.suppress(DatasetError):  # of another form, such as the Decathlon's
        told = named_labels(folder, references)
    if told:
        refuse_other_values(labels, references, told.groups)


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def groups_beside(path: Path, case: str) -> dict[str, tuple[int, ...]]:
    """{structure: its values} from the record of a prediction, ``CASE.json`` beside a map; {} if there is none."""
    labels = _record_beside(path, case).get("labels")
    return groups_of(labels, path.parent / f"{case}.json") if isinstance(labels, dict) else {}


def _of_predictions(maps: Mapping[str, Path]) -> LabelSchema | None:
    """The labels of the model that predicted the maps, if all records agree. ``run.json`` is about the last run only."""
    found = [groups_beside(path, case) for case, path in maps.items()]
    for folder in {path.parent for path in maps.values()}:
        run = _record_beside(folder / "run", "run")
        if isinstance(run.get("labels"), dict) and "structures" in run["labels"]:
            remedy = "Move the file away, or predict the cases again"
            where = f"{folder / 'run.json'}: labels"
            schema: LabelSchema = as_record(LabelSchema, run["labels"], where, error=DatasetError, remedy=remedy)
            return schema if all(groups in ({}, schema.groups) for groups in found) else None
    first = found[0] if found else {}
    return _schema(first) if first and all(groups == first for groups in found) else None


def segments_of(path: Path) -> dict[str, int]:
    """{name: value} stored in a map; {} if it cannot be read, which is reported where its voxels are."""
    try:
        return segment_names(path)
    except AutosegError:
        return {}


def names_in(stored: Mapping[Path, Mapping[str, int]], others: Collection[Path] = ()) -> tuple[dict[int, str], str]:
    """({value: name}, the first contradiction in words, or "") of the names stored in maps.

    Args:
        stored: path of a map -> its ``segments_of``.
        others: maps that may call a value otherwise, but may not give a name another value.
    """
    known: dict[int, str] = {}
    numbers: dict[str, int] = {}
    clash = ""
    for path, named in stored.items():
        for name, value in named.items():
            if path not in others and known.setdefault(value, name) != name:
                clash = clash or f"{path}: expected segment {value} to be {known[value]} as in other maps, found {name}"
            if numbers.setdefault(name, value) != value:
                clash = clash or f"{path}: expected segment {name} to be number {numbers[name]} as in other maps, found {value}"
    return known, clash


def _of_segments(maps: Iterable[Path], also: Iterable[Path]) -> LabelSchema | None:
    """The names stored in the maps; see ``names_in``."""
    paths = [*maps]
    stored = {path: segments_of(path) for path in (*paths, *also)}
    known, clash = names_in(stored, stored.keys() - set(paths))
    if clash:
        raise DatasetError(f"{clash}. Number the segments alike in all of them, or name the structures in a dataset.json")
    return _schema({name: (value,) for value, name in sorted(known.items())}) if known else None


def _schema(groups: Mapping[str, tuple[int, ...]]) -> LabelSchema:
    values = tuple(groups.values())
    return LabelSchema(tuple(groups), values, any(len(group) > 1 for group in values), tuple(group[0] for group in values))


def _values_in(path: Path) -> list[int]:
    """The label values of a map; [] if it cannot be read."""
    try:
        found = list(count_values(read_label_volume(path).data))
    except AutosegError:
        return []
    return found
