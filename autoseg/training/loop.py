"""The training loop, in one function.

Each pass takes a batch and makes a step. From time to time it measures the validation loss with the averaged weights, writes a
line of history, and saves a checkpoint. Everything is passed in: the network, the batches, the validation batches, the
recipe, the length, the device. A resumed run continues exactly where it stopped: batch number ``step`` is always the same
batch.

Several processes may train together (``ranks``). They make the same steps. After each step, the first one shares its clock, and
all share whether one was asked to stop, so that all do the same thing next.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from autoseg.engines import default_workers, on_stop_signals
from autoseg.errors import TrainingError
from autoseg.networks.devices import Applied
from autoseg.records import Validation
from autoseg.training.batch import Batch
from autoseg.training.checkpoint import LoopState, load_checkpoint, refuse_other, save_checkpoint
from autoseg.training.length import Length
from autoseg.training.losses import deep_supervision_loss, restoration_loss
from autoseg.training.optimizers import build_optimizers, descend, set_pace
from autoseg.training.passes import Passes
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.recipe import (
    Recipe,
    ema_decay,
    learning_rate_factor,
    momentum_for,
    over_at,
    restoration_weight,
)

__all__ = ["Fitted", "Job", "Length", "NotFinite", "fit"]

logger = logging.getLogger(__name__)

ACCELERATOR_THREADS = 3  # threads that make batches
CHECKS_SHARE = 0.2  # largest fraction of the time for validation losses, if the length is a time

State = dict[str, torch.Tensor]  # tensors of a network, by name
MakeBatch = Callable[[int, float, float], Batch]  # (step, fraction of the training, steps left) -> batch
Loss = Callable[..., torch.Tensor]  # (logits, codes) -> scalar; with ``whole`` and ``unlabelled`` as in losses.LOSSES
Result = tuple[Any, torch.Tensor, torch.Tensor | None]  # logits, codes, unlabelled
Score = Callable[[Iterable[Result]], dict[str, float | None]]  # results one by one -> scores by name


class NotFinite(TrainingError):
    """A loss or a weight became NaN or infinite; ``step`` is the step of the batch that caused it."""

    def __init__(self, step: int, what: str, recipe: Recipe) -> None:
        self.step = step
        rates = {name: getattr(recipe, name) for name in ("learning_rate", "muon_learning_rate", "attention_rate")}
        lower = " ".join(f"--set {name}={rate / 3:.2g}" for name, rate in rates.items() if rate)
        super().__init__(
            f"step {step}: {what}. The last checkpoint is whole; start again with lower learning rates, such as {lower} "
            "--fresh, and run autoseg verify on the data"
        )


@dataclass(frozen=True, eq=False)
class Job:
    """A training run without its network and its batches.

    Attributes:
        recipe: how to train.
        length: how long to train.
        loss: function of logits and codes.
        score: function of an iterator of validation results, for the history.
        device: device of the network.
        identity: digest of what is trained; a checkpoint of another identity is refused.
        checkpoint: file to write, and to resume from if it exists.
        prepare: (network, precision) -> Applied: ``prepare_for`` with its other arguments fixed.
        frozen: parameters that are not trained before ``Recipe.freeze_until``.
        ranks: the processes that train together; batches and validation batches are those of this process.
        after_step: called after each step.
    """

    recipe: Recipe
    length: Length
    loss: Loss
    score: Score
    device: torch.device
    identity: str
    checkpoint: Path
    prepare: Callable[[torch.nn.Module, str], Applied]
    frozen: tuple[torch.nn.Parameter, ...] = ()
    ranks: Ranks = ALONE
    after_step: Callable[[], object] = lambda: None

    @property
    def divided(self) -> bool:
        """Whether all ranks divide one batch."""
        return self.ranks.count > 1 and self.recipe.divide_batch


@dataclass(frozen=True, eq=False)
class Fitted:
    """The result of a training run.

    Attributes:
        state: LoopState at the end.
        weights: the final weights, a state dictionary on the CPU (averaged if the recipe averages).
        applied: changes to the network for the device.
    """

    state: LoopState
    weights: State
    applied: Applied


def fit(
    network: torch.nn.Module,
    batch: MakeBatch,
    validation: Sequence[Batch],
    job: Job,
    on_check: Callable[[Validation], object] = lambda row: None,
) -> Fitted:
    """Train until the length is used up or the validation loss has settled.

    Args:
        network: module on the job's device; ``network(x, every_scale=True)`` gives the logits of every scale.
        batch: makes the batch of a step, on the CPU or on the device. It runs in a thread; its exception ends the training run.
        validation: batches for the validation loss; at least one on some rank.
        job: everything else.
        on_check: called with each row of history.

    Returns:
        Fitted

    Raises:
        NotFinite: a loss or a weight is NaN or infinite; the previous checkpoint is kept.
        TrainingError: the checkpoint belongs to other settings. Withdrawn: another rank ended.
    """
    recipe, length, ranks = job.recipe, job.length, job.ranks
    optimizers = build_optimizers(network, recipe)
    state, averaged, precision = _begin(network, job, optimizers)
    applied = _prepared(network, job, precision)
    state = replace(state, bf16=applied.bf16)

    voxels = _voxels_of_a_batch(batch, job) if length.seconds and not state.finished else []
    passes = _passes(network, job, state.bf16)
    losses = [torch.tensor(loss, device=job.device) for loss in state.losses]
    since, saved = time.monotonic() - state.seconds, time.monotonic()
    begun, checking, stop = time.monotonic(), 0.0, 0.0
    with _Ahead(batch, job, state) as ahead, _stop_signals() as stopped:
        while not state.finished and not stop:
            rate = learning_rate_factor(recipe, length.fraction(state), state.cooldown)
            if rate is None:
                state = replace(state, finished=True)
                break
            losses.append(_step(passes, optimizers, ahead.take(state), rate, job, state))
            _refuse_unless_finite(losses[-2:-1], state.step - 1, recipe)  # the last one may still be computing
            _average(averaged, network, ema_decay(state.steps_expected, state.step))
            now = time.monotonic()
            times = [now - since, checking <= CHECKS_SHARE * (now - begun), now - saved > 60 * recipe.checkpoint_minutes]
            seconds, cheap, due, stop = ranks.told(times, bool(stopped))
            state = replace(state, step=state.step + 1, seconds=seconds)
            state = replace(state, steps_expected=_steps_expected(length, state, voxels))
            reached = length.fraction(state)
            if reached >= (state.checks + 1) / (recipe.validations or 1) and (length.steps or reached >= 1 or cheap):
                _refuse_unless_finite(losses[-1:], state.step - 1, recipe)
                checking -= time.monotonic()
                row, state = _check(network, averaged, validation, job, state, torch.stack(losses).mean().item(), rate)
                checking += time.monotonic()
                (seconds,) = ranks.from_first([time.monotonic() - since])
                losses, state = [], replace(state, seconds=seconds)
                on_check(row)
            if due:
                _refuse_unless_finite(losses[-1:], state.step - 1, recipe)
                _save_finite(job, _with_losses(state, losses, ranks), network, averaged, optimizers)
                saved = time.monotonic()
            job.after_step()
    _refuse_unless_finite(losses[-1:], state.step - 1, recipe)
    _save_finite(job, _with_losses(state, losses, ranks), network, averaged, optimizers)
    if stop:
        logger.info("stopped at step %d; the same command goes on from there", state.step)
        raise KeyboardInterrupt
    weights = averaged or network.state_dict()
    return Fitted(state, {name: t.detach().to("cpu", copy=True).contiguous() for name, t in weights.items()}, applied)


def _begin(network: torch.nn.Module, job: Job, optimizers: Mapping[str, torch.optim.Optimizer]) -> tuple[LoopState, State, str]:
    """(state, averaged weights, precision) of the checkpoint, which also fills network and optimisers; else new ones."""
    wanted = {None: "auto", True: "bf16", False: "fp32"}[job.recipe.bf16]
    if not job.checkpoint.is_file():
        job.ranks.refuse_unless_same(f"the checkpoint {job.checkpoint.name}", "none")
        steps, threads = job.length.steps or 1, torch.get_num_threads()
        state = LoopState(identity=job.identity, steps_expected=steps, bf16=False, threads=threads)
        averaged = {name: t.detach().clone() for name, t in network.state_dict().items()} if job.recipe.ema else {}
        return state, averaged, wanted
    state, averaged = load_checkpoint(job.checkpoint, network, optimizers.values())
    refuse_other(job.checkpoint, state, job.identity)
    job.ranks.refuse_unless_same(f"the checkpoint {job.checkpoint.name}", f"step {state.step}, {state.seconds:.3f} s")
    logger.info("resuming at step %d after %.1f min", state.step, state.seconds / 60)
    precision = "bf16" if state.bf16 and wanted != "fp32" else "fp32"  # the checkpoint may come from another machine
    return state, {name: t.to(job.device) for name, t in averaged.items()}, precision


def _prepared(network: torch.nn.Module, job: Job, precision: str) -> Applied:
    """The network prepared for its device, in the number format that the first rank finds fastest."""
    first = job.prepare(network, precision) if job.ranks.is_first else None
    (bf16,) = job.ranks.from_first([first.bf16 if first else False])
    applied = first or job.prepare(network, "bf16" if bf16 else "fp32")
    logger.info("%s", applied)
    return applied


def _passes(network: torch.nn.Module, job: Job, bf16: bool) -> Passes:
    """Forward and backward passes. With several ranks, gradients are those of all samples together.

    Each rank computes the whole loss of a divided batch, but only the gradients of its own samples. DistributedDataParallel
    takes the mean over the ranks where the sum is needed, so the loss is multiplied by the number of ranks. It needs the
    CPU between kernels, so no CUDA graph is recorded.
    """
    objective = job.ranks.wrapped(_Objective(network, job, bf16))
    scale = float(job.ranks.count) if job.divided else 1.0
    return Passes(objective, list(network.parameters()), job.device, scale=scale, records=job.ranks.count == 1)


class _Objective(torch.nn.Module):
    """The loss of a batch as the forward pass of one module, which can be wrapped for several devices."""

    def __init__(self, network: torch.nn.Module, job: Job, bf16: bool) -> None:
        super().__init__()
        self.network, self.job, self.bf16 = network, job, bf16

    def forward(self, batch: Batch, weight: float) -> torch.Tensor:
        return _loss(self.network, batch, weight, self.job, self.bf16)


def _voxels_of_a_batch(batch: MakeBatch, job: Job) -> list[tuple[float, float]]:
    """(until, voxels) of each stage of the patch-size curriculum, ``until`` as a fraction of the run; the same on all ranks."""
    ends = [*(stage.until for stage in job.recipe.patch_curriculum or ()), 1.0]
    counts = [batch(0, begin, 0).images.numel() for begin in (0.0, *ends[:-1])]
    return list(zip(ends, job.ranks.highest(counts), strict=True))


def _steps_expected(length: Length, state: LoopState, voxels: Sequence[tuple[float, float]]) -> int:
    """Steps of the whole run: as given, or as many as its seconds allow at the pace so far, at equal cost per voxel."""
    if length.steps:
        return length.steps
    reached, done, whole, begin = length.fraction(state), 0.0, 0.0, 0.0
    for end, count in voxels:
        done += max(0.0, min(reached, end) - begin) / count
        whole += (end - begin) / count
        begin = end
    return max(state.step, round(state.step * whole / done))


def _loss(network: torch.nn.Module, batch: Batch, weight: float, job: Job, bf16: bool) -> torch.Tensor:
    """The loss of a batch: the segmentation loss, plus ``weight`` times the restoration loss if there is one."""
    every_scale, kind = job.recipe.deep_supervision, job.device.type
    whole = job.ranks.whole if job.divided else None
    loss = _loss_of(batch, job)
    loss = partial(loss, whole=whole) if whole else loss
    with torch.autocast(kind, torch.bfloat16, enabled=bf16):
        logits = network(batch.images, every_scale=every_scale)
    total: torch.Tensor = deep_supervision_loss(loss, logits if every_scale else [logits], batch.codes)
    if batch.lesson is not None:
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            _, restored = network(batch.lesson.degraded, restore=batch.lesson.slices)
        total = total + weight * restoration_loss(restored, batch.lesson.clean, whole)
    return total


def _loss_of(batch: Batch, job: Job) -> Loss:
    """The job's loss function, with the unlabelled structures of the batch."""
    return job.loss if batch.unlabelled is None else partial(job.loss, unlabelled=batch.unlabelled)


