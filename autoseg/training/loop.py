"""The training loop, in one visible function.

A pass is what it looks like: take a batch, step, and every so often measure the validation loss with the averaged weights,
write a line of history, and save a checkpoint. Everything arrives from outside: the network, the batches, the
validation batches, the recipe, the length, the device. A resumed training goes on exactly where it was: batch number
``step`` is always the same batch.
"""

import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from autoseg.engines import default_workers, on_stop_signals
from autoseg.errors import TrainingError
from autoseg.networks.channels_last import put_channels_last
from autoseg.networks.machine import faster_in_bf16, give_to_onednn
from autoseg.training.checkpoint import LoopState, load_checkpoint, save_checkpoint
from autoseg.training.losses import deep_supervision_loss, restoration_loss
from autoseg.training.optimizers import build_optimizers, descend, set_pace
from autoseg.training.passes import Passes
from autoseg.training.recipe import Recipe, ema_decay, learning_rate_factor, momentum_for, over_at, restoration_weight

__all__ = ["Length", "NotFinite", "fit"]

ACCELERATOR_THREADS = 3  # that make batches
CHECKS_SHARE = 0.2  # of the time, at most, for validation losses where the length is a time


class NotFinite(TrainingError):
    """A loss or a weight is not a number any more: ``step`` is the one whose batch it came with."""

    def __init__(self, step: int, what: str, recipe: Recipe) -> None:
        self.step = step
        rates = {name: getattr(recipe, name) for name in ("learning_rate", "kernel_rate", "attention_rate")}
        lower = " ".join(f"--set {name}={rate / 3:.2g}" for name, rate in rates.items() if rate)
        super().__init__(
            f"step {step}: {what}. The last checkpoint is whole; start anew with lower learning rates, such as {lower} "
            "--fresh, and run autoseg verify on the data"
        )


@dataclass(frozen=True)
class Length:
    """How long to train: so many ``seconds``, or so many ``steps``; one of them is None."""

    seconds: float | None = None
    steps: int | None = None

    def fraction(self, state):
        """Share of the length that is used up."""
        return state.step / self.steps if self.steps else state.seconds / self.seconds


def fit(
    network, batch, validation, recipe, length, *, loss, score, device, identity, checkpoint, on_check=None, say=lambda t: None
):
    """Train until the length is used up or the validation loss has settled.

    Args:
        network: module on ``device``; ``network(x, every_scale=True)`` gives the logits of every scale.
        batch: function (step, fraction, steps left) -> (images (B, C, Z, Y, X), codes (B, Z, Y, X)), on the CPU or
            on ``device``, and what ``make_batch`` adds where images are to be restored; a failure ends the training with its
            cause, although it runs in a thread.
        validation: list of (images, codes), measured at every check.
        recipe: Recipe.
        length: Length.
        loss: function (logits, codes) -> scalar tensor.
        score: function (iterable of (logits, codes), used up) -> dictionary name -> value or None, for the history.
        device: torch.device.
        identity: digest of what is trained; a checkpoint of another identity is refused.
        checkpoint: path; resumed from where it exists.
        on_check: called with each row of history.
        say: called with sentences for the log.

    Returns:
        (LoopState, weights): the weights to use, a state dictionary on the CPU (averaged ones if the recipe averages).

    Raises:
        NotFinite: a loss or a weight is not a number; the last checkpoint before is kept.
        TrainingError: the checkpoint belongs to other settings.
    """
    optimizers = build_optimizers(network, recipe)
    if checkpoint.is_file():
        state, averaged = load_checkpoint(checkpoint, network, optimizers.values())
        if state.identity != identity:
            raise TrainingError(
                f"{checkpoint} was made with other settings, data or plan. Continue with the old settings, give the run "
                "another --name, or start it anew with --fresh"
            )
        averaged = {name: t.to(device) for name, t in averaged.items()}
        state = replace(state, bf16=state.bf16 and recipe.bf16 is not False)  # it may come from another machine
        say(f"resuming at step {state.step} after {state.seconds / 60:.1f} min")
    else:
        state = _begin(network, batch, recipe, length, device, identity)
        averaged = {name: t.detach().clone() for name, t in network.state_dict().items()} if recipe.ema else {}
    say("bfloat16" if state.bf16 else "float32")
    if device.type == "cpu" and not state.bf16:
        put_channels_last(network)
        give_to_onednn(network)

    voxels = _voxels_of_a_batch(batch, recipe) if length.seconds and not state.finished else []
    run = partial(_loss, network, loss=loss, recipe=recipe, device=device, bf16=state.bf16)
    passes = Passes(run, list(network.parameters()), device, say)
    losses, since, saved = [], time.monotonic() - state.seconds, time.monotonic()
    begun, checking = time.monotonic(), 0.0
    with _Ahead(batch, recipe, length, state, device) as ahead, _stop_signals() as stopped:
        while not state.finished and not stopped:
            rate = learning_rate_factor(recipe, length.fraction(state), state.cooldown)
            if rate is None:
                state = replace(state, finished=True)
                break
            weight = restoration_weight(recipe, length.fraction(state))
            losses.append(_step(passes, optimizers, ahead.take(state), recipe, rate, weight, device, state))
            _refuse_unless_finite(losses[-2:-1], state.step - 1, recipe)  # the last one may still be in the making
            _average(averaged, network, ema_decay(state.steps_expected, state.step))
            state = replace(state, step=state.step + 1, seconds=time.monotonic() - since)
            state = replace(state, steps_expected=_steps_expected(length, state, voxels))
            reached = length.fraction(state)
            affordable = length.steps or reached >= 1 or checking <= CHECKS_SHARE * (time.monotonic() - begun)
            if reached >= (state.checks + 1) / recipe.checks and affordable:
                _refuse_unless_finite(losses[-1:], state.step - 1, recipe)
                checking -= time.monotonic()
                row, state = _check(network, averaged, validation, loss, score, recipe, length, device, state)
                checking += time.monotonic()
                row |= {"train_loss": torch.stack(losses).mean().item(), "learning_rate": recipe.learning_rate * rate}
                row |= {"momentum": momentum_for(recipe, state.steps_expected)}
                losses, state = [], replace(state, seconds=time.monotonic() - since)
                if on_check:
                    on_check(row)
            if time.monotonic() - saved > 60 * recipe.checkpoint_minutes:
                _refuse_unless_finite(losses[-1:], state.step - 1, recipe)
                _save_finite(checkpoint, state, network, averaged, optimizers, recipe)
                saved = time.monotonic()
    _refuse_unless_finite(losses[-1:], state.step - 1, recipe)
    _save_finite(checkpoint, state, network, averaged, optimizers, recipe)
    if stopped:
        say(f"stopped at step {state.step}; the same command goes on from there")
        raise KeyboardInterrupt
    weights = averaged or network.state_dict()
    return state, {name: t.detach().to("cpu", copy=True).contiguous() for name, t in weights.items()}


