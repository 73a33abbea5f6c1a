"""Atomic writing: a file appears completely or not at all.

Files are written to a folder ``.writing-…`` beside their destination, with a lock that ends with the process. A process that
is killed leaves such a folder behind; the next process that writes beside it removes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from autoseg.errors import FileError
from autoseg.room import check_writable, told_when_full

__all__ = ["DRAFTS", "draft_folder", "making_folder", "remove_leftovers", "replacing", "write_alone"]

DRAFTS = ".writing-"
LOCK = ".lock"


@contextmanager
def replacing(path: Path | str, needed_bytes: int = 0) -> Iterator[Path]:
    """Yield a path of the same name in a new folder beside ``path``; what is written there moves into place at the end.

    If the body fails, nothing is left behind and an earlier file stays as it was. Missing parent folders are made.

    Args:
        needed_bytes: least number of bytes that will be written, if known; free space is checked first.

    Raises:
        FileError: it cannot be written; if the disk is full, the message says how much is needed and free.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidied(path.parent.resolve())
        if needed_bytes:
            check_writable(path.parent, needed_bytes)
        with draft_folder(path.parent) as folder, told_when_full(path.parent, needed_bytes):
            yield folder / path.name
            parts = [part for part in folder.iterdir() if part.name != LOCK]
            for part in sorted(parts, key=lambda part: part.name == path.name):  # ``path`` last: a header after its data file
                with open(part, "rb+") as handle:
                    os.fsync(handle.fileno())
                os.replace(part, path.parent / part.name)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """Yield a path of the same name in a draft folder beside ``folder``; the folder made there moves into place at the end.

    ``folder`` must not exist. A kill leaves nothing under its name. Missing parent folders are made.

    Raises:
        FileError: it cannot be written; the message names ``folder``, never the draft.
    """
    try:
        check_writable(folder.parent)
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent)
        with draft_folder(folder.parent) as draft, told_when_full(folder.parent):
            made = draft / folder.name
            try:
                yield made
            except FileError as fault:
                raise FileError(str(fault).replace(str(made), str(folder))) from fault
            made.rename(folder)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error


def write_alone(path: Path, text: str) -> None:
    """As ``replacing``, without a draft folder and a lock, in a third of the time.

    Only for folders that this process alone fills, and that are made again as a whole if they were not finished.
    """
    draft = path.with_name(f"{DRAFTS}{path.name}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing into a folder; what a running one writes is not touched."""
    for draft in folder.glob(f"{DRAFTS}*"):
        lock = FileLock(draft / LOCK)
        with suppress(OSError, Timeout):
            if (draft / LOCK).exists():
                lock.acquire(timeout=0)
                _discard(draft, lock)
            else:
                draft.rmdir()  # its process was killed before it held the lock; if it is not empty, it is not ours


_tidied = lru_cache(4096)(remove_leftovers)  # once per process and folder, not for every file


@contextmanager
def draft_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder, locked by this process; it is removed at the end, or as a leftover if the process is killed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=DRAFTS, dir=parent))
        lock = FileLock(folder / LOCK)
        with suppress(Timeout, FileNotFoundError, FileExistsError):
            lock.acquire(timeout=0)
            if (folder / LOCK).exists():
                break  # otherwise another process removed it as a leftover before it was locked
    try:
        yield folder
    finally:
        _discard(folder, lock)


def _discard(folder: Path, lock: BaseFileLock) -> None:
    """Remove a draft folder that this process holds; its lock last, so that after a kill it is recognised as a leftover."""
    for part in folder.iterdir():
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        elif part.name != LOCK:
            part.unlink(missing_ok=True)
    lock.release()
    with suppress(OSError):  # another process may be removing it
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
