"""A folder of scans in, a folder of labels out; one bad scan costs nothing but itself.

While the networks work on one case, threads read the next ones and write the last ones. For every case there appear
``CASE`` + ending (labels on the scan's own grid, with its header), ``CASE.json`` (the *marker*) and, where asked for,
``CASE_probabilities.npz`` (array ``probabilities``, (K, Z, Y, X) float16, no pickle) and what each ``Exporter`` writes.
``run.json`` tells about the run.

The marker is what makes resuming safe. It says ``writing`` before the first output of a case is written and ``done``
afterwards, with the digests of inputs, model, options and outputs. A case is skipped when all of them still hold, and redone
when the marker says that its outputs are ours; outputs that only the earlier result had are removed. Anything else that lies in
the way stays: a file without a marker, or one that somebody has edited since.
"""

import platform
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from autoseg import __version__
from autoseg.atomic import replacing
from autoseg.data.dataset import Case
from autoseg.errors import AutosegError, FileError
from autoseg.imaging.files import digest_on_disk, paths_of, read_label_volume, write_label_volume
from autoseg.imaging.raw import digest_of
from autoseg.inference.predictor import Predictor, Prepared
from autoseg.workspace import read_json, write_json

__all__ = ["CaseOutcome", "CohortResult", "Exporter", "predict_cohort", "remove_outputs"]

MADE_BY = "autoseg predict"


@dataclass(frozen=True, eq=False)
class Exporter:
    """Makes more of a case than labels, before the case counts as done.

    Attributes:
        name: key of its options in what a result depends on.
        suffixes: what it may write is called CASE + suffix in the output folder: files, or folders of files.
        write: ``write(case, prediction, prepared, logits)``, called in a thread: a Case, a Prediction, the Prepared scan, and
            logits (K, z, y, x) on ``prepared.grid``, an array or ComposedLogits, not to be changed. Returns (files, record):
            the paths of what it wrote, which are outputs of the case as its labels are (listed with digests, redone where
            missing or damaged), and a dictionary that is added to ``CASE.json``. What it raises is the failure of the case.
        options: JSON that its files depend on; another value means that the case is done again.
    """

    name: str
    suffixes: tuple[str, ...]
    write: Callable
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class CaseOutcome:
    """What became of a case: ``status`` is done, skipped (was done already) or failed, with the reason as ``message``.

    ``outputs`` are digests by file name; ``seconds`` belong to the steps of the prediction.
    """

    case: str
    status: str
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CohortResult:
    """All outcomes, in the order of the cases, and the seconds from first to last."""

    outcomes: tuple[CaseOutcome, ...]
    seconds: float

    @property
    def failures(self):
        """(case, message) of every case that failed."""
        return tuple((outcome.case, outcome.message) for outcome in self.outcomes if outcome.status == "failed")

    def cases(self, status):
        """Identifiers of the cases that were ``done``, ``skipped`` or ``failed``."""
        return tuple(outcome.case for outcome in self.outcomes if outcome.status == status)


@dataclass(frozen=True, eq=False)
class Job:
    """What all cases of a run share."""

    predictor: Predictor
    folder: Path
    ending: str
    run_file: Path
    fresh: bool
    probabilities: bool
    exporters: tuple[Exporter, ...]
    options: dict

    def marker(self, case):
        return self.folder / f"{case.id}.json"

    def labels(self, case):
        return self.folder / f"{case.id}{self.ending}"

    def places(self, case):
        """Where outputs of a case may lie: files, or folders of files."""
        suffixes = [suffix for exporter in self.exporters for suffix in exporter.suffixes]
        return [self.labels(case), self.probabilities_of(case), *(self.folder / f"{case.id}{suffix}" for suffix in suffixes)]

    def probabilities_of(self, case):
        return self.folder / f"{case.id}_probabilities.npz"

    def digests(self, paths):
        """Digest of each file that is there, by its name: the path within the folder."""
        return {p.relative_to(self.folder).as_posix(): digest_of(p.read_bytes()) for p in paths if p.is_file()}

    def identity(self, case):
        """What a result of this case depends on, as JSON: the same identity means the same result."""
        inputs = [{"file": image.name, "digest": digest_on_disk(image)} for image in case.images]
        return {"model": self.predictor.bundle.digest, "inputs": inputs, "options": self.options}


