"""Any other data: a folder of images and one of labels, matched by name; or a table that lists the files of each case.

Images are ``CASE.EXT``, or ``CASE_0000.EXT``, ``CASE_0001.EXT`` for several channels. A label is ``CASE.EXT``, ``CASE_seg.EXT``
or similar, or a folder ``CASE`` with one file per structure, which may overlap. Images and labels may share a folder.

A table (CSV or TSV) has one row per case: ``image``, or ``image_T1``, ``image_FLAIR`` and so on for channels of these names;
``label``, or ``label_liver``, ``label_tumour`` and so on for separate files; and optionally ``case``, ``patient`` and
``split`` (``train``, ``val`` or ``test``). Paths are relative to the folder of the table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from autoseg.data.dataset import LABEL_WORD, NUMBER, guess_patients
from autoseg.data.findings import Finding
from autoseg.data.labelmaps import names_in, segments_of
from autoseg.data.layouts.chosen import choose
from autoseg.data.layouts.found import AnyPath, FoundCase, FoundDataset, Source, error, files_below, plain_labels
from autoseg.data.tables import table_rows, table_text
from autoseg.errors import AutosegError, DatasetError, FileError
from autoseg.imaging.files import (
    FORMATS,
    PICTURES,
    ending_of,
    has_grid,
    is_dicom,
    is_slicer_segmentation,
    layers_of,
    left_unread,
    read_file,
    stem_of,
)
from autoseg.names import counted, fault_of_path, is_hidden
from autoseg.workspace import read_json

__all__ = ["find", "guess_channels", "read_names", "read_table"]

SNAP = re.compile(r'\s*(\d{1,10})(?:\s+[\d.]+){6}\s+"(.*)"\s*')  # value, red, green, blue, opacity, visible, meshed, name
FREESURFER = re.compile(r"\s*(\d{1,10})\s+(\S+)(?:\s+\d+){4}\s*")  # value, name, colour; also 3D Slicer's
WHOLE = re.compile(r"-?\d{1,10}(\.0*)?")
TITLES = (("index", "value", "label", "id", "number"), ("name", "structure", "label"))  # column titles; the first found is used
PARTS = {"": "train", "train": "train", "training": "train", "val": "val", "validation": "val"}
PARTS |= {"test": "test", "testing": "test"}


def find(
    source: AnyPath,
    *,
    labels: AnyPath | None = None,
    channels: Sequence[str] | None = None,
    names: AnyPath | None = None,
    ignore: int | None = None,
    structures: Sequence[str] | None = None,
) -> FoundDataset:
    """The cases of two folders or of a table.

    Args:
        source: folder of images, or a table.
        labels: folder of labels; not with a table.
        channels: names in order; None for the names in the table, else ``image``.
        names: JSON object name -> value, a table of value and name, or a colour table as ``read_names`` takes it; None for
            "label 1" and so on.
        ignore: label value of voxels without annotation.
        structures: names of those to take, in order; None for all.
    """
    source = Path(source)
    if source.is_file():
        named, cases, findings = _from_table(source)
    elif not source.is_dir():
        raise DatasetError(f"{source}: there is no such folder or table. Correct the path")
    elif labels is None:
        raise DatasetError(f"{source}: expected also a folder of labels, found none. Give it with --labels DIR")
    elif not Path(labels).is_dir():
        raise DatasetError(f"{labels}: expected the folder of labels, found no such folder. Correct the path of --labels")
    else:
        named = None
        cases, findings = _from_folders(source, Path(labels))
    if not cases and not findings:
        raise DatasetError(
            f"{source}: expected images that end in one of {', '.join(sorted(FORMATS))}, or rows; found none. Give their folder"
        )
    known, cases = _with_segments(cases, findings, is_named=bool(names), chosen=bool(structures and not names))
    channels = tuple(channels or named or guess_channels(cases))
    if channels == ("image",):
        message = 'the channel is called "image", so that each scan is scaled by itself'
        findings.append(Finding("note", "", "channel-name", message, "Give --channels CT for CT in Hounsfield units."))
    values = read_names(names) if names else known
    found = FoundDataset(
        channels=channels,
        cases=tuple(cases),
        describe=plain_labels(values, closed=False, ignore=ignore),
        findings=tuple(findings),
    )
    return choose(found, structures, values, ignore) if structures else found


def _with_segments(
    cases: Sequence[FoundCase], findings: list[Finding], *, is_named: bool, chosen: bool
) -> tuple[dict[int, str], list[FoundCase]]:
    """({value: name} stored in the label maps, the cases).

    If a value or a name does not mean the same in all maps, or the segments of some may overlap, or some are to be ``chosen``,
    each segment becomes a structure of its own, known by its name. Where names were given for the values (``is_named``), a
    value or a name of several meanings is an error.
    """
    maps = {case.id: case.label for case in cases if case.label}
    stored = {path: segments_of(path) for path in maps.values()}
    known, clash = names_in(stored)
    if clash and is_named:
        findings.append(error("", "segment-name", clash, "Leave --names out: segments are then known by their names."))
    elif clash:
        findings.append(Finding("note", "", "segment-name", clash, "Nothing: segments are known by their names."))
    elif not (chosen or any(case.masks for case in cases) or any(stored[p] and _may_overlap(p) for p in stored)):
        return known, list(cases)
    masks = {case: tuple((name, path) for name in stored[path]) for case, path in maps.items()}
    return known, [replace(c, label=None, masks=masks[c.id]) if masks.get(c.id) else c for c in cases]


def _may_overlap(path: Path) -> bool:
    """Whether the segments of a file may overlap, as layers and contours may."""
    return not has_grid(path) or layers_of(path) > 1


def guess_channels(cases: Sequence[FoundCase]) -> tuple[str, ...]:
    """Channel names from the number of channels in the first case; a single file is read."""
    images = cases[0].images if cases else ()
    try:
        count = len(images) if len(images) > 1 else len(read_file(images[0].path).data)
    except (AutosegError, IndexError):
        count = 1  # faults of the file are reported when the cases are read
    known: dict[int, tuple[str, ...]] = {1: ("image",), 3: ("red", "green", "blue")} if len(images) < 2 else {}
    return known.get(count) or tuple(f"channel {number}" for number in range(count))


def read_names(path: AnyPath) -> dict[int, str]:
    """{value: name} from a JSON object name -> value or value -> name, from a dataset.json, a CSV or TSV, or a colour table.

    A colour table is a label description of ITK-SNAP, a lookup table of FreeSurfer (``FreeSurferColorLUT.txt``) or one of 3D
    Slicer (``.ctbl``), in which 0 is background. In a CSV or TSV, the columns titled ``index``, ``value`` or ``label`` and
    ``name`` or ``structure`` are used; without titles, the first two columns.

    Raises:
        DatasetError: another format; a value with two names.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".json":
            described = read_json(path, DatasetError)
            described = described.get("labels", described)  # of a dataset.json
            is_turned = all(map(WHOLE.fullmatch, described)) and not all(WHOLE.fullmatch(str(n)) for n in described.values())
            pairs = [(int(key), str(name)) if is_turned else (int(name), str(key)) for key, name in described.items()]
        elif not (pairs := _of_colour_table(path)):
            rows = table_rows(path, error=DatasetError)
            value, name = _columns(rows[0] if rows else [], path)
            rows = [row for row in rows if len(row) > max(value, name) and WHOLE.fullmatch(row[value])]
            pairs = [(int(row[value].partition(".")[0]), row[name]) for row in rows]
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as fault:
        raise DatasetError(f"{path}: expected names of label values, not readable: {fault}. Write rows VALUE,NAME") from fault
    if not pairs:
        raise DatasetError(f"{path}: expected rows of a label value and its name, found none. Write VALUE,NAME")
    names: dict[int, str] = {}
    for number, text in pairs:
        if names.setdefault(number, text) != text:
            raise DatasetError(f"{path}: expected one name for {number}, found {names[number]} and {text}. Leave one of them")
    return names


