"""Prepared cases on disk, compressed in blocks, so that a patch is read without the rest.

One folder per case: ``image.b2nd`` and ``codes.b2nd`` (blosc2), ``sites.npy``, and ``case.json``, which is written last. It
holds a digest of everything that the case was made from, the checksums of the other files (``checked``), and a digest of its
own. A folder without it, or made from something else, is prepared again. Nothing else is needed to resume, to skip finished
cases and to notice a changed plan.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from autoseg.atomic import write_alone
from autoseg.errors import AutosegError
from autoseg.imaging.geometry import Geometry
from autoseg.ledger import DONE, Entry
from autoseg.names import remove_folder
from autoseg.preprocess.case import PreparedCase
from autoseg.preprocess.checked import (
    CheckedArray,
    Damage,
    FileSums,
    read_checked,
    refuse_unless_sound,
    write_array,
    write_checked,
)
from autoseg.room import told_when_full
from autoseg.workspace import OPTIONAL, as_text, read_record
from planners.plan import Plan
from planners.records import digest

__all__ = [
    "MOST_COMPRESSED",
    "LoadedCase",
    "StoredCase",
    "compressed",
    "entry_of",
    "is_whole",
    "loaded",
    "open_case",
    "preparation_digest",
    "store_case",
]

VERSION = 1  # of the preparation: raise it when the same inputs give other arrays
OURS = {"image.b2nd", "codes.b2nd", "sites.npy", "case.json"}
MOST_COMPRESSED = 8  # times smaller than in memory; more only if nearly all of an image has one value
BLOCK, CHUNK = 32, 128  # voxels along an axis; 32^3 float32 is 128 KiB, which fits a core's cache


def _kept_open() -> int:
    """How many cases may keep both arrays open: at most 1024, and at most half of the files that this process may open."""
    try:
        from resource import RLIMIT_NOFILE, getrlimit
    except ImportError:  # Windows
        return 64
    allowed, _ = getrlimit(RLIMIT_NOFILE)
    return 1024 if allowed < 0 else min(1024, max(1, allowed // 4))


KEPT_OPEN = _kept_open()


@dataclass(frozen=True)
class CaseRecord:
    """Content of ``case.json``.

    Attributes:
        case: identifier.
        geometry: grid of the prepared voxels.
        codes, sites: the codes in ``sites.npy``, and the number of voxels listed for each, in the same order.
        made_from: ``preparation_digest``.
        files: checksums of the other files; empty in cases of an older version, which are not checked.
        unlabelled: numbers of the structures that were not annotated in the case.
    """

    case: str
    geometry: Geometry
    codes: tuple[int, ...]
    sites: tuple[int, ...]
    made_from: str
    files: tuple[FileSums, ...] = ()
    unlabelled: tuple[int, ...] = field(default=(), metadata=OPTIONAL)

    def sums(self, name: str) -> FileSums | None:
        return next((sums for sums in self.files if sums.name == name), None)


@dataclass(frozen=True)
class StoredCase:
    """A prepared case whose voxels are read from disk on access.

    ``image`` (C, z, y, x) and ``codes`` (z, y, x) are ``CheckedArray``: slicing one reads the blocks it touches. ``locations``
    maps a code to (N, 3) indices of its voxels, as from ``find_locations``. Only the ``KEPT_OPEN`` cases used last keep their
    files open, however many there are. Reading damaged data raises ``Damage``, an AutosegError. ``coarse`` (z, y, x) are the
    codes of a coarse stage, or None (``coarse.with_coarse``).
    """

    case: str
    folder: Path
    geometry: Geometry
    unlabelled: tuple[int, ...] = ()
    coarse: Any = None

    @property
    def image(self) -> CheckedArray:
        return _open_array(*_stamped(self.folder / "image.b2nd"))

    @property
    def codes(self) -> CheckedArray:
        return _open_array(*_stamped(self.folder / "codes.b2nd"))

    @property
    def locations(self) -> dict[int, np.ndarray]:
        return _open_locations(*_stamped(self.folder / "sites.npy"))

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.geometry.shape


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """As ``StoredCase``, with its voxels in memory: ``image`` and ``codes`` are numpy arrays."""

    case: str
    geometry: Geometry
    image: np.ndarray
    codes: np.ndarray
    locations: dict[int, np.ndarray]
    unlabelled: tuple[int, ...] = ()
    coarse: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.geometry.shape


def loaded(cases: Sequence[StoredCase], most_bytes: int) -> Sequence[StoredCase] | list[LoadedCase]:
    """The cases with their voxels in memory, if all together need at most ``most_bytes``; otherwise as they are."""
    if sum(array.nbytes for case in cases for array in (case.image, case.codes)) > most_bytes:
        return cases
    return [
        LoadedCase(
            case=case.case,
            geometry=case.geometry,
            image=case.image[...],
            codes=case.codes[...],
            locations=case.locations,
            unlabelled=case.unlabelled,
            coarse=None if case.coarse is None else case.coarse[...],
        )
        for case in cases
    ]


def preparation_digest(file_digests: Any, labels: Any, plan: Plan, unlabelled: Sequence[int] = ()) -> str:
    """Digest, 16 hexadecimal digits, of all that a prepared case depends on: files, labels, parts of the plan, VERSION."""
    parts: tuple[object, ...] = (plan.axis_order, plan.spacing_mm, plan.normalization, plan.resampling, plan.patch_size[0] == 1)
    if plan.orientation != "canonical":
        parts = (*parts, plan.orientation)
    if unlabelled:
        parts = (*parts, "unlabelled", *unlabelled)
    return digest([VERSION, file_digests, labels, parts])


def entry_of(folder: Path) -> Entry | None:
    """The ledger's Entry of the case in ``folder``; None if there is none, or its record is damaged."""
    try:
        return Entry("autoseg plan_and_preprocess", _record(Path(folder)).made_from, DONE, {})
    except AutosegError:
        return None


