"""Where the files of the cases of a page are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from autoseg.data.dataset import image_name
from autoseg.data.labelmaps import label_maps
from autoseg.evaluation.report import Report
from autoseg.imaging.files import FORMATS, ending_of, paths_of
from autoseg.options import ReportOptions
from autoseg.page.scene import PageCase
from autoseg.records import CaseRecord, read_case

__all__ = ["Sources", "case_at", "named_folders"]


@dataclass(frozen=True)
class Sources:
    """Where the files of the cases are found; each folder is looked through once."""

    options: ReportOptions
    maps: dict[Path, dict[str, Path]] = field(default_factory=dict)
    scans: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)

    def map_of(self, case: str, folder: str | PathLike[str] | None, otherwise: Path | None) -> Path | None:
        """The label map of a case in a folder, else the path given; None where neither is a file."""
        if folder is not None and (found := self._maps_in(Path(folder)).get(case)):
            return found
        return otherwise if otherwise is not None and otherwise.is_file() else None

    def _maps_in(self, folder: Path) -> dict[str, Path]:
        if folder not in self.maps:
            self.maps[folder] = label_maps(folder) if folder.is_dir() else {}
        return self.maps[folder]

    def images_of(self, case: str, labels: Path | None) -> Sequence[Any]:
        """The scan's files, one per channel; () where they are not found."""
        images = self.options.images
        if isinstance(images, Mapping):
            return tuple(images.get(case, ()))
        if images is None and labels is not None and labels.parent.name.startswith("labels"):
            images = labels.parent.with_name(labels.parent.name.replace("labels", "images"))
        if images is None:
            return ()
        folder = Path(images)
        if folder not in self.scans:
            self.scans[folder] = _scans_in(folder) if folder.is_dir() else {}
        return tuple(sorted(self.scans[folder].get(case, ())))

    @property
    def places(self) -> list[str | PathLike[str]]:
        """The folders, those of the scans too, of which one may be a DicomSeries."""
        known = [place for place in (self.options.reference, self.options.predicted) if place is not None]
        images = self.options.images
        if isinstance(images, Mapping):
            return [*known, *{path.parent for case in images.values() for image in case for path in paths_of(image)}]
        return [*known] if images is None else [*known, images]


def _scans_in(folder: Path) -> dict[str, list[Path]]:
    """{case: its files} of the scans in a folder: ``CASE_0000.EXT`` and so on, else ``CASE.EXT``."""
    found: dict[str, dict[tuple[str, bool], list[Path]]] = {}  # by ending, and whether a channel has a file of its own
    for path in folder.iterdir():
        if path.name.lower().endswith(tuple(FORMATS)):
            ending = ending_of(path)
            found.setdefault(path.name[: -len(ending)], {})[ending, False] = [path]
            if match := image_name(ending).fullmatch(path.name):
                found.setdefault(match[1], {}).setdefault((ending, True), []).append(path)
    return {case: kinds[max(kinds, key=lambda kind: (len(kind[0]), kind[1]))] for case, kinds in found.items()}


def case_at(
    name: str,
    folder: Path,
    images: Sequence[Any] = (),
    reference: Path | None = None,
    predicted: Path | None = None,
    home: Path | None = None,
) -> PageCase:
    """A PageCase with what lies in ``home``, else beside its prediction."""
    home = home or (predicted.parent if predicted else folder)
    surfaces = home / f"{name}_surfaces"
    return PageCase(
        id=name,
        images=tuple(images),
        reference=reference,
        predicted=predicted,
        record=read_case(home / f"{name}.json") or CaseRecord(),
        surfaces=surfaces if surfaces.is_dir() else None,
    )


def named_folders(known: Iterable[str | PathLike[str]], scored: Report | None) -> tuple[str, ...]:
    """Folders whose names may stand in messages, with those that they lie in."""
    paths = [Path(place) for place in known]
    for files in scored.files.values() if scored else ():
        paths += [Path(files.reference).parent, Path(files.predicted).parent]
    every = {form for path in paths for form in (path, path.absolute())}
    return tuple(sorted({str(folder) for path in every for folder in (path, *path.parents) if folder.name}))