def _step(
    passes: Passes,
    optimizers: Mapping[str, torch.optim.Optimizer],
    batch: Batch,
    rate: float,
    job: Job,
    state: LoopState,
) -> torch.Tensor:
    """Make one optimiser step. Returns the loss as a tensor, which a GPU may still be computing."""
    weight = restoration_weight(job.recipe, job.length.fraction(state))
    set_pace(optimizers, job.recipe, rate, state.steps_expected)
    with job.ranks.watched():
        total = passes(batch.to(job.device), weight)
    if job.frozen and job.length.fraction(state) < job.recipe.freeze_until:
        for parameter in job.frozen:
            parameter.grad = None  # optimisers skip it
    descend(optimizers, job.recipe, weight)
    return total


def _with_losses(state: LoopState, losses: Sequence[torch.Tensor], ranks: Ranks) -> LoopState:
    """The state with the losses since the last validation, averaged over ranks. A row of history has their mean."""
    own = torch.stack(list(losses)).tolist() if losses else []
    return replace(state, losses=tuple(ranks.summed([loss / ranks.count for loss in own])) if own else ())


def _refuse_unless_finite(losses: Sequence[torch.Tensor], step: int, recipe: Recipe) -> None:
    """Raise NotFinite unless the losses, of one step or none, are finite."""
    for value in (tensor.item() for tensor in losses):
        if not math.isfinite(value):
            raise NotFinite(step, f"the loss is {value}", recipe)


