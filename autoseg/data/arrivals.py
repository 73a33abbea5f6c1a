"""Scans that arrive in a folder: which of them are whole.

Nothing tells when a file has been copied. A scan counts as whole once none of its files has changed for so long; a DICOM
series whose headers say of how many images it is, and a scan of several channels, are waited for longer where some are
missing. The files of one scan, with sizes and times, are its *stamp*: another stamp is another scan under the same name.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.data.dataset import Case
from autoseg.data.sources import NUMBER
from autoseg.errors import AutosegError
from autoseg.imaging.files import FORMATS, PICTURES, ending_of, series_in, tell_series
from autoseg.imaging.tree import files_under, is_closed, told_closed
from autoseg.names import case_name

__all__ = ["Arrival", "Inbox"]

logger = logging.getLogger(__name__)

PATIENCE = 10  # times as long as for others, a scan is waited for of which something is missing
Stamp = tuple[int, int]  # bytes, and nanoseconds of the last change


@dataclass(frozen=True)
class Arrival:
    """A scan that is whole: the ``cases`` in it (a DICOM series may hold several volumes), or why it holds none, its ``fault``.

    ``key`` names it among the scans of the folder, ``stamp`` its files as they are, ``ending`` those of its label maps.
    """

    key: str
    stamp: str
    ending: str
    cases: tuple[Case, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class _Group:
    """Files that are one scan, with how many there should be; 0 where nobody says."""

    key: str
    paths: tuple[Path, ...]
    wanted: int = 0
    is_dicom: bool = False


@dataclass
class Inbox:
    """A folder that scans arrive in: in it ``CASE_0000.EXT`` or ``CASE.EXT``, and DICOM files in it or anywhere below.

    Attributes:
        folder: that is looked at.
        channels: how many a scan needs.
        file_ending: of the scans that were learned from: pictures are scans where these were, and no others else.
        rest_seconds: for which the files of a scan must stay as they are.
        inverts: see ``DicomSeries``.
        handled: {key: stamp} of the scans that are not given again.
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

    def arrived(self, now: float) -> Iterator[Arrival]:
        """The scans that are whole at ``now`` (seconds of a clock that never goes back) and were not ``handled``."""
        stamps = _stamps(self.folder, lambda fault: self._tell(told_closed(fault)))
        self._since = {
            path: known if (known := self._since.get(path)) and known[0] == stamp else (stamp, now)
            for path, stamp in stamps.items()
        }
        self._series = {path: told for path, told in self._series.items() if path in stamps}
        for group in self._groups(stamps):
            stamp = _digest(self.folder, group.paths, stamps)
            rest = now - max(self._since[path][1] for path in group.paths)
            if self.handled.get(group.key) == stamp or rest < self.rest_seconds:
                continue
            if len(group.paths) < group.wanted and rest < PATIENCE * self.rest_seconds:
                self._tell(f"{group.key}: {len(group.paths)} of {group.wanted} files are there; waiting for the others")
                continue
            yield self._arrival(group, stamp)

    def _groups(self, stamps: Mapping[Path, Stamp]) -> Iterator[_Group]:
        """The scans that lie there, whole or not."""
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
        """Its name: without the number of a channel, where that is one."""
        stem = case_name(path.name[: -len(ending_of(path))])
        match = NUMBER.fullmatch(stem)
        return match[1] if match and int(match[2]) < self.channels else stem

    def _wanted(self, paths: Iterable[Path]) -> int:
        """So many files as channels, where the names have numbers; one file with all of them has none."""
        return self.channels if any(self._case(path) != case_name(path.name[: -len(ending_of(path))]) for path in paths) else 1

    def _series_of(self, path: Path, stamp: Stamp) -> tuple[str, int] | None:
        """(identifier, files of the series as it says), of each file looked up once; None for what is no DICOM image."""
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
        """Say something once."""
        if sentence not in self._told:
            self._told.add(sentence)
            logger.warning("%s", sentence)


def _stamps(folder: Path, refused: Callable[[OSError], object]) -> dict[Path, Stamp]:
    """{file: its stamp} of all files below a folder that are not hidden; what goes meanwhile is not there.

    ``refused`` is called for folders that cannot be looked into.
    """
    found: dict[Path, Stamp] = {}
    for path in files_under(folder, refused):
        if path.name[0] == ".":
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
