"""Trains one fold: prepared cases in, weights out.

This module assembles the parts (batches, validation patches, loss, history) and passes them to ``loop.fit``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.data.labels import LabelSchema
from autoseg.data.splits import Split
from autoseg.errors import TrainingError
from autoseg.networks import Scores, build_network
from autoseg.networks.devices import Applied, prepare_for
from autoseg.preprocess.cases import TrainingCase, voxels_of
from autoseg.preprocess.coarse import with_coarse
from autoseg.preprocess.store import StoredCase, loaded, open_case
from autoseg.records import Validation, read_validations
from autoseg.training.batch import Batch
from autoseg.training.batches import Share, make_batch
from autoseg.training.checkpoint import LoopState, read_state
from autoseg.training.length import Length
from autoseg.training.loop import Job, Loss, MakeBatch, NotFinite, Result, fit
from autoseg.training.losses import LOSSES, can_be_divided, in_slabs
from autoseg.training.memory import refuse_too_large
from autoseg.training.monitor import append_history, plot_history, tell_listeners, trim_history
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.recipe import Recipe, is_augmentation_free, patch_stage, steps_of_an_epoch
from autoseg.training.settle import Training
from autoseg.training.transfer import Start, Transfer, frozen_parameters, load_matching, meaning_of
from planners.cost import prefers_lazy_logits
from planners.plan import Plan
from planners.records import added, digest

__all__ = ["Cases", "FoldTask", "TrainedFold", "refuse_task", "task_of", "train_fold"]

logger = logging.getLogger(__name__)

CHECKPOINT, HISTORY, CURVES = "checkpoint.safetensors", "history.jsonl", "curves.png"
KEPT_BYTES = 2**30  # cases kept in memory: a GPU uses patches faster than blocks can be decompressed
KEPT_STEPS = 64  # steps whose cases are remembered; more than are ever made in advance
CURVES_SECONDS = 20  # between two drawings of the curves, each of which takes a third of a second


@dataclass(frozen=True)
class FoldTask:
    """What to train, as a value. Its digest shows whether a checkpoint belongs to it.

    Attributes:
        plan: Plan with the network to train.
        labels: meaning of the codes.
        recipe: Recipe with its batch size settled.
        length, seed: length of the training run, and seed of its random numbers.
        training, validation: identifiers of the prepared cases.
        prepared_digest: digest of the prepared cases.
        start: identity of the initial weights, or empty.
        coarse: identity of the coarse stage whose labels it reads, or empty.
        batches_at_once: as ``Training.batches_at_once``.
    """

    plan: Plan
    labels: LabelSchema
    recipe: Recipe
    length: Length
    seed: int
    training: tuple[str, ...]
    validation: tuple[str, ...]
    prepared_digest: str
    start: str = ""
    coarse: str = added(2, "")
    batches_at_once: int = added(2, 1)


def task_of(training: Training, labels: LabelSchema, seed: int, split: Split, prepared: str, start: str = "") -> FoldTask:
    """The FoldTask of a settled training.

    Args:
        split: the training and the validation cases.
        prepared: digest of the prepared cases.
        start: identity of the initial weights.
    """
    return FoldTask(
        plan=training.plan,
        labels=labels,
        recipe=training.recipe,
        length=training.length,
        seed=seed,
        training=split.training,
        validation=split.validation,
        prepared_digest=prepared,
        start=start,
        batches_at_once=training.batches_at_once,
    )


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """The result of training a fold.

    Attributes:
        weights: a state dictionary on the CPU.
        state: LoopState at the end.
        applied: changes to the network for the device.
        transfer: the weights taken over from another model; None for a random start.
    """

    weights: dict[str, torch.Tensor]
    state: LoopState
    applied: Applied
    transfer: Transfer | None = None


def train_fold(
    task: FoldTask,
    *,
    prepared: Path,
    folder: Path,
    device: torch.device,
    start: Start | None = None,
    coarse: Path | None = None,
    ranks: Ranks = ALONE,
    after_step: Callable[[], object] = lambda: None,
) -> TrainedFold:
    """Train a fold, or resume it from its working files in ``folder``.

    Args:
        task: what to train.
        prepared: folder of the prepared cases.
        folder: for ``checkpoint.safetensors``, ``history.jsonl`` and ``curves.png``.
        device: to train on.
        start: initial weights.
        coarse: folder of the labels of a coarse stage, if the plan has coarse labels.
        ranks: the processes that train together; only the first one writes.
        after_step: called after each step.

    Raises:
        TrainingError: see ``loop.fit``; AutosegError for a damaged prepared case.
    """
    refuse_task(task, device, ranks)
    network, transfer = _network(task, start)
    network.to(device).train()
    job = Job(
        recipe=task.recipe,
        length=task.length,
        loss=_loss(task, ranks),
        score=partial(patch_dice, labels=task.labels, summed=ranks.summed),
        device=device,
        identity=digest(task),
        checkpoint=folder / CHECKPOINT,
        prepare=partial(_prepare, task, device),
        frozen=frozen_parameters(network, task.recipe.freeze, transfer),
        ranks=ranks,
        after_step=after_step,
    )
    ranks.alone(lambda: trim_history(folder / HISTORY, _step_reached(folder)))
    cases = Cases(prepared, coarse)
    batches, drawn_from = _batches(task, cases, device, ranks)
    with _naming_cases(drawn_from):
        on_check = _Monitor(folder) if ranks.is_first else lambda row: None
        done = fit(network, batches, _validation_patches(task, cases, ranks), job, on_check=on_check)
    if ranks.is_first:
        plot_history(read_validations(folder / HISTORY), folder / CURVES)
    return TrainedFold(done.weights, done.state, done.applied, transfer)


def refuse_task(task: FoldTask, device: torch.device, ranks: Ranks = ALONE) -> None:
    """Raise TrainingError for a task that needs too much memory, whose loss cannot be divided, or that is not settled."""
    batch_size = task.recipe.batch_size
    if batch_size is None or task.recipe.patch_curriculum is None or task.recipe.validations is None:
        raise TrainingError("expected a recipe with its batch, patches and validations settled. Settle the training first")
    _loss(task, ranks)
    bf16 = task.recipe.bf16 is not False
    refuse_too_large(task.plan.network, task.plan.patch_size, batch_size, device, bf16=bf16)


def _loss(task: FoldTask, ranks: Ranks) -> Loss:
    """The loss of logits and codes."""
    loss = LOSSES[task.recipe.loss]
    if ranks.count > 1 and task.recipe.divide_batch and not can_be_divided(loss):
        raise TrainingError(
            f"the loss {task.recipe.loss!r} takes no argument `whole`, so a batch cannot be divided over {ranks.count} "
            "devices. Give each a whole one (--set divide_batch=false), or another loss"
        )
    return partial(
        loss, batch_dice=task.plan.batch_dice, regions=task.labels.structure_codes if task.labels.has_regions else ()
    )


def _network(task: FoldTask, start: Start | None) -> tuple[torch.nn.Module, Transfer | None]:
    """The network to train, and the Transfer of its initial weights."""
    torch.manual_seed(task.seed)
    lazy, detached = prefers_lazy_logits(task.plan.network), task.recipe.restoration_detach
    network = build_network(task.plan.network, lazy_logits=lazy, restoration_detached=detached)
    now = meaning_of(task.plan, task.labels)
    transfer = load_matching(network, start.load(), start.source, start.meaning, now) if start else None
    if transfer:
        logger.info("%s", transfer)
    return network, transfer


@dataclass(frozen=True)
class Cases:
    """Folders of the prepared cases and of the labels of a coarse stage."""

    prepared: Path
    coarse: Path | None = None

    def open(self, name: str) -> StoredCase:
        case = open_case(self.prepared / name)
        return with_coarse(case, self.coarse) if self.coarse else case


def _batches(task: FoldTask, there: Cases, device: torch.device, ranks: Ranks) -> tuple[MakeBatch, dict[int, _Drawn]]:
    """The function that makes the batch of a step, and the cases drawn in recent steps."""
    stored = [there.open(name) for name in task.training]
    cases: Sequence[TrainingCase] = loaded(stored, KEPT_BYTES) if device.type == "cuda" else stored
    epoch = steps_of_an_epoch(task.recipe, task.plan, voxels_of(case.shape for case in cases)) / task.batches_at_once
    share = Share(task.seed, ranks.index, ranks.count, task.recipe.divide_batch)
    where = device if device.type == "cuda" else "cpu"

    drawn_from: dict[int, _Drawn] = {}

    def batch(step: int, fraction: float, left: float) -> Batch:
        free = is_augmentation_free(task.recipe, fraction, left / epoch)
        drawn_from[step] = drawn = _Drawn(cases)
        drawn_from.pop(step - KEPT_STEPS, None)
        return make_batch(drawn, task.plan, task.recipe, task.labels, share, step, fraction, free, where)

    return batch, drawn_from


class _Drawn(Sequence[TrainingCase]):
    """A sequence of prepared cases that notes which of them were accessed."""

    def __init__(self, cases: Sequence[TrainingCase]) -> None:
        self.cases, self.names = cases, list[str]()

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[TrainingCase]:  # iterating does not count as drawing
        return iter(self.cases)

    def __getitem__(self, number: Any) -> Any:
        self.names.append(self.cases[number].case)
        return self.cases[number]


@contextmanager
def _naming_cases(drawn_from: dict[int, _Drawn]) -> Iterator[None]:
    """Turn a NotFinite into a TrainingError that names the cases of its batch; ``drawn_from`` holds those of each step."""
    try:
        yield
    except NotFinite as fault:
        names = drawn_from[fault.step].names if fault.step in drawn_from else ()
        raise TrainingError(f"{fault}\nThe batch of that step: {', '.join(dict.fromkeys(names)) or 'not known'}") from fault


class _Monitor:
    """Writes and logs each row of history, and draws the curves from time to time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.drawn = folder, -float(CURVES_SECONDS)
        self.silent: set[str] = set()  # listeners that failed

    def __call__(self, row: Validation) -> None:
        append_history(self.folder / HISTORY, row)
        tell_listeners(self.folder, row, self.silent)
        if time.monotonic() - self.drawn > CURVES_SECONDS:
            plot_history(read_validations(self.folder / HISTORY), self.folder / CURVES)
            self.drawn = time.monotonic()
        dice = " ".join(f"{name} {value:.3f}" for name, value in row.patch_dice.items() if value is not None)
        logger.info(
            f"{min(row.fraction, 1):4.0%} step {row.step} {row.seconds / 60:.1f} min "
            f"loss {row.train_loss:.3f} validation {row.validation_loss:.3f} Dice {dice}"
        )


