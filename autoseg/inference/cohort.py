"""A folder of scans in, a folder of results out; one bad scan costs nothing but itself.

While the networks work on one case, threads read the next ones and write the last ones. For every case there appear what its
``Output`` values write, and ``CASE.json`` about them, which the ledger resumes by: a case is skipped when inputs, model,
options and outputs are still those of its record, and done again when its outputs are ours. Anything else that lies in the
way stays: a file without a record, or labels that somebody has edited since. ``run.json`` tells about the run.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

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
from autoseg.inference.inferred import Inferred, ModelFacts, Prepared
from autoseg.inference.predictor import Predictor
from autoseg.ledger import Claim, Ledger
from autoseg.names import folders_of, scrubbed
from autoseg.networks.cpu import keep_memory
from autoseg.networks.devices import choose_device
from autoseg.options import InferenceOptions
from autoseg.records import ModelName
from autoseg.workspace import read_json, write_json
from planners.records import to_json

__all__ = [
    "CaseOutcome",
    "CohortResult",
    "Output",
    "Predict",
    "PredictRunner",
    "Written",
    "depends_on",
    "outcome_of",
    "predict_cohort",
    "refuse_foreign_run",
    "write_run",
]

MADE_BY = "autoseg predict"

KEPT = re.compile(r"run(_\d+_of_\d+)?|metrics|summary", re.IGNORECASE)  # CASE.json of these is about the whole folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What an output wrote of a case: the ``files``, and a ``record`` that is added to ``CASE.json``."""

    files: tuple[Path, ...]
    record: dict[str, Any] = field(default_factory=dict)


class Output(Protocol):
    """One kind of result; a frozen value, so that it travels with the step.

    Attributes:
        name: key in the registry ``OUTPUTS``.
        suffixes: what it may write is called CASE + suffix in the output folder: files, or folders of files.
        identity: JSON that its files depend on, merged with that of the other outputs; another value means that a case is
            done again. Empty where its files hang on the model and the options of the inference alone.
    """

    @property
    def name(self) -> str: ...

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    @property
    def identity(self) -> dict[str, Any]: ...

    def check(self, model: ModelFacts) -> None:
        """Raise AutosegError, before the first case, where the model cannot give such a result."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        """Write the files of a case, in a thread. What it raises is the failure of the case."""


@dataclass(frozen=True)
class CaseOutcome:
    """What became of a case: ``status`` is done, skipped (was done already) or failed, with the reason as ``message``.

    ``outputs`` are digests by file name; ``seconds`` belong to the steps of the prediction, which was made on ``device`` with
    numbers of ``precision``; ``warnings`` say why it deserves a look; ``windows`` are
    (computed, of): tiles that the networks looked at, of all, also where skipped.
    """

    case: str
    status: str
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    precision: str = ""
    warnings: tuple[str, ...] = ()
    windows: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class CohortResult:
    """All outcomes, in the order of the cases, and the seconds from first to last."""

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
        folder: for the results.
        outputs: what is written of each case.
        inference: how the model is applied.
        device: as of the Predictor.
        fresh: do every case again, and replace whatever is in the way.
        shard: (i, n): this is the i-th of n that share the folder.
        keeps_memory: the process is the prediction's own, and keeps the memory of large tensors where that makes it faster.
        on_cpu: number format where it is a CPU that computes; '' for what the inference asks for.
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
        """The record of the run; shards have one each."""
        index, count = self.shard
        return self.folder / ("run.json" if count == 1 else f"run_{index}_of_{count}.json")

    def setup(self) -> PredictRunner:
        """Load the model; AutosegError where it, or the device, does not serve."""
        device, inference = choose_device(self.device), self.inference
        if device.type == "cpu":
            inference = replace(inference, precision=self.on_cpu or inference.precision)
            if self.keeps_memory:
                keep_memory()
        return PredictRunner(self, Predictor(self.model, inference, device=str(device), scratch=self.folder))

    def settled(self) -> Predict:
        """The step for workers, of which none tries by itself which number format its CPU is faster in: all take the same."""
        if self.inference.precision != "auto":
            return self
        return replace(self, on_cpu=Predictor(self.model, self.inference, device="cpu", scratch=self.folder).facts.precision)


@dataclass(frozen=True, eq=False)
class Work:
    """A case that is ready for the networks, or has been through them."""

    case: Case
    identity: dict[str, Any]
    claim: Claim
    prepared: Prepared
    found: Inferred | None = None


@dataclass(frozen=True, eq=False)
class PredictRunner:
    """A worker of ``Predict``, its model loaded. Each part returns a CaseOutcome as soon as there is no more to do."""

    step: Predict
    predictor: Predictor

    def __post_init__(self) -> None:
        for output in self.step.outputs:
            output.check(self.predictor.facts)

    def identity(self, case: Case) -> dict[str, Any]:
        """What a result of this case depends on, as JSON: the same identity means the same result."""
        options = depends_on(self.predictor.bundle, self.step.inference, self.step.outputs)
        inputs = [{"file": image.name, "digest": digest_on_disk(image)} for image in case.images]
        model = self.predictor.bundle.digest_with(self.predictor.facts.folds)
        return {"model": model, "inputs": inputs, "options": options}

    def begin(self, case: Case) -> CaseOutcome | Work:
        """Read and prepare a case, or say that it is done already."""
        step, identity = self.step, self.identity(case)
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
            )
        return Work(case, identity, claim, self.predictor.prepare(case.images))

    def work(self, work: CaseOutcome | Work) -> CaseOutcome | tuple[Work, Any]:
        """What the networks say of it."""
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
        cases: of ``autoseg.data.dataset.cases_in``, of all shards; labels are not looked at.
        engine: who does it; None for threads of this process.
        on_done: called in this thread with the Outcome of each case as the engine gives it.

    Returns:
        CohortResult. A case that fails is an outcome, whatever its exception was.

    Raises:
        AutosegError: the output folder holds the scans, or a ``run.json`` of another program; a shard that does not exist.
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
        remove_leftovers(step.folder)  # of workers that were killed
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
    """What became of a case, also where it failed; what it warns of is logged."""
    found: CaseOutcome = outcome.value or CaseOutcome(outcome.name, "failed", reason_of(outcome.error or AutosegError()))
    for sentence in found.warnings:
        logger.warning("%s: %s", found.case, sentence)
    return found


def write_run(step: Predict, bundle: Bundle, result: CohortResult, cases: Iterable[Case]) -> None:
    """Write the record of a run on these cases."""
    write_json(step.run_file, _run_record(step, bundle, result, cases))


def _clashes(cases: Iterable[Case], outputs: Iterable[Output]) -> dict[str, str]:
    """{case: why it cannot be done} where its results would be called as those of another case: ``P1_iso.nii.gz`` is made of
    P1, and the labels of P1_iso. Of two cases the one with the shorter name keeps its own."""
    suffixes = {suffix for output in outputs for suffix in output.suffixes} | {".json"}
    owners: dict[str, str] = {}
    found = {}
    for case in sorted((case.id for case in cases), key=len):
        for name in sorted(f"{case}{suffix}" for suffix in suffixes):
            if (owner := owners.setdefault(name, case)) != case:
                found[case] = f"expected results of names of their own, found {name}, which is made of {owner}. Rename the scan"
    return found


def depends_on(bundle: Bundle, inference: InferenceOptions, outputs: Iterable[Output]) -> dict[str, Any]:
    """All that a result depends on besides the model and the scan, as JSON; without the precision, which only rounds."""
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
    """Whether a label file is sound: then a difference is somebody's work rather than damage."""
    try:
        if is_slicer_segmentation(path):
            read_file(path)  # whose layers may overlap
        else:
            read_label_volume(path)
    except AutosegError:
        return False
    return True


