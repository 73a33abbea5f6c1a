"""The files of a found case, read once: are they complete and on one grid, and which values has the label?

Structures in separate files may overlap. A *combination* is a set of structures that share some voxel. Each combination gets a
label value, and each structure becomes a region: the values of all its combinations. Overlap is thus stored in one ordinary
label map.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.file_checks import check_channels, check_grids, check_intensities, count_label, unreadable
from autoseg.data.findings import Finding
from autoseg.data.layouts.found import FoundCase, Source, error
from autoseg.imaging.files import (
    Drawing,
    FileContent,
    Segmentation,
    ending_of,
    read_file,
    read_segmentation,
    segment_names,
)
from autoseg.imaging.geometry import Geometry

__all__ = ["SeenCase", "combine", "label_values", "mask_reader", "read_image", "see_cases"]


@dataclass(frozen=True)
class SeenCase:
    """The result of reading a case.

    Attributes:
        case: FoundCase.
        findings: about this case.
        values: of its label map, ascending.
        combinations: of its separate files; () is background.
        digests: {path: of the bytes of the file}.
    """

    case: FoundCase
    findings: tuple[Finding, ...]
    values: tuple[int, ...]
    combinations: tuple[tuple[str, ...], ...]
    digests: dict[Path, str]

    @property
    def usable(self) -> bool:
        """No finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def see_cases(cases: Iterable[FoundCase], channels: Sequence[str]) -> list[SeenCase]:
    """Read cases, which may share a file (frames of one series; read once); returns a list of SeenCase."""
    shared: dict[Path, FileContent] = {}
    return [_see(case, channels, shared) for case in cases]


def read_image(source: Source, contents: dict[Path, FileContent] | None = None) -> FileContent:
    """The FileContent of a Source; one volume of a 4D file is data (1, Z, Y, X).

    Args:
        contents: {path: FileContent} of files already read; this file is added.
    """
    contents = {} if contents is None else contents
    if source.path not in contents:
        contents[source.path] = read_file(source.path)
    content = contents[source.path]
    if source.volume is None:
        return content
    if source.volume >= len(content.data):
        raise ValueError(f"expected at least {source.volume + 1} volumes, found {len(content.data)}")
    return replace(content, data=content.data[source.volume : source.volume + 1])


def mask_reader(case: FoundCase, onto: Geometry) -> Callable[[Path, str], FileContent]:
    """A function that reads the file of one structure of a case on a grid; nonzero is foreground.

    From a segmentation of 3D Slicer or DICOM, or a structure set, it takes the segment of that name. The file is kept for the
    next structures.
    """
    last: dict[Path, Segmentation | Drawing] = {}
    own = dict(case.called)

    def read(path: Path, name: str) -> FileContent:
        known, name = last.get(path), own.get(name, name)
        several: Collection[str] = known.segments if known else segment_names(path)
        if name not in several:
            return read_file(path, as_label=True, onto=onto)
        if known is None:
            last.clear()
            chosen = {own.get(one, one) for one, file in case.masks if file == path}
            known = last[path] = read_segmentation(path, chosen if len(chosen) < len(several) else None)
        return known.mask(name, onto)

    return read


def combine(masks: Iterable[tuple[str, np.ndarray]], shape: Sequence[int]) -> tuple[np.ndarray, tuple[tuple[str, ...], ...]]:
    """Structures that may overlap as one array of codes.

    Args:
        masks: pairs (structure, (Z, Y, X) bool), any iterable; one mask is held at a time.
        shape: (Z, Y, X).

    Returns:
        (codes, combinations): (Z, Y, X) int32, and for each code the structures that its voxels belong to; code 0 is ().
    """
    codes = np.zeros(tuple(shape), np.int32)
    combinations: list[tuple[str, ...]] = [()]
    for structure, mask in masks:
        table = np.arange(len(combinations))
        for code in np.unique(codes[mask]).tolist():
            table[code] = len(combinations)
            combinations.append((*combinations[code], structure))
        codes[mask] = table[codes[mask]]
    return codes, tuple(combinations)


