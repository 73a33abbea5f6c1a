"""Segment scans with a finished model."""

from __future__ import annotations

import logging
import time
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.data.labelmaps import Known, references_in, refuse_other_references
from autoseg.data.sources import find_inputs, tell
from autoseg.engines import LocalEngine, engine_of
from autoseg.errors import AutosegError
from autoseg.imaging.label_tables import write_label_tables
from autoseg.imaging.pictures import label_ending
from autoseg.inference.bundle import load_bundle
from autoseg.inference.cohort import predict_cohort, tell_replaced
from autoseg.methods import try_methods
from autoseg.names import counted
from autoseg.networks.devices import choose_device, devices_for
from autoseg.options import PredictOptions, Runtime
from autoseg.outputs.asked import asked_step
from autoseg.outputs.bids import bids_output
from autoseg.outputs.dicom import refuse_other_scans
from autoseg.outputs.predicted import Predicted, all_failures
from autoseg.outputs.tables import refuse_foreign_tables, write_tables
from autoseg.places import PAGE, check_folder, refuse_foreign

if TYPE_CHECKING:
    from autoseg.evaluation import Report

__all__ = ["Predicted", "predict"]

logger = logging.getLogger(__name__)


def predict(
    source: str | PathLike[str],
    target: str | PathLike[str],
    model: str | PathLike[str],
    options: PredictOptions | None = None,
    runtime: Runtime | None = None,
) -> Predicted:
    """Segment a scan or every case of a folder. Results are on the grid of each scan.

    Args:
        source: a scan with all channels, a folder of ``CASE_0000.EXT`` (one per channel) or ``CASE.EXT`` files (all
            channels), a data-set folder (its test cases are predicted), a BIDS data set (each session is a case), or a
            DICOM file, folder or tree (each series is a case).
        target: folder for the results.
        model: folder or zip of a model.
        options: which outputs to write for each scan. ``reference`` is a folder of labels or a data-set folder; cases with
            a reference are scored. The scores of a shard go to the folder ``metrics_i_of_N``.
        runtime: where and how to run.

    Returns:
        Predicted. One failed case does not stop the others.

    Raises:
        AutosegError: wrong call. Nothing was written.
    """
    begun, source, target = time.monotonic(), Path(source), Path(target)
    options, runtime = options or PredictOptions(), runtime or Runtime()
    index, count = options.shard
    part = f"_{index}_of_{count}" if count > 1 else ""
    scores = target / f"metrics{part}" if part else target
    check_folder(target)
    references = references_in(options.reference) if options.reference else {}
    if not runtime.fresh:
        refuse_foreign_tables(target, part)
        if options.reference:
            from autoseg.evaluation.report_files import refuse_foreign_report  # importing it takes a fifth of a second

            refuse_foreign_report(scores)
            refuse_foreign(scores / PAGE)
    engine, bundle = engine_of(runtime.engine, runtime.workers, devices_for(runtime.device)), load_bundle(Path(model))
    is_local = isinstance(engine, LocalEngine)  # otherwise each worker chooses one of its own devices
    device = str(choose_device(runtime.device)) if is_local else runtime.device
    if options.reference:
        refuse_other_references(Path(options.reference), references, target, bundle.labels)
    inputs = find_inputs(source, channels=bundle.channels, file_ending=bundle.file_ending, inverts=options.invert_monochrome1)
    tell(inputs)
    cases, share, ending = inputs.cases, inputs.cases[index::count], label_ending(inputs.ending)
    if options.reference and not any(case.id in references for case in cases):
        raise AutosegError(f"{options.reference}: no label file in it has the name of a case, such as {cases[0].id}{ending}")
    refuse_other_scans(options.write, cases)
    bids = bids_output(options, target, cases, ending, bundle, runtime.fresh)
    step = asked_step(model, target, options, ending, runtime, device)
    step = step if is_local else step.settled()
    tell_replaced(step, bundle)
    logger.info("%s, model %s, on %s", counted(len(share), "case"), bundle.name, device if is_local else runtime.engine)
    done = predict_cohort(step, cases, engine=engine, on_done=runtime.progress("predict", len(share)))
    if share:
        write_label_tables(target, bundle.labels.painted)
    finished = dict.fromkeys(done.cases("done", "skipped"))
    borders = write_tables(target, finished, part, made=done.cases("done"))
    not_laid_out = bids.write(case for case in share if case.id in finished) if bids else ()
    scored = {case.id for case in share if case.id in references}
    known = Known(bundle.labels, ending, scored, {case.id: case.images for case in share})
    report = _score(options, target, scores, known, runtime) if scored else None
    try_methods(target)
    failed = (*all_failures(done, report), *not_laid_out)
    counts = len(done.cases("done")), len(done.cases("skipped"))
    return Predicted(target, *counts, failed, time.monotonic() - begun, report, borders, count)


def _score(options: PredictOptions, target: Path, scores: Path, known: Known, runtime: Runtime) -> Report:
    """Score the predictions, including their surfaces."""
    from autoseg.outputs.surface_scores import record_surface_scores  # it imports evaluation, which takes a second
    from autoseg.pipeline.evaluation import evaluate

    assert options.reference is not None  # scoring needs one
    report = evaluate(options.reference, target, scores, runtime=runtime, known=known)
    if options.surfaces.formats:
        record_surface_scores(target, report)
    return report
