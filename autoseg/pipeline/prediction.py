"""Segment scans with a finished model."""

import time
from dataclasses import dataclass
from pathlib import Path

from autoseg.data.dataset import Case, cases_in
from autoseg.errors import AutosegError
from autoseg.evaluation import Report
from autoseg.evaluation.report import refuse_foreign_summary
from autoseg.imaging.files import FORMATS, ending_of
from autoseg.inference.bundle import load_bundle
from autoseg.inference.cohort import predict_cohort
from autoseg.inference.predictor import Predictor
from autoseg.networks.machine import keep_memory
from autoseg.pipeline.evaluation import all_failures, evaluate, references_in
from autoseg.pipeline.models import find_model
from autoseg.pipeline.quiet import mute, silent

__all__ = ["Predicted", "predict"]


@dataclass(frozen=True)
class Predicted:
    """What a prediction did: outcomes of all cases, and the report where there was a reference.

    ``failures`` are sentences about cases that could not be predicted, or could not be scored.
    """

    folder: Path
    done: int
    skipped: int
    failures: tuple[str, ...]
    seconds: float
    report: Report | None = None

    def summary(self):
        lines = [f"{self.done} predicted, {self.skipped} were done already, {len(self.failures)} failed, {self.seconds:.1f} s"]
        lines += [f"failed: {failure}" for failure in self.failures]
        if self.report is not None:
            lines += ["", self.report.table()]
        return "\n".join([*lines, f"results: {self.folder}"])


def predict(
    source,
    target,
    workspace,
    *,
    model=None,
    folds=None,
    mirror=True,
    step=0.5,
    probabilities=False,
    reference=None,
    device="auto",
    workers=None,
    shard=None,
    fresh=False,
    say=mute,
    progress=silent,
):
    """Segment a scan or every case of a folder; results lie on the scans' own grids.

    Args:
        source: a scan, or a folder of ``CASE_0000.EXT`` files (``CASE.EXT`` too where there is one channel).
        target: folder for the results.
        model: name, folder or zip; None for the only one in the workspace.
        folds: ``"0,1"`` or None for all.
        reference: folder of labels to score those cases against that have one.
        shard: ``"i/N"``: every N-th case from the i-th; its scores go to the folder ``metrics_i_of_N``.

    Returns:
        Predicted; one failed case does not stop the others.

    Raises:
        AutosegError: wrong call; nothing was written.
    """
    begun = time.monotonic()
    index, count = _shard(shard)
    report_folder = Path(target) / (f"metrics_{index}_of_{count}" if count > 1 else "")
    references = references_in(reference) if reference else {}
    if reference:
        refuse_foreign_summary(report_folder)
    bundle = load_bundle(find_model(model, workspace))
    cases, ending = _find_cases(Path(source), bundle)
    _say_unused(Path(source), cases, say)
    share = cases[index::count]
    scored = {case.id for case in share if case.id in references}
    if reference and not any(case.id in references for case in cases):
        raise AutosegError(f"{reference}: no label file in it has the name of a case, such as {cases[0].id}{ending}")
    chosen = None if folds is None else [part.strip() for part in str(folds).split(",")]
    predictor = Predictor(bundle, folds=chosen, device=device, mirror=mirror, step=step)
    if predictor.device.type == "cpu":
        keep_memory()
    say(f"{len(share)} cases, model {bundle.name}, on {predictor.device}")
    done = predict_cohort(
        predictor,
        cases,
        target,
        ending=ending,
        workers=workers or 2,
        on_done=progress("predict", len(share)),
        shard=(index, count),
        fresh=fresh,
        probabilities=probabilities,
    )
    report = None
    if scored:
        about = {"schema": bundle.labels, "cases": scored, "images": {case.id: case.images for case in share}}
        report = evaluate(reference, target, report_folder, **about, ending=ending, workers=workers, say=say)
    failed = all_failures(done, report)
    counts = len(done.cases("done")), len(done.cases("skipped"))
    return Predicted(Path(target), *counts, failed, time.monotonic() - begun, report)


def _say_unused(source, cases, say):
    """Name the images of a folder that are of no case, such as CASE.EXT beside CASE_0000.EXT."""
    used = {path for case in cases for path in case.images}
    files = sorted(source.iterdir()) if source.is_dir() else []
    unused = [path.name for path in files if path not in used and path.name.endswith(tuple(FORMATS)) and path.name[0] != "."]
    if unused:
        more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
        say(f"not used, because they are no channel of a case: {', '.join(unused[:5])}{more}")


def _shard(text):
    if text is None:
        return (0, 1)
    first, _, count = str(text).partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise AutosegError(f"--shard {text}: expected i/N with i from 0 to N-1, such as 0/4")
    return int(first), int(count)


def _find_cases(source, bundle):
    """(cases, file ending) of a scan or a folder of scans."""
    channels = len(bundle.channels)
    if source.is_file():
        if channels > 1:
            names = ", ".join(bundle.channels)
            raise AutosegError(f"{source}: the model needs {channels} channels ({names}). Give the folder that holds them")
        ending = ending_of(source)
        name = source.name[: -len(ending)].removesuffix("_0000")
        return [Case(name, name, (source,), None)], ending
    if not source.is_dir():
        raise AutosegError(f"{source}: there is no such file or folder")
    for ending in dict.fromkeys((bundle.file_ending, *FORMATS)):
        if cases := cases_in(source, ending, channels):
            return list(cases), ending
    raise AutosegError(f"{source}: no scans in it; expected CASE_0000{bundle.file_ending} or another of {', '.join(FORMATS)}")
