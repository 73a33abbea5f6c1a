"""The HTML report of a run, predictions, reconstructions or an evaluation."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.methods import BIBLIOGRAPHY, METHODS, try_methods
from autoseg.options import ReportOptions, Runtime
from autoseg.page import MOST_PICTURED, write_page
from autoseg.page.gather import page_of
from autoseg.places import PAGE, refuse_foreign
from autoseg.room import check_writable

__all__ = ["Reported", "report", "try_report"]

logger = logging.getLogger(__name__)
_RAW = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


@dataclass(frozen=True)
class Reported:
    """The path of the HTML report; ``notes`` are sentences about what it could not show."""

    path: Path
    notes: tuple[str, ...]
    seconds: float

    def summary(self) -> str:
        size = self.path.stat().st_size / 2**20
        return "\n".join([*self.notes, f"{self.path} ({size:.1f} MiB, {self.seconds:.1f} s)"])


def report(path: str | PathLike[str], options: ReportOptions | None = None, runtime: Runtime | None = None) -> Reported:
    """Write ``report.html`` into the folder of a fold of a run, of predictions, of reconstructions, or of an evaluation.

    ``methods.md`` and its ``references.bib`` are written beside it and linked.

    Args:
        path: ``runs/NAME/RUN/fold_N``, ``studies/NAME/STUDY``, a folder with predictions, metrics.json or both, or a folder
            written by ``reconstruct``.
        options: the inputs of the report. ``images`` is a folder, or {case: paths}; None for imagesTr (or imagesTs) beside
            the labelsTr of the references, or of the maps that were reconstructed. ``reference`` and ``predicted`` are
            folders of label maps; None for no references, and for the folder itself.
        runtime: ``fresh`` overwrites a report.html that another program made.

    Returns:
        Reported

    Raises:
        AutosegError: the folder is none of these, it cannot be read, or the report cannot be written.
    """
    begun, folder = time.monotonic(), Path(path)
    options, runtime = options or ReportOptions(), runtime or Runtime()
    if not folder.is_dir():
        raise AutosegError(f"{folder}: there is no such folder. Correct the path")
    _refuse_raw(folder)
    if not runtime.fresh:
        refuse_foreign(folder / PAGE)
    check_writable(folder)
    if any(folder.glob("run_*_of_*.json")):
        from autoseg.outputs.shards import merge_shards  # it imports evaluation, which takes a second

        merge_shards(folder, fresh=runtime.fresh)
    page = page_of(folder, options)
    on_done = runtime.progress("draw", min(len(page.cases), MOST_PICTURED))
    try_methods(folder)
    page = replace(page, beside=tuple(name for name in (METHODS, BIBLIOGRAPHY) if (folder / name).is_file()))
    notes = write_page(page, folder / PAGE, workers=runtime.workers, on_done=on_done)
    return Reported(folder / PAGE, notes, time.monotonic() - begun)


def _refuse_raw(folder: Path) -> None:
    """``AutosegError`` for a data set or one of its folders, in which nothing is written."""
    home = folder.absolute().parent if folder.name in _RAW else folder
    if (home / "dataset.json").is_file() and any((home / name).is_dir() for name in _RAW):
        raise AutosegError(
            f"{folder}: expected results, found a data set, in which nothing is written. Give the folder of a fold, of "
            "predictions or of an evaluation; `autoseg verify` looks at a data set"
        )


def try_report(path: str | PathLike[str], options: ReportOptions | None = None, runtime: Runtime | None = None) -> Path | None:
    """``report`` as the last step of other work. An error is reported, and the results of that work are kept.

    Returns:
        path of the HTML report; None after an error.
    """
    try:
        done = report(path, options, runtime)
    except Exception as fault:  # noqa: BLE001 - a failed report must not lose results that are already written
        logger.warning("no %s in %s: %s", PAGE, path, fault if isinstance(fault, AutosegError) else repr(fault))
        return None
    logger.info("HTML report: %s", done.path)
    return done.path
