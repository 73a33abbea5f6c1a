"""What a layout finds: the files of each case and the meaning of their label values.

A layout is a function ``find(source, **options) -> FoundDataset`` that reads names and small text files. It opens no image.
Missing or unexpected files become findings, so that all are reported at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from autoseg.data.findings import Finding
from autoseg.errors import DatasetError
from autoseg.imaging.tree import files_under, told_closed
from autoseg.names import is_hidden

__all__ = [
    "PATHS",
    "AnyPath",
    "Counted",
    "Describe",
    "Description",
    "FoundCase",
    "FoundDataset",
    "Source",
    "error",
    "files_below",
    "is_test",
    "plain_labels",
    "region_labels",
    "twice",
    "unique_names",
]

logger = logging.getLogger(__name__)

AnyPath = str | Path
PATHS = ("labels", "names")  # layout options that are paths, since a data set that lists files may be made elsewhere
Counted = Mapping[str, Sequence[int]]  # the label values of each case
Description = tuple[dict[str, Any], list[Finding]]  # keys of a dataset.json, and findings
Describe = Callable[[Counted], Description]


@dataclass(frozen=True)
class Source:
    """Where an image is: a file, and the index of the volume if it holds several (4D), else None."""

    path: Path
    volume: int | None = None


@dataclass(frozen=True)
class FoundCase:
    """A case of the source.

    Attributes:
        id, patient: names in the new data set.
        images: one for each channel.
        label: a label map, or None.
        masks: (structure, path) of separate files, one per structure, which may overlap; instead of ``label``.
        part: ``train``, ``val`` (validation cases of the source's own fold) or ``test``.
        renumber: (value, new value) pairs if the label map is to be renumbered, and other values become 0; else ().
        annotated: the annotated structures, if these are not all of the data set; else None.
        called: (structure, its name in the file) of masks that have another name there.
    """

    id: str
    patient: str
    images: tuple[Source, ...]
    label: Path | None = None
    masks: tuple[tuple[str, Path], ...] = ()
    part: str = "train"
    renumber: tuple[tuple[int, int], ...] = ()
    annotated: tuple[str, ...] | None = None
    called: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FoundDataset:
    """All cases of a source.

    Attributes:
        channels: names in order.
        cases: any order.
        describe: {case: its label values} -> (the keys ``labels`` and, for regions, ``regions_class_order`` of a
            dataset.json, findings). Not called if labels are separate files.
        findings: about names and text files.
        about: further keys of dataset.json.
        structures: those chosen of the source, in order; () for all.
    """

    channels: tuple[str, ...]
    cases: tuple[FoundCase, ...]
    describe: Describe
    findings: tuple[Finding, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    structures: tuple[str, ...] = ()


def files_below(source: AnyPath) -> dict[Path, tuple[str, ...]]:
    """{path: parts below ``source``} of all files, sorted, without hidden ones (such as ``._volume-1.nii``).

    Folders that cannot be read are left out, with a warning.

    Raises:
        DatasetError: no such folder.
    """
    source = Path(source)
    if not source.is_dir():
        raise DatasetError(f"{source}: there is no such folder. Correct the path")
    files = files_under(source, lambda fault: logger.warning("%s", told_closed(fault)))
    return {path: path.relative_to(source).parts for path in files if not is_hidden(path.name)}


def is_test(parts: Iterable[str]) -> bool:
    """Whether the name of a file, or of a folder on its path, marks it as test or validation data."""
    return any("test" in part.lower() or "validation" in part.lower() for part in parts)


def error(case: str, code: str, message: str, remedy: str) -> Finding:
    return Finding("error", case, code, message, remedy)


def twice(case: str, kind: str, path: Path, other: Path) -> Finding:
    """An error about two files that have the name of one."""
    message = f"expected one {kind}, found {other} and {path}"
    return error(case, "found-twice", message, "Keep one of the two; a case may be in the source once.")


def plain_labels(names: Mapping[int, str], *, closed: bool = True, ignore: int | None = None) -> Describe:
    """A ``describe`` for structures that do not overlap.

    Args:
        names: {value: name}. A value without a name becomes "label 7" and so on.
        closed: ``names`` are all published values: another value is an error, and values in no file stay declared.
        ignore: value of voxels without annotation, or None.

    Raises:
        DatasetError: ``ignore`` is the background.
    """
    if ignore == 0:
        raise DatasetError("ignore: expected a label value of its own, found 0, which is background. Leave --ignore out")
    return partial(_plain, names=names, closed=closed, ignore=ignore)


def _plain(counted: Counted, *, names: Mapping[int, str], closed: bool, ignore: int | None) -> Description:
    found = {value for values in counted.values() for value in values}
    values = sorted((set(names) if closed else found) - {0, ignore})
    labels = {"background": 0} | {name: value for value, name in unique_names(values, names).items()}
    if ignore is not None:
        labels["ignore"] = ignore
    return {"labels": labels}, (_undeclared(counted, {0, *names, ignore}) if closed else [])


def region_labels(regions: Mapping[str, Sequence[int]], order: Sequence[int]) -> Describe:
    """A ``describe`` for published regions: name -> values, and the value painted for each."""
    declared: set[int | None] = {0, *(value for group in regions.values() for value in group)}
    labels = {"background": 0} | {name: list(group) for name, group in regions.items()}
    return lambda counted: ({"labels": labels, "regions_class_order": list(order)}, _undeclared(counted, declared))


def _undeclared(counted: Counted, declared: set[int | None]) -> list[Finding]:
    """One error for each case with values other than the published ones."""
    found = {case: sorted(set(values) - declared) for case, values in counted.items()}
    known = ", ".join(str(value) for value in sorted(value for value in declared if value is not None))
    remedy = "Correct the label, or convert the data with the layout 'folders', which takes values as they are."
    return [
        error(case, "undeclared-label", f"expected label values among {known}, found {', '.join(map(str, odd))}", remedy)
        for case, odd in found.items()
        if odd
    ]


def unique_names(values: Iterable[int], names: Mapping[int, str]) -> dict[int, str]:
    """{value: name}, with the value added to names that occur twice or are reserved in dataset.json."""
    named = {value: str(names.get(value, f"label {value}")) for value in values}
    taken = Counter([*named.values(), "background", "ignore"])
    return {value: name if taken[name] == 1 else f"{name} {value}" for value, name in named.items()}
