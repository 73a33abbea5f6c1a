"""Files that appear whole or not at all.

What is being written lies in a folder ``.writing-…`` beside its place, with a lock that ends with the process. A process
that is killed leaves such a folder behind; whoever next writes beside it takes it away.
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
    """A path of the same name in a fresh folder beside ``path``; what is written there moves into place at the end.

    If the body fails nothing is left behind and an earlier file stays as it was. Missing parent folders are made.

    Args:
        needed_bytes: that will be written at least, where that is known; looked for first.

    Raises:
        FileError: it cannot be written; where the disk is full with what is needed and free.
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
            for part in sorted(parts, key=lambda part: part.name == path.name):  # a header after its data file
                with open(part, "rb+") as handle:
                    os.fsync(handle.fileno())
                os.replace(part, path.parent / part.name)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """A path of the same name in a draft folder beside ``folder``, which must not exist; it moves into place as a whole at the
    end, so that a kill leaves nothing under the name. Missing parent folders are made.

    Raises:
        FileError: it cannot be written; names ``folder``, never the draft.
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
    """As ``replacing``, in a folder that this process alone fills and that is made anew as a whole where it was not finished:
    without a folder and a lock of its own, in a third of the time."""
    draft = path.with_name(f"{DRAFTS}{path.name}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def remove_leftovers(folder: Path) -> None:
    """Take away what killed processes were writing into a folder; what a living one writes is not touched."""
    for draft in folder.glob(f"{DRAFTS}*"):
        lock = FileLock(draft / LOCK)
        with suppress(OSError, Timeout):
            if (draft / LOCK).exists():
                lock.acquire(timeout=0)
                _discard(draft, lock)
            else:
                draft.rmdir()  # its process was killed before it held it; what is not empty is not ours


_tidied = lru_cache(4096)(remove_leftovers)  # once in a process for each folder, not at every file


@contextmanager
def draft_folder(parent: Path) -> Iterator[Path]:
    """A fresh folder that this process holds; it is taken away at the end, or as a leftover where the process is killed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=DRAFTS, dir=parent))
        lock = FileLock(folder / LOCK)
        with suppress(Timeout, FileNotFoundError, FileExistsError):
            lock.acquire(timeout=0)
            if (folder / LOCK).exists():
                break  # else it was taken for a leftover before it was held
    try:
        yield folder
    finally:
        _discard(folder, lock)


def _discard(folder: Path, lock: BaseFileLock) -> None:
    """Take away a draft folder that is held; its lock last, so that a kill leaves what can be recognised."""
    for part in folder.iterdir():
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        elif part.name != LOCK:
            part.unlink(missing_ok=True)
    lock.release()
    with suppress(OSError):  # somebody else may be taking it away
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
