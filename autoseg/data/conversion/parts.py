"""The files of a converted case: each stays in place, is linked or copied, or is written new."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autoseg.atomic import replacing
from autoseg.data.layouts.found import FoundCase, Source
from autoseg.data.layouts.reading import SeenCase, combine, mask_reader, read_image
from autoseg.errors import AutosegError
from autoseg.imaging.files import (
    FORMATS,
    ending_of,
    is_slicer_segmentation,
    read_file,
    read_geometry,
    read_label_volume,
    write_label_volume,
)
from autoseg.imaging.raw import digest_of
from autoseg.imaging.volume import LabelVolume
from autoseg.ledger import Journal, Line

__all__ = ["Part", "make_part", "parts_of", "usual_ending"]

logger = logging.getLogger(__name__)

ONE_FILE = {".nhdr": ".nrrd", ".mhd": ".mha"}  # a header with separate voxels is not linked or copied alone,
ONE_FILE |= {".jpg": ".png", ".jpeg": ".png"}  # and JPEG cannot hold labels

Combination = frozenset[str]


@dataclass(frozen=True)
class Part:
    """One file of the data set: how it is made, from what, and its target path (None: it stays in place).

    ``make`` writes to the given path; None for a link or a copy of the single source.
    """

    sources: tuple[Path, ...]
    target: str | None
    key: str
    make: Callable[[Path], None] | None = None


def usual_ending(cases: Iterable[SeenCase], mode: str) -> str:
    """The most common ending of the images, used for the data set."""
    endings = Counter(ending_of(source.path) for case in cases for source in case.case.images)
    ending = endings.most_common(1)[0][0]
    return ending if mode == "reference" else ONE_FILE.get(ending, ending)


def parts_of(seen: SeenCase, ending: str, values: Mapping[Combination, int], mode: str) -> list[Part]:
    """The files of a case: one Part for each image, and one for its label, if any.

    Args:
        values: {combination of structures: label value} where structures come in separate files.
        mode: ``reference``, ``link`` or ``copy``.
    """
    case = seen.case
    where = "Ts" if case.part == "test" else "Tr"

    def part(source: Source, target: str, make: Callable[[Source, Path], None] = _write_volume) -> Part:
        key = digest_of(json.dumps([seen.digests[source.path], source.volume, target, mode]).encode())
        other = not source.path.name.lower().endswith(ending) or is_slicer_segmentation(source.path)  # Slicer's may be cropped
        if source.volume is not None or (mode != "reference" and other):
            return Part((source.path,), target, key, partial(make, source))
        return Part((source.path,), None if mode == "reference" else target, key)

    parts = [part(source, f"images{where}/{case.id}_{i:04d}{ending}") for i, source in enumerate(case.images)]
    target = f"labels{where}/{case.id}{ending}"
    values_of = dict(case.renumber)
    if case.label and values_of and any(values_of.get(value, 0) != value for value in (*values_of, *seen.values)):
        key = digest_of(json.dumps([seen.digests[case.label], case.renumber, target]).encode())
        parts.append(Part((case.label,), target, key, partial(_write_renumbered, case)))
    elif case.label:
        parts.append(part(Source(case.label), target, partial(_write_label, case.images[0].path)))
    elif case.masks:
        numbers = sorted((sorted(group), value) for group, value in values.items())
        key = digest_of(json.dumps([[seen.digests[path] for _, path in case.masks], numbers, target]).encode())
        make = partial(_write_combined, case, values)
        parts.append(Part(tuple(path for _, path in case.masks), target, key, make))
    return parts


def make_part(part: Part, journal: Journal, mode: str) -> tuple[Line, bool]:
    """Write, link or copy a file unless it exists, or was edited; returns its journal entry, and whether it is new."""
    assert part.target is not None
    path, known = journal.path.parent / part.target, journal.entries.get(part.target)
    if known and journal.claim(part.target, part.key):
        return known, False
    if known and journal.is_edited(part.target) and _is_work(path, part.sources):
        logger.warning("%s was edited and stays as it is", path)
        return known, False
    path.parent.mkdir(parents=True, exist_ok=True)
    how = "written"
    if part.make:
        part.make(path)
    else:
        how = _place(part.sources[0], path, mode)
    return journal.entry(part.target, part.key, how=how), True


def _is_work(path: Path, sources: Iterable[Path]) -> bool:
    """Whether a file that is not as it was made is somebody's work: it can be read, and is no link to a source that changed."""
    try:
        read_file(path)
    except AutosegError:
        return False
    return not any(path.samefile(source) for source in sources)


def _write_volume(source: Source, path: Path) -> None:
    """Write one volume of a file, or a whole file of another type, with its own number type."""
    content = read_image(source)
    like = source.path if FORMATS[ending_of(source.path)] is FORMATS[ending_of(path)] else None
    FORMATS[ending_of(path)].write(path, content.data, content.geometry, like)


def _write_label(image: Path, source: Source, path: Path) -> None:
    """Write a label map as another file type; a DICOM segmentation on the grid of the image."""
    write_label_volume(read_label_volume(source.path, onto=read_geometry(image)), path)


def _write_renumbered(case: FoundCase, path: Path) -> None:
    """Write the label map of a case with new values."""
    assert case.label is not None
    grid, table = read_geometry(case.images[0].path), dict(case.renumber)
    volume = read_label_volume(case.label, onto=grid)
    found, codes = np.unique(volume.data, return_inverse=True)
    values = np.array([table.get(value, 0) for value in found.tolist()])
    write_label_volume(LabelVolume(values[codes.reshape(volume.data.shape)], grid), path, like=case.images[0].path)


def _write_combined(case: FoundCase, values: Mapping[Combination, int], path: Path) -> None:
    """Write one label map from structures in separate files, on the grid of the image."""
    image = case.images[0].path
    geometry = read_file(image).geometry
    mask_of = mask_reader(case, geometry)
    codes, combinations = combine(((name, mask_of(file, name).data[0] != 0) for name, file in case.masks), geometry.shape)
    table = np.array([values[frozenset(combination)] for combination in combinations])
    write_label_volume(LabelVolume(table[codes], geometry), path, like=image)


def _place(source: Path, path: Path, mode: str) -> str:
    """Link or copy a file; returns which of the two it was."""
    if mode == "link":
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.link(source.resolve(), path)
            return "linked"
    with replacing(path) as draft:
        shutil.copyfile(source, draft)
    return "copied"
