"""A folder of scans in, a folder of results out; a bad scan does not affect the others.

While the networks work on one case, threads read the next cases and write the last ones. Each case has the files of its
``Output`` values and ``CASE.json``, from which the ledger resumes: a case is skipped if inputs, model, options and outputs
match its record, and repeated if its outputs are ours. Other files in the way are kept: a file without a record, or labels
edited since. ``run.json`` describes the run.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autoseg import __version__
from autoseg.atomic import remove_leftovers
from autoseg.data.dataset import Case
from autoseg.engines import Engine, LocalEngine, Outcome, reason_of
from autoseg.errors import AutosegError, EngineError
from autoseg.imaging.files import digest_on_disk, is_slicer_segmentation, paths_of, read_file, read_label_volume
from autoseg.inference.about import about_model
from autoseg.inference.bundle import Bundle, load_bundle
from autoseg.inference.choice import doubt_of
from autoseg.inference.inferred import Prepared
from autoseg.inference.output import Output
from autoseg.inference.predictor import Predictor
from autoseg.ledger import Claim, Ledger, tell_other_options
from autoseg.names import folders_of, scrubbed
from autoseg.networks.devices import choose_device
from autoseg.options import InferenceOptions
from autoseg.records import CaseOutcome, CohortRecord, ModelName
from autoseg.room import keep_memory
from autoseg.workspace import read_json, read_record, write_json
from planners.records import digest, to_json

__all__ = [
    "CohortResult",
    "Predict",
    "PredictRunner",
    "depends_on",
    "outcome_of",
    "predict_cohort",
    "refuse_foreign_run",
    "tell_replaced",
    "write_run",
]

MADE_BY = "autoseg predict"

KEPT = re.compile(r"run(_\d+_of_\d+)?|metrics|summary", re.IGNORECASE)  # these JSON files are about the whole folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CohortResult:
    """All outcomes, in the order of the cases, and the total seconds."""

    outcomes: tuple[CaseOutcome, ...]
    seconds: float

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """(case, message) of every case that failed."""
        return tuple((outcome.case, outcome.message) for outcome in self.outcomes if outcome.status == "failed")

    def cases(self, *status: str) -> tuple[str, ...]:
        """Identifiers of the cases that were ``done``, ``skipped`` or ``failed``."""
        return tuple(outcome.case for outcome in self.outcomes if outcome.status in status)


@dataclass(frozen=True)
class Predict:
    """The step that segments cases.

    Attributes:
        model: path of a model's folder or zip.
        folder: output folder.
        outputs: what is written for each case.
        inference: how the model is applied.
        device: as in Predictor.
        fresh: repeat every case, and replace files in the way.
        shard: (i, n): this is the i-th of n processes that share the folder.
        keeps_memory: the process only predicts, so it may keep the memory of large tensors if that is faster.
        on_cpu: number format on a CPU; '' for the one in the inference options.
    """

    model: str
    folder: Path
    outputs: tuple[Output, ...]
    inference: InferenceOptions = InferenceOptions()
    device: str = "auto"
    fresh: bool = False
    shard: tuple[int, int] = (0, 1)
    keeps_memory: bool = False
    on_cpu: str = ""

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder, MADE_BY, self.fresh, _is_sound)

    @property
    def run_file(self) -> Path:
        """The record of the run; each shard has its own."""
        index, count = self.shard
        return self.folder / ("run.json" if count == 1 else f"run_{index}_of_{count}.json")

    def setup(self) -> PredictRunner:
        """Load the model; AutosegError if it or the device is not usable."""
        device, inference = choose_device(self.device), self.inference
        if device.type == "cpu":
            inference = replace(inference, precision=self.on_cpu or inference.precision)
            if self.keeps_memory:
                keep_memory()
        return PredictRunner(self, Predictor(self.model, inference, device=str(device), scratch=self.folder))

    def settled(self) -> Predict:
        """The step for workers: the number format on CPUs is settled, so that all workers use the same."""
        if self.inference.precision != "auto":
            return self
        return replace(self, on_cpu=Predictor(self.model, self.inference, device="cpu", scratch=self.folder).facts.precision)


@dataclass(frozen=True, eq=False)
class Work:
    """A case before or after the networks."""

    case: Case
    identity: dict[str, Any]
    claim: Claim
    prepared: Prepared
    trained_on: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PredictRunner:
    """A worker of ``Predict`` with its model loaded. Each part returns a CaseOutcome if no work is left."""

    step: Predict
    predictor: Predictor

    def __post_init__(self) -> None:
        for output in self.step.outputs:
            output.check(self.predictor.facts)

    def identity(self, case: Case, digests: Sequence[str]) -> dict[str, Any]:
        """What the result of a case depends on, as JSON: equal identities mean equal results. ``digests`` are of its images."""
        options = depends_on(self.predictor.bundle, self.step.inference, self.step.outputs)
        inputs = [{"file": image.name, "digest": one} for image, one in zip(case.images, digests, strict=True)]
        model = self.predictor.bundle.digest_with(self.predictor.facts.folds)
        return {"model": model, "inputs": inputs, "options": options}

    def trained_on(self, digests: Sequence[str]) -> tuple[str, ...]:
        """The folds in use that had images of these digests as a training case, as far as the model records its cases."""
        scan, stages = digest(list(digests)), self.predictor.bundle.stages.values()
        return tuple(
            fold for fold in self.predictor.facts.folds if any(scan in stage.learned_from.get(fold, ()) for stage in stages)
        )

    def begin(self, case: Case) -> CaseOutcome | Work:
        """Read and prepare a case, or return that it is already done."""
        step, digests = self.step, [digest_on_disk(image) for image in case.images]
        identity, trained_on = self.identity(case, digests), self.trained_on(digests)
        if KEPT.fullmatch(case.id):
            raise AutosegError(f"case {case.id!r}: {case.id}.json is a record of the whole folder. Rename the scan")
        places = [step.folder / f"{case.id}{suffix}" for output in step.outputs for suffix in output.suffixes]
        claim = step.ledger.claim(case.id, identity, places)
        if claim.done and claim.entry:
            outputs = {name: str(digest) for name, digest in claim.earlier.items()}
            device, precision = (str(claim.entry.record.get(name, "")) for name in ("device", "precision"))
            warnings = tuple(map(str, claim.entry.record.get("warnings", ())))
            computed, every = claim.entry.record.get("windows", (0, 0))
            return CaseOutcome(
                case.id,
                "skipped",
                outputs=outputs,
                device=device,
                precision=precision,
                warnings=warnings,
                windows=(int(computed), int(every)),
                trained_on=trained_on,
            )
        return Work(case, identity, claim, self.predictor.prepare(case.images), trained_on)

    def work(self, work: CaseOutcome | Work) -> CaseOutcome | tuple[Work, Any]:
        """Run the networks on a prepared case."""
        return work if isinstance(work, CaseOutcome) else (work, self.predictor.infer(work.prepared))

    def finish(self, worked: CaseOutcome | tuple[Work, Any]) -> CaseOutcome:
        """Write the results of a case."""
        if isinstance(worked, CaseOutcome):
            return worked
        work, answer = worked
        case, ledger, facts = work.case, self.step.ledger, self.predictor.facts
        folders = _folders_of(case)
        groups = zip(facts.labels.structures, facts.labels.values, strict=True)
        found = self.predictor.decode(answer, work.prepared)
        earlier = {name: digest for name, digest in work.claim.earlier.items() if name.startswith(case.id)}
        ledger.begin(case.id, work.identity, earlier, {"case": case.id})
        files: list[Path] = []
        record: dict[str, Any] = {}
        for output in self.step.outputs:
            written = output.write(case, found, self.step.folder)
            files, record = [*files, *written.files], {**record, **written.record}
        about = {
            **record,
            "case": case.id,
            "labels": {name: v[0] if len(v) == 1 else v for name, v in groups},
            "seconds": found.seconds,
            "notes": [scrubbed(note, folders) for note in found.notes],
            "warnings": list(found.warnings),
            "device": facts.device,
            "precision": facts.precision,
            "windows": list(answer.windows),
        }
        if work.prepared.unlike is not None:
            about["unlike"] = work.prepared.unlike
        outputs = ledger.finish(case.id, work.identity, files, about, earlier)
        return CaseOutcome(
            case=case.id,
            status="done",
            message="; ".join(found.notes),
            outputs=outputs,
            seconds=found.seconds,
            device=facts.device,
            precision=facts.precision,
            warnings=found.warnings,
            windows=answer.windows,
            trained_on=work.trained_on,
        )


def predict_cohort(
    step: Predict,
    cases: Iterable[Case],
    *,
    engine: Engine | None = None,
    on_done: Callable[[Outcome], object] | None = None,
) -> CohortResult:
    """Predict many cases; continue where an earlier call with the same step stopped.

    Args:
        step: Predict.
        cases: of all shards; labels are ignored.
        engine: what runs the cases; None for threads of this process.
        on_done: called in this thread with the Outcome of each case as it arrives.

    Returns:
        CohortResult. A failed case is an outcome, with any exception.

    Raises:
        AutosegError: the output folder contains the scans, or a ``run.json`` of another program; no such shard.
    """
    index, count = step.shard
    if not 0 <= index < count:
        raise AutosegError(f"shard: expected a number from 0 to {count - 1} of {count}, found {index}")
    every = list(cases)
    share, clashes = every[index::count], _clashes(every, step.outputs)
    _refuse_input_folder(share, step.folder)
    if not step.fresh:
        refuse_foreign_run(step)
    bundle = load_bundle(step.model)
    start, outcomes = time.perf_counter(), dict[str, CaseOutcome]()

    def done(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome_of(outcome)
        if on_done:
            on_done(outcome)

    def result() -> CohortResult:
        remove_leftovers(step.folder)  # from killed workers
        found = CohortResult(tuple(outcomes[case.id] for case in share if case.id in outcomes), time.perf_counter() - start)
        write_run(step, bundle, found, share)
        return found

    for case in (case for case in share if case.id in clashes):
        done(Outcome(case.id, error=AutosegError(clashes[case.id])))
    try:
        sound = [case for case in share if case.id not in clashes]
        (engine or LocalEngine()).map(step, sound, name=lambda case: case.id, on_done=done)
    except (KeyboardInterrupt, EngineError):
        result()
        raise
    return result()


def outcome_of(outcome: Outcome) -> CaseOutcome:
    """The CaseOutcome of a case, also of a failed one; logs its warnings."""
    found: CaseOutcome = outcome.value or CaseOutcome(outcome.name, "failed", reason_of(outcome.error or AutosegError()))
    for sentence in found.warnings:
        logger.warning("%s: %s", found.case, sentence)
    return found


def write_run(step: Predict, bundle: Bundle, result: CohortResult, cases: Iterable[Case]) -> None:
    """Write the record of a run on these cases."""
    write_json(step.run_file, _run_record(step, bundle, result, cases))


def _clashes(cases: Iterable[Case], outputs: Iterable[Output]) -> dict[str, str]:
    """{case: why it cannot be done} for cases whose results would have the file names of another case's: ``P1_iso.nii.gz`` is
    an output of P1, and also the labels of P1_iso. Of two such cases, the one with the shorter name is done."""
    suffixes = {suffix for output in outputs for suffix in output.suffixes} | {".json"}
    owners: dict[str, str] = {}
    found = {}
    for case in sorted((case.id for case in cases), key=len):
        for name in sorted(f"{case}{suffix}" for suffix in suffixes):
            if (owner := owners.setdefault(name, case)) != case:
                found[case] = f"expected results of names of their own, found {name}, which is made of {owner}. Rename the scan"
    return found


def depends_on(bundle: Bundle, inference: InferenceOptions, outputs: Iterable[Output]) -> dict[str, Any]:
    """Everything a result depends on besides model and scan, as JSON; without the precision, which only affects rounding."""
    asked: dict[str, Any] = {
        name: True for name in ("resample_channels", "fold_agreement", "closed_gates", "half_sums") if getattr(inference, name)
    }
    doubt = doubt_of(bundle, inference)
    if doubt is not None:
        asked["windows"] = to_json(doubt)
    asked |= {"postprocess": False} if bundle.postprocessing and not inference.postprocess else {}
    options: dict[str, Any] = {
        "folds": list(inference.folds or bundle.folds),
        "mirror_axes": list(bundle.plan.mirror_axes) if inference.mirror else [],
        "step": float(inference.step),
        **asked,
        "probabilities": False,
    }
    if bundle.coarse and inference.mirror:
        options["coarse_mirror_axes"] = list(bundle.coarse.plan.mirror_axes)
    if bundle.beside and inference.mirror:
        options["beside_mirror_axes"] = list(bundle.beside.plan.mirror_axes)
    export: dict[str, Any] = {}
    for output in outputs:
        options |= {key: value for key, value in output.identity.items() if key != "export"}
        export |= output.identity.get("export", {})
    return {**options, "export": export or None}


def _is_sound(path: Path) -> bool:
    """Whether a label file is readable: then a difference comes from editing, not damage."""
    try:
        if is_slicer_segmentation(path):
            read_file(path)  # its layers may overlap
        else:
            read_label_volume(path)
    except AutosegError:
        return False
    return True


def refuse_foreign_run(step: Predict) -> None:
    """Raise AutosegError if the record of the run belongs to another program."""
    path = step.run_file
    found = read_json(path) if path.exists() else {"made_by": MADE_BY}
    if not isinstance(found, dict) or found.get("made_by") != MADE_BY:
        raise AutosegError(f"{path}: exists and was not made by this program. Choose another folder, or ask for a fresh start")


def tell_replaced(step: Predict, bundle: Bundle) -> None:
    """Warn if the last run with this output folder had another model or other options; its results are replaced."""
    try:
        earlier = read_record(CohortRecord, step.run_file, strict=False) if step.run_file.is_file() else CohortRecord()
    except AutosegError:  # a damaged record says nothing
        return
    name = Path(earlier.model.name).name  # older versions recorded the path
    if name not in ("", Path(step.model).absolute().name) and earlier.model.digest != bundle.digest:
        told = "%s: holds results of the model %s; those of cases that are predicted again are replaced"
        logger.warning(told, step.folder, name)
    else:
        tell_other_options(step.folder, earlier.options, depends_on(bundle, step.inference, step.outputs))


def _refuse_input_folder(cases: Iterable[Case], out_folder: Path) -> None:
    for case in cases:
        for path in (path for image in case.images for path in paths_of(image)):
            if os.path.dirname(os.path.realpath(path)) == os.path.realpath(out_folder):  # does not raise for a link to itself
                raise AutosegError(f"{out_folder}: holds the scans. Results need a folder of their own")


def _folders_of(case: Case) -> tuple[str, ...]:
    return folders_of({path.parent for image in case.images for path in paths_of(image)})


def _run_record(step: Predict, bundle: Bundle, result: CohortResult, cases: Iterable[Case]) -> CohortRecord:
    """``run.json``; it is passed on with the results, so files and models are named without their folders."""
    computed, every = (sum(outcome.windows[i] for outcome in result.outcomes) for i in (0, 1))
    machines = [outcome for outcome in result.outcomes if outcome.device]
    of, own = {case.id: case for case in cases}, folders_of([step.folder, step.model])

    def named(outcome: CaseOutcome) -> CaseOutcome:
        said = outcome.message
        return replace(outcome, message=scrubbed(said, (*own, *_folders_of(of[outcome.case])))) if said else outcome

    outcomes = [named(outcome) for outcome in result.outcomes]
    return CohortRecord(
        made_by=MADE_BY,
        versions={"python": platform.python_version(), "torch": torch.__version__, "autoseg": __version__},
        model=ModelName(Path(step.model).absolute().name, bundle.digest, to_json(about_model(bundle))),
        labels=bundle.labels,
        options=depends_on(bundle, step.inference, step.outputs),
        shard=step.shard,
        device=machines[-1].device if machines else step.device,
        precision=machines[-1].precision if machines else step.inference.precision,
        windows={"computed": computed, "of": every},
        seconds=result.seconds,
        failures={outcome.case: outcome.message for outcome in outcomes if outcome.status == "failed"},
        cases=tuple(outcomes),
    )
