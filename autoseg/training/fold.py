"""One fold of a training: prepared cases in, weights out.

This file puts the parts together (batches, validation patches, loss, history) and hands them to ``loop.fit``.
"""

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from autoseg.data.labels import LabelSchema
from autoseg.errors import TrainingError
from autoseg.networks import Scores, build_network, finest_head, postpone_logits
from autoseg.networks.machine import keep_memory, unsafe_in_bf16
from autoseg.preprocess.store import loaded, open_case
from autoseg.training.batches import make_batch
from autoseg.training.checkpoint import LoopState, read_state
from autoseg.training.loop import Length, NotFinite, fit
from autoseg.training.losses import LOSSES, in_slabs
from autoseg.training.memory import refuse_too_large
from autoseg.training.monitor import append_history, plot_history, read_history, trim_history
from autoseg.training.recipe import Recipe, is_plain, patch_stage, steps_of_an_epoch, with_batch_size
from planners.plan import Plan
from planners.records import digest

__all__ = ["FoldTask", "TrainedFold", "train_fold"]

KEPT_BYTES = 2**30  # of cases in memory: a GPU takes patches faster than blocks can be unpacked
KEPT_STEPS = 64  # whose cases are remembered; more than are ever made ahead
CURVES_SECONDS = 20  # between two drawings of the curves, each of which takes a third of a second


