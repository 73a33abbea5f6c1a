"""Surfaces, measurements and cubic voxels of label maps."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from autoseg.atomic import remove_leftovers
from autoseg.data.labelmaps import named_labels, references_in
from autoseg.engines import LocalEngine, engine_of, reason_of
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.files import stem_of
from autoseg.ledger import Ledger, tell_other_options
from autoseg.names import counted
from autoseg.options import ReconstructOptions, Runtime
from autoseg.outputs.from_labels import MADE_BY, Reconstruct
from autoseg.outputs.surfaces import check_surfaces
from autoseg.outputs.tables import refuse_foreign_tables, write_tables
from autoseg.places import check_folder

__all__ = ["Reconstructed", "reconstruct"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconstructed:
    """Results for a folder of label maps. ``structures`` counts them over the maps that were done or skipped, ``failures`` are
    sentences about files that failed, ``borders`` is a sentence about how surfaces of neighbours fit."""

    folder: Path
    done: int
    skipped: int
    structures: int
    failures: tuple[str, ...]
    seconds: float
    borders: str = ""

    def summary(self) -> str:
        counts = (
            f"{counted(self.done, 'label map')} reconstructed, {self.skipped} were done already, {len(self.failures)} failed"
        )
        failed = (f"failed: {failure}" for failure in self.failures)
        lines = [f"{counts}; {counted(self.structures, 'structure')}, {self.seconds:.1f} s", *failed]
        return "\n".join([*lines, *filter(None, [self.borders]), f"results: {self.folder}"])


def reconstruct(
    source: str | PathLike[str],
    target: str | PathLike[str],
    options: ReconstructOptions | None = None,
    runtime: Runtime | None = None,
) -> Reconstructed:
    """Surfaces, measurements and, on request, cubic voxels of label maps of any tool.

    Args:
        source: a label map, or a folder of them.
        target: folder for ``CASE_surfaces``, ``CASE.json``, ``CASE_iso`` + ending, ``measurements.csv`` and ``borders.csv``.
            Maps with cubic voxels are marked as derived, in the header if the format has one and in ``CASE.json``.
        options: which outputs to write. ``isotropic`` 0 means the finest spacing of each map. Values without a name in
            ``labels``, a dataset.json beside the maps or the ``CASE.json`` of a prediction are called ``label N``.
        runtime: ``workers`` are threads for the structures of a case, with one case at a time, or the workers of another
            engine, with one case each.

    Returns:
        Reconstructed. One broken file never stops the others. A map that an earlier call processed in the same way is
        skipped.

    Raises:
        AutosegError: wrong call. Nothing was written.
    """
    begun, source, target = time.monotonic(), Path(source), Path(target)
    options, runtime = options or ReconstructOptions(), runtime or Runtime()
    options = replace(options, surfaces=check_surfaces(options.surfaces))
    check_folder(target)
    cases = _label_maps(source)
    if target.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise AutosegError(f"{target}: holds the label maps. Results need a folder of their own")
    if not runtime.fresh:
        refuse_foreign_tables(target)
    engine, threads = engine_of(runtime.engine, runtime.workers), runtime.workers
    engine, threads = (LocalEngine(1), threads) if isinstance(engine, LocalEngine) else (engine, 1)
    step = Reconstruct(target, options, _names(source, cases, options.labels), threads, runtime.fresh)
    tell_other_options(target, Ledger(target, MADE_BY).options_of(cases), step.settings)
    logger.info("%s", counted(len(cases), "label map"))
    on_done = runtime.progress("reconstruct", len(cases))
    outcomes = engine.map(step, cases.items(), name=lambda item: item[0], on_done=on_done)
    remove_leftovers(target)
    found = {outcome.name: outcome.value for outcome in outcomes if outcome.error is None}
    failures = tuple(f"{outcome.name}: {reason_of(outcome.error)}" for outcome in outcomes if outcome.error is not None)
    made = [name for name, one in found.items() if not one.was_done]
    borders = write_tables(target, found, made=made) if found else ""
    skipped = sum(one.was_done for one in found.values())
    structures = sum(one.structures for one in found.values())
    return Reconstructed(target, len(found) - skipped, skipped, structures, failures, time.monotonic() - begun, borders)


def _label_maps(source: Path) -> dict[str, Path]:
    """{case: path} of one map or of a folder of maps. Files left out are reported."""
    return {stem_of(source): source} if source.is_file() else references_in(source)


def _names(source: Path, maps: dict[str, Path], labels: str | None) -> tuple[tuple[str | None, tuple[int, ...]], ...] | None:
    """((structure, values), ...) if a file names them for all maps, else None."""
    folder = source if source.is_dir() else source.parent
    try:
        schema = named_labels(folder, maps, labels=labels)
    except DatasetError:
        if labels is not None or any((place / "dataset.json").is_file() for place in (folder, folder.parent)):
            raise
        return None  # what is beside a single map, or in it, is told as a failure of that map
    if schema is None:
        return None
    ignored = () if schema.ignore is None else ((None, (schema.ignore,)),)
    return (*zip(schema.structures, schema.values, strict=True), *ignored)