def _begin(network, batch, recipe, length, device, identity):
    """The first state, with the number format from a probe."""
    bf16 = recipe.bf16
    if bf16 is None:
        bf16 = faster_in_bf16(network, batch(0, 1.0, 0)[0].shape[1:], device, training=True)
    return LoopState(identity=identity, steps_expected=length.steps or 1, bf16=bf16)


def _voxels_of_a_batch(batch, recipe):
    """(until, voxels) of each stage of the patch size, ``until`` as a fraction of the training."""
    ends = [*(stage.until for stage in recipe.patch_stages), 1.0]
    return [(end, batch(0, begin, 0)[0].numel()) for begin, end in zip([0.0, *ends], ends, strict=False)]


def _steps_expected(length, state, voxels):
    """Steps of the whole training: those given, or as many as its seconds allow at the pace so far, if voxels cost alike."""
    if length.steps:
        return length.steps
    reached, done, whole, begin = length.fraction(state), 0.0, 0.0, 0.0
    for end, count in voxels:
        done += max(0.0, min(reached, end) - begin) / count
        whole += (end - begin) / count
        begin = end
    return max(state.step, round(state.step * whole / done))


def _loss(network, tensors, weight, *, loss, recipe, device, bf16):
    """The loss of a batch: that of the segmentation, and ``weight`` times that of the restoration where there is one."""
    images, codes, *restoring = tensors
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = network(images, every_scale=recipe.deep_supervision)
    total = deep_supervision_loss(loss, logits if recipe.deep_supervision else [logits], codes)
    if restoring:
        degraded, clean, slices = restoring
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            _, restored = network(degraded, restore=slices)
        total = total + weight * restoration_loss(restored, clean)
    return total


def _step(passes, optimizers, tensors, recipe, rate, weight, device, state):
    """One optimiser step; the loss as a tensor, which a GPU may still be computing."""
    set_pace(optimizers, recipe, rate, state.steps_expected)
    tensors = [tensor.to(device, non_blocking=True) for tensor in tensors]
    total = passes(tensors, weight, same=len(tensors) == 2)  # restoring depends on what the slices are like
    descend(optimizers, recipe, weight)
    return total


def _refuse_unless_finite(losses, step, recipe):
    """Losses of one step or none."""
    for value in (tensor.item() for tensor in losses):
        if not math.isfinite(value):
            raise NotFinite(step, f"the loss is {value}", recipe)