def _of_colour_table(path: Path) -> list[tuple[int, str]]:
    """[(value, name)] if every line of the file, except comments, fits a colour table; else []."""
    lines = [
        line for line in table_text(path, error=DatasetError).splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    found = [SNAP.fullmatch(line) or FREESURFER.fullmatch(line) for line in lines]
    return [(int(row[1]), row[2].strip()) for row in found if row and int(row[1])] if all(found) else []


def _columns(first: list[str], path: AnyPath) -> tuple[int, int]:
    """The column numbers of values and names, from the first line of a table."""
    titles = [title.lower() for title in first]
    value, name = (next((titles.index(known) for known in kinds if known in titles), None) for kinds in TITLES)
    if value is not None and name is not None and value != name:
        return value, name
    if len(titles) > 2 and not WHOLE.fullmatch(titles[0]):
        raise DatasetError(
            f"{path}: expected columns called index and name, found {', '.join(first)}. Name them so in the first line"
        )
    return 0, 1


def read_table(path: AnyPath) -> tuple[list[str], list[dict[str, str]]]:
    """(titles, rows) of a CSV or TSV; each row is a dictionary by title."""
    first, *rows = table_rows(path, error=DatasetError) or [[]]
    titles = [name.partition("_") for name in first]
    columns = [kind.lower() + bar + own for kind, bar, own in titles]  # the part after the underscore is a name
    return columns, [dict(zip(columns, row, strict=False)) for row in rows if any(row)]


def _from_table(path: Path) -> tuple[list[str] | None, list[FoundCase], list[Finding]]:
    """(channel names or None, cases, findings)."""
    columns, rows = read_table(path)
    images = [name for name in columns if name == "image" or name.startswith("image_")]
    labels = [name for name in columns if name == "label" or name.startswith("label_")]
    if not images or not labels or (len(labels) > 1 and "label" in labels):
        raise DatasetError(
            f"{path}: expected the columns image (or image_T1, image_T2 ...) and label (or label_liver, label_tumour ...), "
            f"found {', '.join(columns) or 'none'}. Name them so in the first line"
        )
    cases: list[FoundCase] = []
    findings: list[Finding] = []
    ids: set[str] = set()
    for number, row in enumerate(rows, 2):
        files = {name: path.parent / row[name] for name in (*images, *labels) if row.get(name)}
        case = row.get("case") or (_stem(files[images[0]]) if images[0] in files else f"row {number}")
        part = PARTS.get(row.get("split", "").lower())
        wrong = [f"a file, found no {file}" for file in files.values() if fault_of_path(file) or not file.is_file()]
        wrong += [f"a path under {name}, found none" for name in images if name not in files]
        wrong += ["a label, found none"] if part != "test" and not set(labels) & set(files) else []
        wrong += ["train, val or test under split, found " + row["split"]] if part is None else []
        wrong += ["each case once, found it again"] if case in ids else []
        ids.add(case)
        findings += [error(case, "table-row", f"expected {what}", f"Correct the row in {path.name}.") for what in wrong]
        if not wrong:
            masks = tuple((name[6:], files[name]) for name in labels if name in files and name != "label")
            sources = tuple(Source(files[name]) for name in images)
            cases.append(FoundCase(case, row.get("patient", ""), sources, files.get("label"), masks, str(part)))
    return [name[6:] for name in images] if images != ["image"] else None, _with_patients(cases), findings


def _from_folders(images: Path, labels: Path) -> tuple[list[FoundCase], list[Finding]]:
    """(cases, findings)."""
    together = images.resolve() == labels.resolve()  # then labels are recognised by name

    def is_label(path: Path) -> bool:
        if path.is_dir() or is_hidden(path.name):
            return path.is_dir() and not is_hidden(path.name)
        return _is_map(path) and (not together or is_slicer_segmentation(path) or bool(LABEL_WORD.search(_stem(path))))

    cases: list[FoundCase] = []
    findings: list[Finding] = []
    scans = [path for path in _images_in(images) if not is_slicer_segmentation(path) and not (together and is_label(path))]
    scans = _without_views(scans, findings)
    if not scans:
        _refuse_without_images(images, labels)
    for folder in dict.fromkeys((images, labels)):
        findings += _unread_in(folder)
    files = _Images({_stem(path): path for path in reversed(scans)})
    names = {LABEL_WORD.sub("", _stem(path)) for path in labels.iterdir() if is_label(path)}
    numbered = not any(name in files.by_stem for name in names if NUMBER.fullmatch(name))  # else they are case numbers
    used: set[Path] = set()
    for path in _without_views(sorted(filter(is_label, labels.iterdir())), findings):
        stem = path.name if path.is_dir() else _stem(path)
        case = next((name for name in (stem, LABEL_WORD.sub("", stem)) if files.channels_of(name)), None)
        if case is None:
            remedy = "Give image and label one name, or name the pairs in a table (CSV)."
            findings.append(error(stem, "no-image", f"expected an image {stem} or {stem}_0000 in {images}, found none", remedy))
            continue
        sources = files.channels_of(case)
        used |= {source.path for source in sources}
        masks = _masks_in(path, findings) if path.is_dir() else ()
        if path.is_dir() and not masks:
            findings.append(error(case, "missing-label", f"expected files of structures in {path}, found none", "Add them."))
            continue
        cases.append(FoundCase(case, "", sources, None if masks else path, masks))
    left = _Images({stem: path for stem, path in files.by_stem.items() if path not in used})
    numbered = numbered and any(re.search("_0000$", stem) for stem in left.by_stem)
    for case in sorted({re.sub(r"_\d{4}$", "", stem) if numbered else stem for stem in left.by_stem}):
        cases.append(FoundCase(case, "", left.channels_of(case), part="test"))
        message = "an image without a label: it becomes a test case"
        findings.append(Finding("note", case, "no-label", message, "Add its label if it is to be trained on."))
    findings += _numbered_otherwise(cases)
    called = _by_name((_stem(path), path) for path in scans)
    findings += [fault for case in cases for fault in _named_twice(case, called)]
    return _with_patients(cases), findings


def _numbered_otherwise(cases: Iterable[FoundCase]) -> list[Finding]:
    """An error for each case with as many channels as most have, but of other numbers: they would be taken in order."""
    numbers = {case.id: ", ".join(_stem(source.path)[-4:] for source in case.images) for case in cases if len(case.images) > 1}
    usual = next((text for text, _ in Counter(numbers.values()).most_common(1)), "")
    remedy = "Leave the case out, or add what is missing: a number means the same channel in all cases."
    return [
        error(case, "channel-numbers", f"expected the channels {usual} as in most cases, found {found}", remedy)
        for case, found in numbers.items()
        if found != usual and len(found) == len(usual)
    ]


def _refuse_without_images(folder: Path, labels: Path) -> None:
    files = [path for path in files_below(folder) if labels == folder or labels not in path.parents]
    inner = [path for path in files if path.parent != folder and _is_map(path)]
    found, remedy = "found none", "Give the folder of the images"
    if inner:
        found = f"found none directly in it, and {counted(len(inner), 'file')} below, such as {inner[0].relative_to(folder)}"
        remedy = "Give the folder that holds them, or a table (CSV) that lists the files of each case"
    if any(map(is_dicom, inner or files)):
        found = f"{found}; they are DICOM" if inner else "found DICOM"
        remedy = "Make one .nii.gz of each series, called as its label is, and give their folder"
    raise DatasetError(f"{folder}: expected images that end in one of {', '.join(sorted(FORMATS))}; {found}. {remedy}")


def _unread_in(folder: Path) -> list[Finding]:
    """A warning for each kind of file in a folder that may be a scan or a label map, and is not read."""
    said = [sentence.partition("; ") for sentence in left_unread(folder.iterdir())]
    return [
        Finding("warning", "", "left-out", f"{folder.name}/{what}", f"{remedy.capitalize()}, or move it away.")
        for what, _, remedy in said
    ]


def _without_views(paths: Sequence[Path], findings: list[Finding]) -> list[Path]:
    """The files without pictures called as a volume among them, which are views of it; they are told as a finding."""
    volumes = {_stem(path) for path in paths if not path.is_dir() and not _is_picture(path)}
    views = [path for path in paths if not path.is_dir() and _is_picture(path) and _stem(path) in volumes]
    if views:
        more = f" and {len(views) - 1} more" if len(views) > 1 else ""
        message = f"{views[0].parent.name}/{views[0].name}{more}: left out, as a picture of the volume of the same name"
        findings.append(Finding("warning", "", "picture", message, "Nothing if it is one; else rename it, or move it away."))
    left_out = set(views)
    return [path for path in paths if path not in left_out]


def _is_picture(path: Path) -> bool:
    return _is_image(path) and ending_of(path) in PICTURES


def _masks_in(folder: Path, findings: list[Finding]) -> tuple[tuple[str, Path], ...]:
    """(structure, path) of the files in the folder of a case; the structures of segmentations are their segments."""
    files = _without_views(_images_in(folder, _is_map), findings)
    return tuple((name, file) for file in files for name in segments_of(file) or (_stem(file),))


def _by_name(named: Iterable[tuple[str, Path]]) -> dict[str, list[str]]:
    """{name: names of the files that have it}."""
    found: dict[str, list[str]] = {}
    for name, path in named:
        found.setdefault(name, []).append(path.name)
    return found


def _named_twice(case: FoundCase, scans: Mapping[str, list[str]]) -> list[Finding]:
    """An error for each image or structure of a case for which several files have the name; ``scans`` as ``_by_name`` says."""
    of = [(_stem(source.path), scans.get(_stem(source.path), [])) for source in case.images]
    of += _by_name(case.masks).items()
    remedy = "Keep the right one, and move the others away."
    return [
        error(case.id, "file-twice", f"expected one file called {stem}, found {' and '.join(names)}", remedy)
        for stem, names in of
        if len(names) > 1
    ]


def _with_patients(cases: list[FoundCase]) -> list[FoundCase]:
    guessed = guess_patients(case.id for case in cases if not case.patient)
    return [case if case.patient else replace(case, patient=guessed[case.id]) for case in cases]


@dataclass(frozen=True, eq=False)
class _Images:
    """Image files by their names without endings."""

    by_stem: dict[str, Path]

    @cached_property
    def numbered(self) -> dict[str, list[str]]:
        """{case: the names that are its own with the number of a channel, ascending}."""
        found: dict[str, list[str]] = {}
        for stem in sorted(self.by_stem):
            if match := NUMBER.fullmatch(stem):
                found.setdefault(match[1], []).append(stem)
        return found

    def channels_of(self, case: str) -> tuple[Source, ...]:
        """The images of a case, () if there are none."""
        names = [case] if case in self.by_stem else self.numbered.get(case, [])
        return tuple(Source(self.by_stem[name]) for name in names)


def _images_in(folder: Path, is_one: Callable[[Path], bool] | None = None) -> list[Path]:
    is_one = is_one or _is_image
    return [path for path in sorted(folder.iterdir()) if not path.is_dir() and not is_hidden(path.name) and is_one(path)]


def _is_map(path: Path) -> bool:
    return _is_image(path) or is_dicom(path)


def _is_image(path: Path) -> bool:
    try:
        return bool(ending_of(path))
    except FileError:
        return False


def _stem(path: Path) -> str:
    """The name of a file without its ending."""
    return stem_of(path) if _is_image(path) else path.stem
