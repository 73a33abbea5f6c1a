"""Every setting of a training run, in one frozen value that is stored with the run.

Lengths are fractions of the whole run, which may be given in minutes or in steps. The learning rate rises for ``warmup``, is
constant until ``constant_until``, and falls to zero with ``(1 - t) ** power``. When the validation loss stops falling before
that, the rest of the patch-size curriculum is skipped, the fall begins at once and is shortened in proportion: early stopping.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, get_type_hints

from autoseg.errors import TrainingError
from autoseg.registry import Registry
from planners.plan import Plan
from planners.records import RecordError, added, called, from_json

__all__ = [
    "RECIPES",
    "PatchStage",
    "Recipe",
    "changed",
    "is_augmentation_free",
    "learning_rate_factor",
    "momentum_for",
    "over_at",
    "patch_stage",
    "restoration_weight",
    "setting_names",
    "steps_of_an_epoch",
]

T = TypeVar("T")
MOST = 10**6  # of anything that a recipe counts
WIDTHS = (0.01, 4.0)  # of a network on a CPU, as fractions of the plan's


@dataclass(frozen=True)
class PatchStage:
    """Until the fraction ``until`` of the training, patches of ``scale`` times the edge and ``batch_factor`` times as many."""

    until: float
    scale: float
    batch_factor: int

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1 or not 0 < self.scale <= 1 or self.batch_factor < 1:
            raise ValueError("a patch stage needs until and scale in (0, 1] and a batch_factor of at least 1")


def _renamed(old: str, default: T) -> T:
    """A setting that earlier versions called ``old``: files keep that key, so that stored runs and digests stay as they are."""
    return field(default=default, metadata=called(old))


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: a name for the reader; nothing depends on it.
        learning_rate, weight_decay, clip_norm: of SGD with Nesterov momentum.
        muon_learning_rate: of Muon, which moves the kernels of the convolutions (``optimizers``); 0 leaves them to SGD.
        attention_rate: of Adam, which moves the slots, scales and gates of self-attention, while its matrices go with the
            kernels; 0 leaves all to SGD, which hardly opens the gates in short runs. That is the default, because open
            gates gained nothing where it was measured (docs/experiments/attention-open-gates.md); 0.005 opens them.
        momentum: of SGD and Muon; None fits it to the number of steps.
        warmup: fraction of the training over which the learning rate rises.
        constant_until: fraction up to which it is constant after that.
        power: of its fall to zero at the end.
        batch_size: None means the plan's.
        cpu_batch_size: largest batch on a CPU, where many small steps are better; None for no such limit.
        cpu_width: fraction of the plan's features that its network has on a CPU, for the same reason.
        mirror: along the plan's axes, in training and in prediction; None for runs that are long enough (``is_mirrored``).
        patch_curriculum: patch sizes over the run. None for smaller ones until the rate falls, two thirds of the cost; on a CPU
            they grow in more steps (``settle``).
        loss: a key of ``LOSSES``.
        deep_supervision: losses at every scale of the decoder.
        foreground: fraction of patches centred on a labelled voxel, rounded to whole samples of a batch: of two, one for any
            fraction between 0.25 and 0.75. In a batch of one it is the probability.
        augmentation: name of an augmentation preset.
        augmentation_free_epochs: length of the final phase with no augmentation but mirroring, in passes through the voxels
            of all cases; 0 for none. It begins when the rate falls, at the earliest. A longer phase would overfit.
        restoration_weight: of the loss of the head that restores the image, beside the segmentation's; 0 for no such head,
            which is the default, because it takes time that a segmentation alone does not need
            (docs/experiments/restoration-noise-too.md).
        restoration_rate: learning rate of the head's own Adam; it rises and falls with that of the segmentation.
        restoration_every: every so many steps, one also trains the head, with degraded patches; 1 for all.
        restoration_detach: no gradient of the head reaches the features of the segmentation.
        restoration_warmup: fraction of the training over which its weight rises from 0.
        ema: weights averaged over the steps are validated and saved; the decay fits the number of steps.
        validations: number of times that the validation loss is measured; None for 25, on a CPU for as many as cost little.
        validation_patches: largest number of validation cases for it, one patch each.
        patience: number of validations without progress after which the learning rate falls; None for never.
        checkpoint_minutes: minutes between two checkpoints.
        bf16: True, False, or None for a short probe of what is faster.
        freeze: parts of the network that are not trained at first, by the beginning of the names of their weights, such as
            ``encoder`` or ``encoder.stages.0``; ``taken`` for all that came unchanged from the model of ``--from``.
        freeze_until: fraction of the training for which they stay frozen; 1 for all of it.
        divide_batch: if several devices train together (``torchrun``), they divide the samples of one batch, and the
            training is that of one device; by default each takes a whole batch.
        devices_exponent: by default, several devices multiply all learning rates by this power of their number: 0.5 for the
            square root, 1 for a linear rule, 0 to leave the rates as they are.
    """

    name: str = "autoseg"
    learning_rate: float = 0.02
    muon_learning_rate: float = _renamed("kernel_rate", 0.03)
    attention_rate: float = 0.0
    momentum: float | None = None
    weight_decay: float = 3e-5
    clip_norm: float = 12.0
    warmup: float = 0.02
    constant_until: float = _renamed("hold", 0.7)
    power: float = 0.9
    batch_size: int | None = None
    cpu_batch_size: int | None = 2
    cpu_width: float = 0.5
    mirror: bool | None = None
    patch_curriculum: tuple[PatchStage, ...] | None = _renamed("patch_stages", None)
    loss: str = "dice_cross_entropy"
    deep_supervision: bool = True
    foreground: float = 0.33
    augmentation: str = "nnunet"
    augmentation_free_epochs: float = _renamed("plain_epochs", 12.0)
    restoration_weight: float = 0.0
    restoration_rate: float = 0.0005
    restoration_every: int = 3
    restoration_detach: bool = True
    restoration_warmup: float = 0.05
    ema: bool = True
    validations: int | None = _renamed("checks", None)
    validation_patches: int = _renamed("check_cases", 8)
    patience: int | None = 8
    checkpoint_minutes: float = 3.0
    bf16: bool | None = None
    freeze: tuple[str, ...] = added(2, ())
    freeze_until: float = added(2, 1.0)
    divide_batch: bool = added(2, False)
    devices_exponent: float = added(2, 0.5)

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1 or not 0 <= self.constant_until < 1:
            raise ValueError(
                f"warmup and constant_until must be fractions below 1, found {self.warmup} and {self.constant_until}"
            )
        numbers = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, value in numbers.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, found {value}")
            if isinstance(value, int) and abs(value) > MOST:
                raise ValueError(f"{name} must be at most {MOST}")
        for name in ("learning_rate", "clip_norm", "power", "checkpoint_minutes", "cpu_width", "restoration_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, found {getattr(self, name)}")
        for name in ("validations", "validation_patches", "patience", "batch_size", "cpu_batch_size", "restoration_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.restoration_weight < 0 or not 0 <= self.restoration_warmup <= 1:
            raise ValueError("restoration_weight must not be negative, and restoration_warmup a fraction")
        if not WIDTHS[0] <= self.cpu_width <= WIDTHS[1]:
            raise ValueError(
                f"cpu_width must be from {WIDTHS[0]} to {WIDTHS[1]} times the plan's features, found {self.cpu_width}"
            )
        if not 0 <= self.devices_exponent <= 1:
            raise ValueError(f"devices_exponent must be from 0 to 1, found {self.devices_exponent}")
        if not 0 <= self.foreground <= 1 or not 0 <= (self.momentum or 0) < 1:
            raise ValueError(f"foreground and momentum must be fractions, found {self.foreground} and {self.momentum}")
        if not 0 < self.freeze_until <= 1:
            raise ValueError(f"freeze_until must be a fraction above 0, found {self.freeze_until}")
        if min(self.weight_decay, self.muon_learning_rate, self.attention_rate, self.augmentation_free_epochs) < 0:
            raise ValueError("weight_decay, muon_learning_rate, attention_rate and augmentation_free_epochs: at least 0")


# the recipe of nnU-Net 2.8: Isensee et al. 2021 and its default trainer
PARITY = Recipe(
    name="parity",
    learning_rate=0.01,
    muon_learning_rate=0.0,
    momentum=0.99,
    warmup=0.0,
    constant_until=0.0,
    cpu_batch_size=None,
    cpu_width=1.0,
    mirror=True,
    patch_curriculum=(),
    augmentation_free_epochs=0.0,
    restoration_weight=0.0,
    ema=False,
    validations=25,
    patience=None,
)

RECIPES = Registry("recipe", {"autoseg": Recipe(), "parity": PARITY})


def setting_names() -> dict[str, str]:
    """What a setting may be called -> the field of Recipe; the names of earlier versions too."""
    older = {one.metadata["called"]: one.name for one in fields(Recipe) if "called" in one.metadata}
    return {one.name: one.name for one in fields(Recipe)} | older


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe with other values, as from ``--set key=value`` or a JSON file.

    Args:
        settings: dictionary of field name -> value (JSON types). The names of earlier versions are known too.

    Raises:
        TrainingError: a name or a value that does not fit, with the known names; one setting under both of its names.
    """
    known, kinds = setting_names(), get_type_hints(Recipe)
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    try:
        for key, value in settings.items():
            name = known.get(key)
            if name is None:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f". Did you mean {known[close[0]]!r}?" if close else ""
                raise RecordError(f"recipe: unknown setting {key!r}{hint}")
            if name in values:
                raise RecordError(f"recipe: {given[name]!r} and {key!r} are the same setting, give one of them")
            values[name], given[name] = from_json(kinds[name], value, where=f"recipe.{key}"), key
        return replace(recipe, **values)
    except ValueError as fault:
        settings_known = ", ".join(dict.fromkeys(known.values()))
        raise TrainingError(f"{fault}. The settings of a recipe are: {settings_known}") from fault


def learning_rate_factor(recipe: Recipe, fraction: float, cooldown: float | None = None) -> float | None:
    """The learning rate at ``fraction`` of the training, as a fraction of its maximum; None when the run is over.

    ``cooldown`` is the fraction at which the fall begins, by default ``recipe.constant_until``. It ends in proportion: begun at
    half of that, it is over at half of the length.
    """
    start = recipe.constant_until if cooldown is None else min(cooldown, recipe.constant_until)
    end = over_at(recipe, cooldown)
    if fraction >= end:
        return None
    if fraction < min(recipe.warmup, start):
        return max(fraction / recipe.warmup, 0.01)
    if fraction < start:
        return 1.0
    return float((1 - (fraction - start) / (end - start)) ** recipe.power)


def over_at(recipe: Recipe, cooldown: float | None = None) -> float:
    """The fraction at which the training run is over, as for ``learning_rate_factor``."""
    whole = recipe.constant_until
    return 1.0 if cooldown is None or whole == 0 else min(cooldown, whole) / whole


def steps_of_an_epoch(recipe: Recipe, plan: Plan, voxels: int) -> float:
    """How many steps (a fraction) hold so many ``voxels``; the batch size is settled."""
    assert recipe.batch_size, "the batch size is settled"
    return voxels / (recipe.batch_size * math.prod(plan.patch_size))


def is_augmentation_free(recipe: Recipe, fraction: float, epochs_left: float) -> bool:
    """Whether the final phase has begun; ``epochs_left`` is how often the samples to come hold the voxels of all cases."""
    return fraction >= recipe.constant_until and epochs_left < recipe.augmentation_free_epochs


def restoration_weight(recipe: Recipe, fraction: float) -> float:
    """Weight of the restoration at ``fraction`` of the training."""
    return recipe.restoration_weight * min(1.0, fraction / (recipe.restoration_warmup or 1e-9))


def momentum_for(recipe: Recipe, steps: int) -> float:
    """Momentum whose memory is about one two-hundredth of the training: 0.9 up to 2000 steps, 0.95 at 4000, at most 0.98.

    0.99 remembers a hundred steps and raises the effective rate a hundredfold, too much for a short run
    (docs/experiments/momentum-and-augmentation.md).
    """
    return min(0.98, max(0.9, 1 - 200 / max(steps, 1))) if recipe.momentum is None else recipe.momentum


def ema_decay(steps: int, step: int) -> float:
    """Decay of the averaged weights after ``step`` of ``steps``: about a tenth of a percent of memory at the end."""
    return min(0.999, max(0.9, 1 - 12 / max(steps, 1)), (1 + step) / (10 + step))


def patch_stage(
    recipe: Recipe, fraction: float, patch: Sequence[int], divisor: Sequence[int]
) -> tuple[tuple[int, int, int], int]:
    """(patch, batch factor) at a fraction of the training; edges stay multiples of ``divisor`` and within ``patch``."""
    for stage in recipe.patch_curriculum or ():
        if fraction < stage.until:
            edges = [max(d, round(p * stage.scale / d) * d) for p, d in zip(patch, divisor, strict=True)]
            return _triple(min(e, p) for e, p in zip(edges, patch, strict=True)), stage.batch_factor
    return _triple(patch), 1


def _triple(edges: Iterable[int]) -> tuple[int, int, int]:
    z, y, x = edges
    return z, y, x
