"""Which scans arriving in a folder are complete.

Nothing signals the end of a copy. A scan counts as complete once none of its files has changed for ``rest_seconds``. If files
are missing from a DICOM series whose headers state the number of images, or from a scan of several channels, the wait is
longer. So it is for what may be a label map: once scans are there, it is left out. The sizes and times of a scan's files are
its *stamp*: a new stamp is a new scan under the same name.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.data.dataset import LABEL_WORD, NUMBER, Case
from autoseg.data.sources import called_as_labels, holds_labels
from autoseg.errors import AutosegError
from autoseg.imaging.files import FORMATS, PICTURES, ending_of, is_slicer_segmentation, series_in, tell_series
from autoseg.imaging.tree import files_under, is_closed, told_closed
from autoseg.names import case_name, is_hidden

__all__ = ["Arrival", "Inbox"]

logger = logging.getLogger(__name__)

PATIENCE = 10  # factor on the wait for a scan with missing files
Stamp = tuple[int, int]  # size in bytes, time of the last change in nanoseconds


@dataclass(frozen=True)
class Arrival:
    """A complete scan: its ``cases`` (a DICOM series may hold several volumes), or the ``fault`` why it has none.

    ``key`` names it among the scans of the folder, ``stamp`` is the state of its files, ``ending`` is that of its label maps.
    """

    key: str
    stamp: str
    ending: str
    cases: tuple[Case, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class _Group:
    """The files of one scan, and how many there should be; 0 if unknown."""

    key: str
    paths: tuple[Path, ...]
    wanted: int = 0
    is_dicom: bool = False


@dataclass
class Inbox:
    """A folder in which scans arrive: ``CASE_0000.EXT`` or ``CASE.EXT`` directly in it, DICOM files anywhere below it.

    Attributes:
        folder: folder to watch.
        channels: number of channels that a scan needs.
        file_ending: of the training scans; pictures count as scans only if the training scans were pictures.
        rest_seconds: time for which the files of a scan must stay unchanged.
        inverts: see ``DicomSeries``.
        handled: {key: stamp} of the scans that are not returned again.
    """

    folder: Path
    channels: int = 1
    file_ending: str = ".nii.gz"
    rest_seconds: float = 10.0
    inverts: bool = False
    handled: dict[str, str] = field(default_factory=dict)
    _since: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)
    _series: dict[Path, tuple[Stamp, tuple[str, int] | None]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _masks: dict[tuple[str, str], bool] = field(default_factory=dict)
    _has_scans: bool = False

    def arrived(self, now: float) -> Iterator[Arrival]:
        """The scans that are complete at ``now`` (seconds of a monotonic clock) and not in ``handled``."""
        stamps = _stamps(self.folder, lambda fault: self._tell(told_closed(fault)))
        self._since = {
            path: known if (known := self._since.get(path)) and known[0] == stamp else (stamp, now)
            for path, stamp in stamps.items()
        }
        self._series = {path: told for path, told in self._series.items() if path in stamps}
        groups = list(self._groups(stamps))
        called = called_as_labels({*(group.key for group in groups if not group.is_dicom), *self.handled})
        for group in groups:
            stamp = _digest(self.folder, group.paths, stamps)
            rest = now - max(self._since[path][1] for path in group.paths)
            if self.handled.get(group.key) == stamp or rest < self.rest_seconds:
                continue
            if len(group.paths) < group.wanted and rest < PATIENCE * self.rest_seconds:
                self._tell(f"{group.key}: {len(group.paths)} of {group.wanted} files are there; waiting for the others")
                continue
            is_map = group.key in called or self._is_mask(group, stamp)
            if group.key in called or (is_map and self._has_scans):
                self._tell(f"left out: {group.key}: a label map, as its {'name' if group.key in called else 'content'} says")
                continue
            if (is_map or LABEL_WORD.search(group.key)) and rest < PATIENCE * self.rest_seconds:
                self._tell(f"{group.key}: may be a label map; waiting for its scan")
                continue
            self._has_scans = self._has_scans or not is_map
            yield self._arrival(group, stamp)

    def _is_mask(self, group: _Group, stamp: str) -> bool:
        """Whether a scan holds labels alone, each state of its files read once."""
        if (group.key, stamp) not in self._masks:
            self._masks[group.key, stamp] = not group.is_dicom and all(map(holds_labels, group.paths))
        return self._masks[group.key, stamp]

    def _groups(self, stamps: Mapping[Path, Stamp]) -> Iterator[_Group]:
        """The scans in the folder, complete or not."""
        files: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        series: dict[str, list[Path]] = defaultdict(list)
        wanted: dict[str, int] = {}
        is_picture = self.file_ending in PICTURES
        for path in stamps:
            if not path.name.lower().endswith(tuple(FORMATS)):
                told = self._series_of(path, stamps[path])
                if told:
                    series[told[0]].append(path)
                    wanted[told[0]] = max(told[1], wanted.get(told[0], 0))
                elif path.suffix.lower() in (".dcm", ".ima") or is_closed(path):
                    self._tell(f"left out: {path.name}: not a readable DICOM image")
            elif path.parent != self.folder:
                self._tell(f"left out: {path.name}: in a subfolder, where only DICOM series are looked for")
            elif is_slicer_segmentation(path):
                self._tell(f"left out: {path.name}: a segmentation of 3D Slicer, no scan")
            elif (ending_of(path) in PICTURES) != is_picture:
                self._tell(
                    f"left out: {path.name}: {'not a picture' if is_picture else 'a picture'}, which the model does not take"
                )
            else:
                files[self._case(path)][ending_of(path)].append(path)
        for case, by_ending in files.items():
            ending = self.file_ending if self.file_ending in by_ending else min(by_ending)
            if len(by_ending) > 1:
                self._tell(f"left out: {case} as {', '.join(sorted(set(by_ending) - {ending}))}, since it is there as {ending}")
            yield _Group(case, tuple(by_ending[ending]), self._wanted(by_ending[ending]))
        for uid, paths in series.items():
            mark = hashlib.blake2b(uid.encode(), digest_size=3).hexdigest()
            yield _Group(f"DICOM series ...{uid[-8:]} ({mark})", tuple(paths), wanted[uid], is_dicom=True)

    def _case(self, path: Path) -> str:
        """The name of the case, without a channel number."""
        stem = case_name(path.name[: -len(ending_of(path))])
        match = NUMBER.fullmatch(stem)
        return match[1] if match and int(match[2]) < self.channels else stem

    def _wanted(self, paths: Iterable[Path]) -> int:
        """The number of files expected: one per channel if the names are numbered, else one with all channels."""
        return self.channels if any(self._case(path) != case_name(path.name[: -len(ending_of(path))]) for path in paths) else 1

    def _series_of(self, path: Path, stamp: Stamp) -> tuple[str, int] | None:
        """(series identifier, stated number of files), each file read once; None if it is not a DICOM image."""
        known = self._series.get(path)
        if known is None or known[0] != stamp:
            told = tell_series(path)
            known = self._series[path] = (stamp, (told.series, told.files) if told else None)
        return known[1]

    def _arrival(self, group: _Group, stamp: str) -> Arrival:
        if not group.is_dicom:
            case = Case(group.key, group.key, group.paths, None)
            return Arrival(group.key, stamp, ending_of(group.paths[0]), (case,))
        try:
            found = series_in(self.folder, inverts=self.inverts, among=group.paths)
        except AutosegError as fault:
            return Arrival(group.key, stamp, ".nii.gz", fault=str(fault))
        cases = tuple(Case(series.name, series.name, (series,), None) for series in found.series)
        return Arrival(group.key, stamp, ".nii.gz", cases, "" if cases else "; ".join(found.left_out) or "it holds no volume")

    def _tell(self, sentence: str) -> None:
        """Log a sentence once."""
        if sentence not in self._told:
            self._told.add(sentence)
            logger.warning("%s", sentence)


def _stamps(folder: Path, refused: Callable[[OSError], object]) -> dict[Path, Stamp]:
    """{file: stamp} of all files below a folder except hidden ones and those that disappear meanwhile.

    ``refused`` is called for folders that cannot be read.
    """
    found: dict[Path, Stamp] = {}
    for path in files_under(folder, refused):
        if is_hidden(path.name):
            continue
        try:
            about = path.stat()
        except OSError:
            continue
        found[path] = (about.st_size, about.st_mtime_ns)
    return found


def _digest(folder: Path, paths: Iterable[Path], stamps: Mapping[Path, Stamp]) -> str:
    state = hashlib.blake2b(digest_size=8)
    for path in sorted(paths):
        state.update(f"{path.relative_to(folder)} {stamps[path]}\n".encode())
    return state.hexdigest()