@dataclass(frozen=True)
class FoldTask:
    """What is to be trained, as a value: its digest tells whether a checkpoint belongs to it.

    Attributes:
        plan: with the network to be trained.
        labels: meaning of the codes.
        recipe, length, seed: how.
        training, validation: identifiers of the prepared cases.
        prepared_digest: of the prepared cases.
        start: digest of the model the weights come from, or empty.
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


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """Weights (a state dictionary on the CPU), the state in which the training ended, and the last line of history."""

    weights: dict
    state: LoopState
    last_check: dict


def train_fold(task, *, prepared, folder, device, start_weights=None, say=lambda text: None):
    """Train, or go on with, the fold whose working files are in ``folder``.

    Args:
        task: FoldTask.
        prepared: folder of the prepared cases.
        folder: for ``checkpoint.safetensors``, ``history.jsonl`` and ``curves.png``.
        device: torch.device.
        start_weights: state dictionary to begin with; tensors of another name or shape are left as they are.
        say: called with sentences for the log.

    Returns:
        TrainedFold

    Raises:
        TrainingError: see ``loop.fit``; AutosegError for a damaged prepared case.
    """
    prepared, folder = Path(prepared), Path(folder)
    if device.type == "cpu":
        keep_memory()
    torch.backends.cudnn.benchmark = device.type == "cuda"  # patches keep their size for long
    recipe = with_batch_size(task.recipe, task.plan, device.type)
    task = replace(task, recipe=recipe)
    refuse_too_large(task.plan.network, task.plan.patch_size, recipe.batch_size, device, bf16=recipe.bf16 is not False)
    torch.manual_seed(task.seed)
    network = build_network(task.plan.network)
    if start_weights:
        say(load_matching(network, start_weights))
    if task.plan.network.restoration:
        network.restoration.detached = recipe.restoration_detach
    head = finest_head(network)
    if head is not None and head.in_channels < head.out_channels:
        postpone_logits(network)
    network.to(device).train()

    cases = [open_case(prepared / name) for name in task.training]
    if device.type == "cuda":
        cases = loaded(cases, KEPT_BYTES)
    epoch = steps_of_an_epoch(recipe, task.plan, cases)

    drawn_from = {}

    def batch(step, fraction, left):
        plain = is_plain(recipe, fraction, left / epoch)
        where = device if device.type == "cuda" else "cpu"
        drawn_from[step] = drawn = _Drawn(cases)
        drawn_from.pop(step - KEPT_STEPS, None)
        return make_batch(drawn, task.plan, recipe, task.labels, task.seed, step, fraction, plain, where)

    loss = partial(
        LOSSES[recipe.loss],
        batch_dice=task.plan.batch_dice,
        regions=task.labels.structure_codes if task.labels.has_regions else (),
    )
    history = folder / "history.jsonl"
    trim_history(history, _step_reached(folder))

    drawn = -CURVES_SECONDS

    def on_check(row):
        nonlocal drawn
        append_history(history, row)
        if time.monotonic() - drawn > CURVES_SECONDS:
            plot_history(read_history(history), folder / "curves.png")
            drawn = time.monotonic()
        dice = " ".join(f"{name} {value:.3f}" for name, value in row["patch_dice"].items() if value is not None)
        say(
            f"{row['fraction']:4.0%} step {row['step']} {row['seconds'] / 60:.1f} min "
            f"loss {row['train_loss']:.3f} validation {row['validation_loss']:.3f} Dice {dice}"
        )

    with _naming_cases(drawn_from):
        state, weights = fit(
            network,
            batch,
            _validation_patches(task, prepared, recipe),
            _in_a_safe_format(recipe, task.plan, device, say),
            task.length,
            loss=loss,
            score=partial(patch_dice, labels=task.labels),
            device=device,
            identity=digest(task),
            checkpoint=folder / "checkpoint.safetensors",
            on_check=on_check,
            say=say,
        )
    rows = read_history(history)
    plot_history(rows, folder / "curves.png")
    return TrainedFold(weights, state, rows[-1] if rows else {})


class _Drawn:
    """Prepared cases that note which of them were asked for."""

    def __init__(self, cases):
        self.cases, self.names = cases, []

    def __len__(self):
        return len(self.cases)

    def __getitem__(self, number):
        self.names.append(self.cases[number].case)
        return self.cases[number]


@contextmanager
def _naming_cases(drawn_from):
    """Name the cases of the batch after which something was not a number; ``drawn_from`` is {step: _Drawn}."""
    try:
        yield
    except NotFinite as fault:
        names = drawn_from[fault.step].names if fault.step in drawn_from else ()
        raise TrainingError(f"{fault}\nThe batch of that step: {', '.join(dict.fromkeys(names)) or 'not known'}") from fault


def _in_a_safe_format(recipe, plan, device, say):
    """The recipe, in float32 where bfloat16 would harm; not part of what a checkpoint belongs to, but of this machine."""
    begins = (0.0, *(stage.until for stage in recipe.patch_stages))
    patches = [patch_stage(recipe, fraction, plan.patch_size, plan.network.divisor)[0] for fraction in begins]
    if recipe.bf16 is False or not unsafe_in_bf16(plan.network, patches, device):
        return recipe
    say("float32, because torch writes beyond its memory when it trains thin patches in bfloat16 on this processor")
    return replace(recipe, bf16=False)


def load_matching(network, weights):
    """Copy the tensors that fit by name and shape into ``network``; a sentence that says how many did.

    Raises:
        TrainingError: none fits.
    """
    own = network.state_dict()
    fitting = {name: t for name, t in weights.items() if name in own and own[name].shape == t.shape}
    if not fitting:
        raise TrainingError("none of the model's weights fits this network. Use --network and --plan as it was trained with")
    network.load_state_dict(own | fitting)
    return f"starting from {len(fitting)} of {len(own)} tensors of the given model; the others are new"


def patch_dice(results, labels):
    """Dice of each structure over all validation patches together; None where it is in neither."""
    both, total = {}, {}
    for logits, codes in (part for whole in results for part in in_slabs(*whole)):
        logits = logits.logits() if isinstance(logits, Scores) else logits
        valid = codes >= 0
        winner = None if labels.has_regions else logits.argmax(dim=1)
        for i, (name, members) in enumerate(zip(labels.structures, labels.structure_codes, strict=True)):
            truth = torch.isin(codes, torch.tensor(members, device=codes.device)) & valid
            found = (logits[:, i] > 0 if labels.has_regions else winner == i + 1) & valid
            both[name] = both.get(name, 0) + int((truth & found).sum())
            total[name] = total.get(name, 0) + int(truth.sum() + found.sum())
    return {name: 2 * both[name] / total[name] if total[name] else None for name in labels.structures}


def _validation_patches(task, prepared, recipe):
    """One fixed patch, without augmentation, from each of a few validation cases (of training cases where there are none)."""
    names = task.validation or task.training
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(recipe.check_cases, len(names))).round().astype(int)]
    plain = replace(recipe, augmentation="none", batch_size=1, foreground=1.0, patch_stages=(), restoration_weight=0.0)
    return [
        make_batch([open_case(prepared / name)], task.plan, plain, task.labels, task.seed, step, 1.0)
        for step, name in enumerate(chosen)
    ]


def _step_reached(folder):
    state = read_state(folder / "checkpoint.safetensors")
    return state.step if state else 0