def label_values(
    combinations: Iterable[Iterable[str]], structures: Iterable[str]
) -> tuple[dict[str, Any], dict[frozenset[str], int]]:
    """The labels of a data set whose structures are in separate files.

    Args:
        combinations: all that occur, each a collection of structures.
        structures: the names of all files, in order.

    Returns:
        (description, values): the keys ``labels`` and, where structures overlap, ``regions_class_order`` of a dataset.json, and
        {frozenset of structures: label value}. A single structure has its position in ``structures``, so that its value
        is the same whether others overlap or not.
    """
    found, structures = {frozenset(combination) for combination in combinations}, list(structures)
    values: dict[frozenset[str], int] = {frozenset(): 0}
    values |= {frozenset([name]): number for number, name in enumerate(structures, 1)}
    several = sorted(sorted(group) for group in found if len(group) > 1)
    values |= {frozenset(group): len(structures) + number for number, group in enumerate(several, 1)}
    if not several:
        return {"labels": {"background": 0} | {name: values[frozenset([name])] for name in structures}}, values
    # a structure that is never alone still keeps its value, which is painted where the network predicts it alone
    regions: dict[str, list[int]] = {name: [] for name in structures}
    for group, value in values.items():
        for name in group & regions.keys():
            regions[name].append(value)
    order = [values[frozenset([name])] for name in structures]
    return {"labels": {"background": 0} | regions, "regions_class_order": order}, values


def _see(case: FoundCase, channels: Sequence[str], contents: dict[Path, FileContent]) -> SeenCase:
    findings: list[Finding] = []

    def read(source: Source, what: Callable[[], FileContent]) -> FileContent | None:
        try:
            return what()
        except Exception as fault:  # noqa: BLE001 - any error of a reader is a finding about its file
            findings.append(unreadable(case.id, source.path, fault))
            return None

    found = [(source.path, read(source, partial(read_image, source, contents))) for source in case.images]
    images = [image for _, image in found if image]
    digests = {path: image.digest for path, image in found if image}
    notes: dict[str, None] = {}  # of separate files: once combined, no later reading has them
    for path, image in found:
        findings += check_intensities(case.id, path, image.data) if image else []
    if len(images) < len(found):
        return SeenCase(case, tuple(findings), (), (), digests)
    findings += check_channels(case.id, channels, ending_of(case.images[0].path), images)
    findings += check_grids(case.id, images[0], ((path, image, True) for path, image in found))
    mask_of = mask_reader(case, images[0].geometry)

    def sound(path: Path, name: str = "") -> tuple[np.ndarray, tuple[int, ...]] | None:
        """(data (Z, Y, X), values) of a label file or of one structure; None if it has a fault."""
        if (label := read(Source(path), partial(mask_of, path, name))) is None:
            return None
        digests[path] = label.digest
        notes.update(dict.fromkeys(label.notes if case.masks else ()))
        counts, wrong = count_label(case.id, path, label.data)
        wrong += check_grids(case.id, images[0], [(path, label, False)])
        values = tuple(value for value, _ in counts)
        wrong += _check_mask(case, path, values)
        findings.extend(wrong)
        return None if any(finding.severity == "error" for finding in wrong) else (label.data[0], values)

    label = sound(case.label) if case.label else None
    masks = ((name, part[0] != 0) for name, path in case.masks if (part := sound(path, name)))
    combinations = combine(masks, images[0].geometry.shape)[1] if case.masks else ()
    remedy = "Correct the file if this is not meant."
    findings += [Finding("note", case.id, "reader-note", note, remedy) for note in notes]
    return SeenCase(case, tuple(findings), label[1] if label else (), combinations, digests)


def _check_mask(case: FoundCase, path: Path, values: tuple[int, ...]) -> list[Finding]:
    """Check that the file of one structure has only 0 and one other value."""
    if not case.masks or len(set(values) - {0}) < 2:
        return []
    message = f"{path.name}: expected 0 and one other value, found {', '.join(map(str, values[:10]))}"
    return [error(case.id, "mask-values", message, "One file for each structure; give a label map as the column label.")]