@dataclass(frozen=True, eq=False)
class Work:
    """A case that is ready for the networks."""

    case: Case
    identity: dict
    prepared: Prepared


def predict_cohort(
    predictor,
    cases,
    out_folder,
    *,
    ending,
    workers=2,
    on_done=None,
    shard=(0, 1),
    fresh=False,
    probabilities=False,
    exporters=(),
):
    """Predict many cases; continue where an earlier call with the same arguments stopped.

    Args:
        predictor: a ``Predictor``.
        cases: of ``autoseg.data.dataset.cases_in``; labels are not looked at.
        out_folder: created where missing; may not hold any of the scans.
        ending: file type of the labels, such as ``.nii.gz``.
        workers: threads that read and write; also how many prepared and how many finished cases may wait in memory.
        on_done: called in this thread with the CaseOutcome of each case, in order.
        shard: (i, n): only every n-th case, beginning with number i; n calls at a time share a folder.
        fresh: do every case again, and replace whatever is in the way, a foreign ``run.json`` too.
        probabilities: also write them.
        exporters: sequence of Exporter, called in this order.

    Returns:
        CohortResult. A case that fails is an outcome, whatever its exception was.

    Raises:
        AutosegError: the output folder holds the scans, or a ``run.json`` of another program; a shard that does not exist.
    """
    index, count = shard
    if not 0 <= index < count:
        raise AutosegError(f"shard: expected a number from 0 to {count - 1} of {count}, found {index}")
    out_folder = Path(out_folder)
    _refuse_input_folder(cases, out_folder)
    asked = {exporter.name: exporter.options for exporter in exporters} or None
    options = {**predictor.options(), "probabilities": probabilities, "export": asked}
    run_file = out_folder / ("run.json" if count == 1 else f"run_{index}_of_{count}.json")
    job = Job(predictor, out_folder, ending, run_file, fresh, probabilities, tuple(exporters), options)
    if not fresh:
        _refuse_foreign_record(run_file)
    start, outcomes = time.perf_counter(), []
    try:
        for outcome in _outcomes(job, list(cases)[index::count], max(1, workers)):
            outcomes.append(outcome)
            if on_done:
                on_done(outcome)
    finally:
        result = CohortResult(tuple(outcomes), time.perf_counter() - start)
        write_json(run_file, _run_record(job, result, shard))
    return result


def _outcomes(job, cases, workers):
    """Yield the outcome of each case in order; reading, networks and writing of different cases overlap."""
    waiting, begun, ending = deque(cases), deque(), deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while waiting or begun:
            while waiting and len(begun) < workers:
                case = waiting.popleft()
                begun.append((case, pool.submit(_begin, job, case)))
            case, future = begun.popleft()
            ending.append((case, pool.submit(_finish, job, *_inferred(job, case, future))))
            while ending and (len(ending) > workers or ending[0][1].done()):
                yield ending.popleft()[1].result()
        while ending:
            yield ending.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _inferred(job, case, future):
    """(outcome, None, None) for a case that needs no more, else (None, Work, what ``infer`` returned)."""
    try:
        begun = future.result()
        if isinstance(begun, CaseOutcome):
            return begun, None, None
        return None, begun, job.predictor.infer(begun.prepared)
    except Exception as fault:  # noqa: BLE001 - one bad case must not stop the others
        return _failed(case, fault), None, None


def _begin(job, case):
    """Read and prepare a case, or say that it is done already."""
    if job.marker(case) == job.run_file:
        raise AutosegError(f"case {case.id!r}: {job.run_file.name} is the record of the run. Rename the scan")
    identity = job.identity(case)
    if not job.fresh and (outputs := _done_before(job, case, identity)) is not None:
        return CaseOutcome(case.id, "skipped", outputs=outputs)
    return Work(case, identity, job.predictor.prepare(case.images))


def _done_before(job, case, identity):
    """Digests of the outputs of a case that is verifiably done, None if it must be (re)done.

    Raises:
        AutosegError: what lies in the way is not ours, or was edited.
    """
    labels, marker = job.labels(case), job.marker(case)
    record = read_json(marker) if marker.is_file() else None
    if not _is_ours(record):
        for path in [marker, *job.places(case)]:
            if path.exists():
                raise AutosegError(f"{path}: exists and was not made by this program. Move it away, or ask for a fresh start")
        return None
    if record.get("state") != "done":
        return None
    expected = record.get("outputs", {})
    found = job.digests(job.folder / name for name in expected)
    if found.get(labels.name, expected.get(labels.name)) != expected.get(labels.name) and _is_readable(labels):
        raise AutosegError(f"{labels}: was edited after it had been predicted. Move it away, or ask for a fresh start")
    return found if record.get("identity") == identity and found == expected else None