def refuse_foreign_run(step: Predict) -> None:
    """Raise AutosegError where the record of the run is another program's."""
    path = step.run_file
    found = read_json(path) if path.exists() else {"made_by": MADE_BY}
    if not isinstance(found, dict) or found.get("made_by") != MADE_BY:
        raise AutosegError(f"{path}: exists and was not made by this program. Choose another folder, or ask for a fresh start")


def _refuse_input_folder(cases: Iterable[Case], out_folder: Path) -> None:
    for case in cases:
        for path in (path for image in case.images for path in paths_of(image)):
            if os.path.dirname(os.path.realpath(path)) == os.path.realpath(out_folder):  # a link to itself raises nothing here
                raise AutosegError(f"{out_folder}: holds the scans. Results need a folder of their own")


def _folders_of(case: Case) -> tuple[str, ...]:
    return folders_of({path.parent for image in case.images for path in paths_of(image)})


def _run_record(step: Predict, bundle: Bundle, result: CohortResult, cases: Iterable[Case]) -> dict[str, Any]:
    """``run.json``: it is handed on with the results, so files and models are named without their folders."""
    computed, every = (sum(outcome.windows[i] for outcome in result.outcomes) for i in (0, 1))
    machines = [outcome for outcome in result.outcomes if outcome.device]
    of, own = {case.id: case for case in cases}, folders_of([step.folder, step.model])

    def named(outcome: CaseOutcome) -> CaseOutcome:
        said = outcome.message
        return replace(outcome, message=scrubbed(said, (*own, *_folders_of(of[outcome.case])))) if said else outcome

    outcomes = [named(outcome) for outcome in result.outcomes]
    return {
        "made_by": MADE_BY,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "autoseg": __version__},
        "model": to_json(ModelName(Path(step.model).absolute().name, bundle.digest, to_json(about_model(bundle)))),
        "labels": asdict(bundle.labels),
        "options": depends_on(bundle, step.inference, step.outputs),
        "shard": list(step.shard),
        "device": machines[-1].device if machines else step.device,
        "precision": machines[-1].precision if machines else step.inference.precision,
        "windows": {"computed": computed, "of": every},
        "seconds": result.seconds,
        "failures": {outcome.case: outcome.message for outcome in outcomes if outcome.status == "failed"},
        "cases": [asdict(outcome) for outcome in outcomes],
    }