def _save_finite(checkpoint, state, network, averaged, optimizers, recipe):
    """Write the checkpoint, unless a weight is not a number: the last one, which is good, stays then."""
    for name, tensor in (*network.state_dict().items(), *averaged.items()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NotFinite(max(0, state.step - 1), f"the weights of {name} are not finite", recipe)
    save_checkpoint(checkpoint, state, network, averaged, optimizers.values())


def _average(averaged, network, decay):
    """Move the averaged tensors (a dictionary by name) towards those of the network; whole numbers are copied."""
    now = network.state_dict()
    moving = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
    if moving:
        get_ema_multi_avg_fn(decay)([averaged[name] for name in moving], [now[name] for name in moving], None)
    for name in averaged.keys() - set(moving):
        averaged[name].copy_(now[name])


@torch.no_grad()
def _check(network, averaged, validation, loss, score, recipe, length, device, state):
    """Validation loss with the averaged weights, and what follows from it for the length."""
    trained = {name: t.detach().clone() for name, t in network.state_dict().items()}
    network.load_state_dict(averaged or trained)
    network.eval()
    losses = []

    def results():  # one after the other: with many labels even the logits of a few patches fill the memory
        for images, codes in validation:
            with torch.autocast(device.type, torch.bfloat16, enabled=state.bf16):
                logits = network(images.to(device)).float()
            codes = codes.to(device)
            losses.append(loss(logits, codes).item())
            yield logits, codes

    dice = score(results())
    network.load_state_dict(trained)
    network.train()
    value = sum(losses) / len(losses)
    if not math.isfinite(value):
        raise NotFinite(max(0, state.step - 1), f"the validation loss is {value}", recipe)
    smoothed = value if state.smoothed is None else 0.5 * (state.smoothed + value)
    better = state.best is None or smoothed < state.best - 1e-3 * abs(state.best)
    since_best = 0 if better else state.since_best + 1
    fraction = length.fraction(state)
    cooldown = state.cooldown
    settled = recipe.patience is not None and since_best >= recipe.patience
    if settled and cooldown is None and fraction < recipe.hold:
        cooldown = fraction
    row = {
        "step": state.step,
        "seconds": round(state.seconds, 1),
        "fraction": round(fraction, 4),
        "validation_loss": value,
        "patch_dice": dice,
        "cooldown": cooldown,
    }
    state = replace(
        state,
        checks=int(fraction * recipe.checks + 1e-9),
        smoothed=smoothed,
        best=smoothed if better else state.best,
        since_best=since_best,
        cooldown=cooldown,
    )
    return row, state


@contextmanager
def _stop_signals():
    """A list that is not empty once somebody asked to stop, so that the step in hand is finished."""
    stopped = []
    with on_stop_signals(lambda number, frame: stopped.append(number)):
        yield stopped


class _Ahead:
    """Batches made in threads while the device works; ``take`` raises whatever went wrong in the making.

    One thread beside a CPU training, which needs the cores itself; a few beside an accelerator. Each computes on one core: a
    second team of threads on the same cores would make a CPU training wait for it. More threads than a few make fewer batches,
    because they wait for the interpreter (EXPERIMENTS.md). What they have a CUDA device do goes before the training.
    """

    def __init__(self, batch, recipe, length, state, device):
        self.batch, self.recipe, self.length, self.device = batch, recipe, length, device
        threads = 1 if device.type == "cpu" else min(ACCELERATOR_THREADS, default_workers())
        self.depth = 1 + threads
        self.pool = ThreadPoolExecutor(threads, initializer=_begin_thread, initargs=(device,))
        self.next, self.cooldown = state.step, state.cooldown
        self.pending = deque()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.pool.shutdown(wait=True, cancel_futures=True)

    def take(self, state):
        if state.cooldown != self.cooldown:  # patches are whole from now on
            self.cooldown, self.next = state.cooldown, state.step
            self.pending.clear()
        while len(self.pending) < self.depth:
            ahead = replace(state, step=self.next)  # by steps the fraction is that batch's own, by time it is now's
            fraction = self.length.fraction(ahead)
            left = state.steps_expected * (over_at(self.recipe, state.cooldown) - fraction)
            fraction = fraction if state.cooldown is None else 1.0
            self.pending.append(self.pool.submit(self._make, self.next, fraction, left))
            self.next += 1
        tensors = self.pending.popleft().result()
        for tensor in (t for t in tensors if t.is_cuda):
            tensor.record_stream(torch.cuda.current_stream(self.device))  # its memory is in use until the training read it
        return tensors

    def _make(self, step, fraction, left):
        tensors = self.batch(step, fraction, left)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # of this thread: the batch is complete
        return tensors


def _begin_thread(device):
    torch.set_num_threads(1)  # for this thread
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device, priority=-1))