def _is_ours(record):
    return isinstance(record, dict) and record.get("made_by") == MADE_BY


def _refuse_foreign_record(path):
    if path.exists() and not _is_ours(read_json(path)):
        raise AutosegError(f"{path}: exists and was not made by this program. Choose another folder, or ask for a fresh start")


def _is_readable(path):
    """Whether a label file is sound: then a difference is somebody's work rather than damage."""
    try:
        read_label_volume(path)
    except FileError:
        return False
    return True


def _finish(job, outcome, work, inferred):
    """Write the results of a case; returns its outcome (the one given, where there is one already)."""
    if outcome is not None:
        return outcome
    case = work.case
    try:
        earlier = _earlier_outputs(job, case)
        logits, about = inferred
        prediction = job.predictor.decode(logits, work.prepared, probabilities=job.probabilities, **about)
        marker = {"made_by": MADE_BY, "case": case.id, "identity": work.identity}
        write_json(job.marker(case), {**marker, "state": "writing", "outputs": earlier})
        write_label_volume(prediction.labels, job.labels(case), like=case.images[0])
        files, more = [job.labels(case)], {}
        if job.probabilities:
            files.append(job.probabilities_of(case))
            _write_probabilities(files[-1], prediction.probabilities)
        for exporter in job.exporters:
            written, record = exporter.write(case, prediction, work.prepared, logits)
            files, more = [*files, *written], more | record
        outputs = job.digests(files)
        remove_outputs(job.folder, {name: digest for name, digest in earlier.items() if name not in outputs})
        labels = job.predictor.bundle.labels
        names = {name: v[0] if len(v) == 1 else v for name, v in zip(labels.structures, labels.values, strict=True)}
        how = {"labels": names, "seconds": prediction.seconds, "notes": list(prediction.notes), **_machine(job)}
        write_json(job.marker(case), {**more, **marker, "state": "done", "outputs": outputs, **how})
        return CaseOutcome(case.id, "done", "; ".join(prediction.notes), outputs, prediction.seconds)
    except Exception as fault:  # noqa: BLE001 - one bad case must not stop the others
        return _failed(case, fault)


def _earlier_outputs(job, case):
    """Digests by name of what an earlier prediction of this case wrote."""
    try:
        record = read_json(job.marker(case))
    except AutosegError:  # none, or a damaged one that a fresh start goes over
        return {}
    return {name: d for name, d in record.get("outputs", {}).items() if name.startswith(case.id)} if _is_ours(record) else {}


def remove_outputs(folder, outputs):
    """Take away files that belonged to an earlier result, unless somebody has edited them."""
    for name, digest in outputs.items():
        path = folder / name
        if ".." not in path.parts and path.is_file() and digest_of(path.read_bytes()) == digest:
            path.unlink()


def _failed(case, fault):
    message = str(fault) if isinstance(fault, AutosegError) else f"{type(fault).__name__}: {fault}"
    return CaseOutcome(case.id, "failed", message)


def _write_probabilities(path, probabilities):
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, probabilities=probabilities)


def _refuse_input_folder(cases, out_folder):
    for case in cases:
        for path in (path for image in case.images for path in paths_of(image)):
            if path.resolve().parent == out_folder.resolve():
                raise AutosegError(f"{out_folder}: holds the scans. Results need a folder of their own")


def _machine(job):
    return {"device": str(job.predictor.device), "precision": job.predictor.precision}


def _run_record(job, result, shard):
    bundle = job.predictor.bundle
    return {
        "made_by": MADE_BY,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "autoseg": __version__},
        "model": {"name": bundle.name, "digest": bundle.digest},
        "labels": asdict(bundle.labels),
        "options": job.options,
        "shard": list(shard),
        **_machine(job),
        "seconds": result.seconds,
        "failures": dict(result.failures),
        "cases": [asdict(outcome) for outcome in result.outcomes],
    }