def is_whole(folder: Path) -> bool:
    """Whether every byte of a stored case is as it was written; without checksums, whether all of it can be read."""
    folder = Path(folder)
    try:
        for sums in _record(folder).files:
            refuse_unless_sound(folder / sums.name, sums)
        if not _record(folder).files:
            case = open_case(folder)
            case.image[...], case.codes[...], case.locations  # noqa: B018 - a fault is raised
    except (AutosegError, OSError):
        return False
    return True


def store_case(folder: Path, prepared: PreparedCase, made_from: str) -> None:
    """Write a ``PreparedCase``, ``case.json`` last; a case that was in ``folder`` is replaced.

    Raises:
        AutosegError: the folder holds something else, which is kept.
        FileError: the disk is full.
    """
    folder = Path(folder)
    _make_room(folder)
    try:
        with told_when_full(folder, prepared.image.nbytes // MOST_COMPRESSED):
            _write_case(folder, prepared, made_from)
    except BaseException:
        remove_folder(folder, owner=folder.parent)  # an unfinished case only takes space
        raise


def _write_case(folder: Path, prepared: PreparedCase, made_from: str) -> None:
    codes = sorted(prepared.locations)
    voxels = [prepared.locations[code] for code in codes]
    written = io.BytesIO()
    np.save(written, np.concatenate(voxels) if voxels else np.zeros((0, 3), np.int32))
    files = (
        write_array(folder / "image.b2nd", compressed(prepared.image)),
        write_array(folder / "codes.b2nd", compressed(prepared.codes)),
        write_checked(folder / "sites.npy", written.getvalue()),
    )
    record = CaseRecord(
        case=prepared.case,
        geometry=prepared.geometry,
        codes=tuple(int(code) for code in codes),
        sites=tuple(len(v) for v in voxels),
        made_from=made_from,
        files=files,
        unlabelled=prepared.unlabelled,
    )
    write_alone(folder / "case.json", as_text(record, seal=True, dense=True))


def open_case(folder: Path) -> StoredCase:
    """Open a stored case.

    Raises:
        Damage: an AutosegError; ``case.json`` is missing or damaged. A damaged array raises it when it is read.
    """
    record = _record(Path(folder))
    return StoredCase(case=record.case, folder=Path(folder), geometry=record.geometry, unlabelled=record.unlabelled)


def _record(folder: Path) -> CaseRecord:
    try:
        return read_record(CaseRecord, folder / "case.json")
    except AutosegError as fault:
        raise Damage(folder, str(fault)) from fault


def _stamped(path: Path) -> tuple[Path, tuple[int, int, int]]:
    """The path, and what changes if the file is replaced: (inode, bytes, time of modification in ns)."""
    try:
        about = path.stat()
    except OSError as fault:
        raise Damage(path.parent, f"{path.name}: {fault.strerror}") from fault
    return path, (about.st_ino, about.st_size, about.st_mtime_ns)


def _make_room(folder: Path) -> None:
    """Make the folder and empty it; AutosegError: it holds anything but files of a prepared case."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    for entry in entries:
        if entry.name not in OURS and not entry.name.startswith(".writing-"):
            raise AutosegError(
                f"{folder}: expected a prepared case or nothing, found {entry.name}, which would be lost. Move it away"
            )
    if entries:
        remove_folder(folder, owner=folder.parent)
    folder.mkdir(parents=True, exist_ok=True)


@lru_cache(2 * KEPT_OPEN)
def _open_array(path: Path, stamp: tuple[int, int, int]) -> CheckedArray:
    return CheckedArray(path, _record(path.parent).sums(path.name))


@lru_cache(KEPT_OPEN)
def _open_locations(path: Path, stamp: tuple[int, int, int]) -> dict[int, np.ndarray]:
    record, content = _record(path.parent), read_checked(path, _record(path.parent).sums(path.name))
    try:
        pieces = np.split(np.load(io.BytesIO(content), allow_pickle=False), np.cumsum(record.sites)[:-1])
        return dict(zip(record.codes, pieces, strict=True)) if record.codes else {}
    except (OSError, EOFError, ValueError) as fault:  # from a version that wrote no checksums
        raise Damage(path.parent, f"{path.name}: {fault}") from fault


def compressed(array: np.ndarray) -> blosc2.NDArray:
    """Compress an array (..., z, y, x) in blocks that can be read one by one."""
    lead = (1,) * (array.ndim - 3)
    return blosc2.asarray(
        np.ascontiguousarray(array),
        contiguous=True,
        chunks=lead + tuple(min(n, CHUNK) for n in array.shape[-3:]),
        blocks=lead + tuple(min(n, BLOCK) for n in array.shape[-3:]),
        cparams=blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1),
    )
