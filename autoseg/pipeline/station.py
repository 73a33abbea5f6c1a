"""Watch a folder: one model stays loaded and segments scans as they arrive."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path

from autoseg.data.arrivals import Inbox
from autoseg.errors import AutosegError
from autoseg.imaging.label_tables import write_label_tables
from autoseg.inference.cohort import refuse_foreign_run
from autoseg.locks import station_lock
from autoseg.networks.devices import choose_device
from autoseg.options import PredictOptions, Runtime
from autoseg.outputs.asked import asked_step
from autoseg.outputs.station import MADE_BY, STATION_FILE, Station, StationRecord
from autoseg.outputs.tables import refuse_foreign_tables
from autoseg.places import check_folder
from autoseg.workspace import read_record

__all__ = ["watch"]

logger = logging.getLogger(__name__)


def watch(
    source: str | PathLike[str],
    target: str | PathLike[str],
    model: str | PathLike[str],
    options: PredictOptions,
    runtime: Runtime | None = None,
) -> None:
    """Segment the scans of a folder as they arrive, until it is stopped. Called again, it continues.

    Args:
        source: a folder; see ``Inbox``.
        target: folder for the results, not within ``source``. ``station.json`` lists the scans that failed; ``run.json`` and
            the tables are written whenever no scan is waiting.
        model: folder or zip of a model.
        options: as in ``predict``, without reference and shard. ``watch``: how long a scan must be unchanged before it is
            read.
        runtime: where and how to run.

    Raises:
        AutosegError: wrong call. KeyboardInterrupt: it was stopped. Scans in progress are neither lost nor half written.
    """
    source, target, runtime = Path(source), Path(target), runtime or Runtime()
    _refuse(source, target, options, runtime)
    check_folder(target)
    if not runtime.fresh:
        refuse_foreign_tables(target)
    with station_lock(target):
        step = asked_step(model, target, options, ".nii.gz", runtime, str(choose_device(runtime.device)))
        if not runtime.fresh:
            refuse_foreign_run(step)
        runner = step.setup()
        bundle, path = runner.predictor.bundle, target / STATION_FILE
        failed = read_record(StationRecord, path) if path.is_file() and not runtime.fresh else StationRecord(MADE_BY)
        write_label_tables(target, bundle.labels.painted)
        inbox = Inbox(
            folder=source,
            channels=len(bundle.channels),
            file_ending=bundle.file_ending,
            rest_seconds=options.watch or 0.0,
            inverts=options.invert_monochrome1,
            handled=dict(failed.stamps),
        )
        logger.info("watching %s with the model %s, on %s", source, bundle.name, step.device)
        Station(inbox, step, options, runtime, runner, failed).work()


def _refuse(source: Path, target: Path, options: PredictOptions, runtime: Runtime) -> None:
    if not source.is_dir():
        raise AutosegError(f"{source}: --watch looks at a folder, and there is none of that name. Make it, or correct the path")
    if target.resolve().is_relative_to(source.resolve()):
        raise AutosegError(f"{target}: lies within the folder that is watched. Results need a folder outside it")
    if options.reference or options.shard != (0, 1):
        raise AutosegError("--watch: takes neither --reference nor --shard. Score the results with `autoseg evaluate`")
    if runtime.engine != "local":
        raise AutosegError(f"--watch: keeps its own model loaded, and takes no --engine {runtime.engine}. Leave that out")