def _save_finite(
    job: Job, state: LoopState, network: torch.nn.Module, averaged: State, optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Write the checkpoint, unless a weight is NaN or infinite; then the previous checkpoint stays. All ranks have the same
    weights, and the first one writes them."""
    if not job.ranks.is_first:
        return
    for name, tensor in (*network.state_dict().items(), *averaged.items()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NotFinite(max(0, state.step - 1), f"the weights of {name} are not finite", job.recipe)
    save_checkpoint(job.checkpoint, state, network, averaged, optimizers.values())


def _average(averaged: State, network: torch.nn.Module, decay: float) -> None:
    """Move the averaged tensors (a dictionary by name) towards those of the network; whole numbers are copied."""
    now = network.state_dict()
    moving = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
    if moving:
        get_ema_multi_avg_fn(decay)([averaged[name] for name in moving], [now[name] for name in moving], None)
    for name in averaged.keys() - set(moving):
        averaged[name].copy_(now[name])


@torch.no_grad()
def _check(
    network: torch.nn.Module,
    averaged: State,
    validation: Sequence[Batch],
    job: Job,
    state: LoopState,
    train_loss: float,
    rate: float,
) -> tuple[Validation, LoopState]:
    """Measure the validation loss with the averaged weights, and decide whether the rate falls early."""
    trained = {name: t.detach().clone() for name, t in network.state_dict().items()}
    network.load_state_dict(averaged or trained)
    network.eval()
    losses: list[float] = []

    def results() -> Iterator[Result]:
        # one at a time: with many labels even the logits of a few patches fill the memory
        for one in validation:
            batch = one.to(job.device)
            with torch.autocast(job.device.type, torch.bfloat16, enabled=state.bf16):
                logits = network(batch.images).float()
            losses.append(_loss_of(batch, job)(logits, batch.codes).item())
            yield logits, batch.codes, batch.unlabelled

    dice = job.score(results())
    network.load_state_dict(trained)
    network.train()
    total, count, train_loss = job.ranks.summed([sum(losses), len(losses), train_loss / job.ranks.count])
    value = total / count
    if not math.isfinite(value):
        raise NotFinite(max(0, state.step - 1), f"the validation loss is {value}", job.recipe)
    smoothed = value if state.smoothed is None else 0.5 * (state.smoothed + value)
    better = state.best is None or smoothed < state.best - 1e-3 * abs(state.best)
    since_best = 0 if better else state.since_best + 1
    recipe, fraction, cooldown = job.recipe, job.length.fraction(state), state.cooldown
    settled = recipe.patience is not None and since_best >= recipe.patience
    if settled and cooldown is None and fraction < recipe.constant_until:
        cooldown = fraction
    row = Validation(
        step=state.step,
        seconds=round(state.seconds, 1),
        fraction=round(fraction, 4),
        validation_loss=value,
        patch_dice=dice,
        cooldown=cooldown,
        train_loss=train_loss,
        learning_rate=recipe.learning_rate * rate,
        momentum=momentum_for(recipe, state.steps_expected),
    )
    state = replace(
        state,
        checks=int(fraction * (recipe.validations or 1) + 1e-9),
        smoothed=smoothed,
        best=smoothed if better else state.best,
        since_best=since_best,
        cooldown=cooldown,
    )
    return row, state


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is not empty after a stop signal, so that the current step can finish."""
    stopped: list[int] = []
    with on_stop_signals(lambda number, frame: stopped.append(number)):
        yield stopped


class _Ahead:
    """Batches made in threads while the device works. ``take`` raises the exceptions of these threads.

    Training on a CPU has one such thread, because it needs the cores itself; training on an accelerator has a few. Each thread
    uses one core: a second team of threads on the same cores would make training on a CPU wait. Many threads make fewer
    batches than a few, because they wait for the interpreter (docs/experiments/first-gpu-runs.md). Their work on a CUDA device
    has priority over the training.
    """

    def __init__(self, batch: MakeBatch, job: Job, state: LoopState) -> None:
        self.batch, self.job = batch, job
        threads = 1 if job.device.type == "cpu" else min(ACCELERATOR_THREADS, default_workers())
        self.depth = 1 + threads
        self.pool = ThreadPoolExecutor(threads, initializer=_begin_thread, initargs=(job.device,))
        self.next, self.cooldown = state.step, state.cooldown
        self.pending = deque[Future[Batch]]()

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def take(self, state: LoopState) -> Batch:
        if state.cooldown != self.cooldown:  # from now on patches have the full size
            self.cooldown, self.next = state.cooldown, state.step
            self.pending.clear()
        while len(self.pending) < self.depth:
            ahead = replace(state, step=self.next)  # a length in steps gives the fraction of that batch, in seconds that of now
            fraction = self.job.length.fraction(ahead)
            left = state.steps_expected * (over_at(self.job.recipe, state.cooldown) - fraction)
            fraction = fraction if state.cooldown is None else 1.0
            self.pending.append(self.pool.submit(self._make, self.next, fraction, left))
            self.next += 1
        batch = self.pending.popleft().result()
        for tensor in (t for t in batch.tensors if t.is_cuda):
            tensor.record_stream(torch.cuda.current_stream(self.job.device))  # keeps its memory until training has read it
        return batch

    def _make(self, step: int, fraction: float, left: float) -> Batch:
        batch = self.batch(step, fraction, left)
        if self.job.device.type == "cuda":
            torch.cuda.current_stream(self.job.device).synchronize()  # stream of this thread: the batch is complete
        return batch


def _begin_thread(device: torch.device) -> None:
    torch.set_num_threads(1)  # for this thread
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device, priority=-1))
