"""One fold of a training: prepared cases in, weights out.

This file puts the parts together (batches, validation patches, loss, history) and hands them to ``loop.fit``.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from autoseg.data.labels import LabelSchema
from autoseg.errors import TrainingError
from autoseg.networks import Scores, build_network
from autoseg.networks.devices import prepare_for
from autoseg.preprocess.store import loaded, open_case
from autoseg.training.batches import make_batch
from autoseg.training.checkpoint import LoopState, read_state
from autoseg.training.loop import Length, fit
from autoseg.training.losses import LOSSES, in_slabs
from autoseg.training.memory import refuse_too_large
from autoseg.training.monitor import append_history, plot_history, read_history, trim_history
from autoseg.training.recipe import Recipe, is_plain, patch_stage, steps_of_an_epoch, with_batch_size
from planners.cost import prefers_lazy_logits
from planners.plan import Plan
from planners.records import digest

__all__ = ["FoldTask", "TrainedFold", "train_fold"]

KEPT_BYTES = 2**30  # of cases in memory: a GPU takes patches faster than blocks can be unpacked
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
    recipe = with_batch_size(task.recipe, task.plan, device.type)
    task = replace(task, recipe=recipe)
    refuse_too_large(task.plan.network, task.plan.patch_size, recipe.batch_size, device, bf16=recipe.bf16 is not False)
    torch.manual_seed(task.seed)
    lazy, detached = prefers_lazy_logits(task.plan.network), recipe.restoration_detach
    network = build_network(task.plan.network, lazy_logits=lazy, restoration_detached=detached)
    if start_weights:
        say(load_matching(network, start_weights))
    network.to(device).train()

    cases = [open_case(prepared / name) for name in task.training]
    if device.type == "cuda":
        cases = loaded(cases, KEPT_BYTES)
    epoch = steps_of_an_epoch(recipe, task.plan, cases)

    def batch(step, fraction, left):
        plain = is_plain(recipe, fraction, left / epoch)
        where = device if device.type == "cuda" else "cpu"
        return make_batch(cases, task.plan, recipe, task.labels, task.seed, step, fraction, plain, where)

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

    state, weights = fit(
        network,
        batch,
        _validation_patches(task, prepared, recipe),
        recipe,
        task.length,
        loss=loss,
        score=partial(patch_dice, labels=task.labels),
        device=device,
        identity=digest(task),
        checkpoint=folder / "checkpoint.safetensors",
        on_check=on_check,
        prepare=partial(prepare_for, device, spec=task.plan.network, patches=_patches(recipe, task.plan), training=True),
        say=say,
    )
    rows = read_history(history)
    plot_history(rows, folder / "curves.png")
    return TrainedFold(weights, state, rows[-1] if rows else {})


def _patches(recipe: Recipe, plan: Plan) -> list[tuple[int, int, int]]:
    """The (z, y, x) voxels of the patches that a training passes through, the last ones at its end."""
    begins = (0.0, *(stage.until for stage in recipe.patch_stages))
    return [patch_stage(recipe, fraction, plan.patch_size, plan.network.divisor)[0] for fraction in begins]


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
