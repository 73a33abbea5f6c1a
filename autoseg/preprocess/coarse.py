"""The labels of a coarse stage for training cases, on the network's grid of the fine stage: files ``CASE.b2nd`` in a folder.

Each is a compressed array of label codes, like those of prepared cases, with ``CASE.json`` beside it, which is written last
and holds a digest of the inputs of the array.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.atomic import write_alone
from autoseg.errors import AutosegError
from autoseg.preprocess.checked import CheckedArray, Damage, FileSums, write_array
from autoseg.preprocess.store import KEPT_OPEN, StoredCase, compressed
from autoseg.room import told_when_full
from autoseg.workspace import as_text, read_record

__all__ = ["StoredCodes", "made_from", "store_coarse", "with_coarse"]


@dataclass(frozen=True)
class CoarseRecord:
    """``CASE.json``: a digest of the inputs of the array, and the checksums of its file."""

    case: str
    made_from: str
    file: FileSums


def store_coarse(folder: Path, case: str, codes: np.ndarray, source: str) -> None:
    """Write the labels of a coarse stage for a case.

    Args:
        codes: (z, y, x) int16.
        source: digest of their inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with told_when_full(folder):
        sums = write_array(folder / f"{case}.b2nd", compressed(codes))
        write_alone(folder / f"{case}.json", as_text(CoarseRecord(case, source, sums), seal=True, dense=True))


def made_from(folder: Path, case: str) -> str:
    """The digest of the inputs of a case's array; "" if there is no array or its record is damaged."""
    try:
        return read_record(CoarseRecord, folder / f"{case}.json").made_from
    except AutosegError:
        return ""


def with_coarse(case: StoredCase, folder: Path) -> StoredCase:
    """A prepared case with the labels of a coarse stage."""
    return replace(case, coarse=StoredCodes(folder, case.case))


@dataclass(frozen=True)
class StoredCodes:
    """The codes (z, y, x) of a case, read by slicing; a missing or damaged file then raises an AutosegError."""

    folder: Path
    case: str

    def __getitem__(self, place: Any) -> np.ndarray:
        return self._array[place]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def _array(self) -> CheckedArray:
        path = self.folder / f"{self.case}.b2nd"
        try:
            about = path.stat()
        except OSError as fault:
            raise Damage(self.folder, f"{path.name}: {fault.strerror}") from fault
        return _opened(path, (about.st_ino, about.st_size, about.st_mtime_ns))


@lru_cache(KEPT_OPEN)
def _opened(path: Path, stamp: tuple[int, int, int]) -> CheckedArray:
    return CheckedArray(path, read_record(CoarseRecord, path.with_suffix(".json")).file)
