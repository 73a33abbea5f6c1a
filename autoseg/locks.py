"""One command at a time in a folder: locks that end with their process, however it ends.

The lock of ``FOLDER`` is a lock of the operating system (filelock) on the empty file ``.FOLDER.lock`` beside it. The file stays
and means nothing by itself: only a running process holds a lock. It is beside the folder, so that the lock remains if the
folder is removed and made again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from autoseg.errors import AutosegError, FileError, ModelError, TrainingError

__all__ = ["model_lock", "prepare_lock", "run_lock", "station_lock", "study_lock"]

logger = logging.getLogger(__name__)

SILENT_SECONDS = 1.0  # a shorter wait is not reported
MODEL_SECONDS = 60.0  # adding a fold takes far less
RUN_SECONDS = 30.0  # enough for a training run that was asked to stop: it ends its step and writes its checkpoint


def run_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of the fold in ``folder`` for training; wait up to ``RUN_SECONDS`` for another command to end.

    Raises:
        TrainingError: another command is still training it.
        FileError: the lock cannot be written.
    """
    remedy = "Wait until it has ended, or train under another name (autoseg train --name)"
    return _locked(folder, "another command is training this fold", remedy, TrainingError, RUN_SECONDS)


def study_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a study; wait up to ``RUN_SECONDS``. AutosegError: another command is still running it."""
    remedy = "Wait until it has ended, or give this study another --name"
    return _locked(folder, "another command is running this study", remedy, AutosegError, RUN_SECONDS)


def prepare_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of the data set whose prepared cases are in ``folder``; wait for another command, however long."""
    return _locked(folder, "another command is planning or preparing this data set", "", AutosegError)


def model_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a model folder while a fold is added. ModelError: another process holds it for ``MODEL_SECONDS``."""
    remedy = "Wait until it has ended, then give the same command again"
    return _locked(folder, "another process is writing this model", remedy, ModelError, MODEL_SECONDS)


def station_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a station's folder of results. AutosegError: another station is writing there."""
    return _locked(folder, "another station is writing there", "Stop that one, or choose another folder", AutosegError, 1.0)


@contextmanager
def _locked(folder: Path, busy: str, remedy: str, error: type[AutosegError], seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of a folder; a wait is reported, and ends with ``error`` after ``seconds``, or never if None."""
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=SILENT_SECONDS)
        except Timeout:
            logger.warning("%s: %s; waiting for it", folder, busy)
            lock.acquire(timeout=-1 if seconds is None else seconds)
    except Timeout:
        raise error(f"{folder}: {busy} for longer than {seconds:g} s. {remedy}") from None
    except OSError as fault:
        raise FileError(f"{folder}: cannot be locked: {fault.strerror or fault}") from fault
    try:
        yield
    finally:
        lock.release()