def _prepare(task: FoldTask, device: torch.device, network: torch.nn.Module, precision: str) -> Applied:
    """Prepare the network for the device, for the patch sizes of this training run; the last sizes are those of its end."""
    plan, recipe = task.plan, task.recipe
    begins = (0.0, *(stage.until for stage in recipe.patch_curriculum or ()))
    patches = [patch_stage(recipe, fraction, plan.patch_size, plan.network.divisor)[0] for fraction in begins]
    return prepare_for(device, network, plan.network, patches, precision=precision, training=True)


def patch_dice(
    results: Iterable[Result],
    labels: LabelSchema,
    summed: Callable[[Sequence[float]], Sequence[float]] = lambda values: values,
) -> dict[str, float | None]:
    """Dice of each structure, pooled over all validation patches in which it is annotated; None if it occurs neither in the
    reference nor in the prediction.

    ``summed`` adds up the numbers of voxels over all ranks, each of which has some of the patches.
    """
    both = dict.fromkeys(labels.structures, 0)
    total = dict.fromkeys(labels.structures, 0)
    parts = ((*part, unlabelled) for logits, codes, unlabelled in results for part in in_slabs(logits, codes))
    for logits, codes, unlabelled in parts:
        logits = logits.logits() if isinstance(logits, Scores) else logits
        valid = codes >= 0
        winner = None if labels.has_regions else logits.argmax(dim=1)
        for i, (name, members) in enumerate(zip(labels.structures, labels.structure_codes, strict=True)):
            counted = valid if unlabelled is None else valid & ~unlabelled[:, i, None, None, None]
            truth = torch.isin(codes, torch.tensor(members, device=codes.device)) & counted
            found = (logits[:, i] > 0 if labels.has_regions else winner == i + 1) & counted
            both[name] += int((truth & found).sum())
            total[name] += int(truth.sum() + found.sum())
    counts = summed([*both.values(), *total.values()])
    pairs = zip(labels.structures, counts[: len(both)], counts[len(both) :], strict=True)
    return {name: 2 * common / voxels if voxels else None for name, common, voxels in pairs}


def _validation_patches(task: FoldTask, there: Cases, ranks: Ranks) -> list[Batch]:
    """One fixed patch, without augmentation, from each of a few validation cases (training cases if there are none).

    The patches are distributed over the ranks.
    """
    names = task.validation or task.training
    most = min(task.recipe.validation_patches, len(names))
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]
    plain = replace(task.recipe, augmentation="none", batch_size=1, foreground=1.0, patch_curriculum=(), restoration_weight=0.0)
    return [
        make_batch([there.open(name)], task.plan, plain, task.labels, task.seed, step, 1.0)
        for step, name in ranks.share(list(enumerate(chosen)))
    ]


def _step_reached(folder: Path) -> int:
    state = read_state(folder / CHECKPOINT)
    return state.step if state else 0
