"""Every setting of a training run, in one frozen value that is stored with the run.

Lengths are fractions of the whole run, which may be given in minutes or in steps. The learning rate rises for ``warmup``, is
constant until ``constant_until``, and falls to zero with ``(1 - t) ** power``. If the validation loss stops falling before
that, the run stops early: the rest of the patch-size curriculum is skipped, and the rate falls at once and proportionally
faster.
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
MOST = 10**6  # largest value of any count in a recipe
WIDTHS = (0.01, 4.0)  # allowed widths of a network on a CPU, as fractions of the plan's


@dataclass(frozen=True)
class PatchStage:
    """Until the fraction ``until`` of the run: patches of ``scale`` times the edge, and ``batch_factor`` times as many."""

    until: float
    scale: float
    batch_factor: int

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1 or not 0 < self.scale <= 1 or self.batch_factor < 1:
            raise ValueError("a patch stage needs until and scale in (0, 1] and a batch_factor of at least 1")


def _renamed(old: str, default: T) -> T:
    """A setting that earlier versions called ``old``. Files keep that key, so that stored runs and digests do not change."""
    return field(default=default, metadata=called(old))


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; null in JSON is None.

    Attributes:
        name: a name for the reader; nothing depends on it.
        learning_rate, weight_decay, clip_norm: of SGD with Nesterov momentum.
        muon_learning_rate: of Muon, which trains the kernels of the convolutions; 0 trains them with SGD.
        attention_rate: of Adam, which trains the slots, scales and gates of self-attention, while its matrices are trained
            with the kernels; 0 trains all with SGD, which hardly opens the gates in short runs. 0 is the default, because open
            gates gained nothing in the experiment (docs/experiments/attention-open-gates.md); 0.005 opens them.
        momentum: of SGD and Muon; null chooses it by the number of steps.
        warmup: fraction of the run over which the learning rate rises.
        constant_until: fraction of the run up to which it is then constant.
        power: exponent of its fall to zero at the end.
        batch_size: patches in a batch; null means the plan's.
        cpu_batch_size: largest batch on a CPU, where many small steps are better; null for no limit.
        cpu_width: fraction of the plan's features that the network has on a CPU, for the same reason.
        mirror: along the plan's axes, in training and in prediction; null mirrors in runs of at least 50 passes
            through the voxels of all cases, and if only their time is known, everywhere but on a CPU.
        patch_curriculum: patch sizes over the run. null for smaller patches until the rate falls, at two thirds of the cost;
            on a CPU they grow in more steps.
        loss: dice_cross_entropy, cross_entropy, dice, or one of an installed package.
        deep_supervision: losses at every scale of the decoder.
        foreground: fraction of patches centred on a labelled voxel, rounded to whole samples of a batch: in a batch of two,
            one for any fraction between 0.25 and 0.75. In a batch of one it is the probability.
        augmentation: nnunet, light, none, or one of an installed package.
        augmentation_free_epochs: length of the final phase without augmentation except mirroring, in passes through the voxels
            of all cases; 0 for none. It begins when the rate falls, at the earliest. A longer phase would overfit.
        restoration_weight: weight of the loss of the restoration head, relative to the segmentation's; 0 for no such head,
            which is the default, because it takes time that segmentation alone does not need
            (docs/experiments/restoration-noise-too.md).
        restoration_rate: learning rate of the head's own Adam; it rises and falls with that of the segmentation.
        restoration_every: one of this many steps also trains the head, with degraded patches; 1 for every step.
        restoration_detach: no gradient of the head reaches the features of the segmentation.
        restoration_warmup: fraction of the run over which its weight rises from 0.
        ema: validate and save weights averaged over the steps; the decay depends on the number of steps.
        validations: number of times that the validation loss is measured; null for 25, on a CPU for as many as cost little.
        validation_patches: largest number of validation cases for it, one patch each.
        patience: number of validations without progress after which the learning rate falls; null for never.
        checkpoint_minutes: minutes between two checkpoints.
        bf16: whether to compute in bfloat16: true, false, or null for a short probe of what is faster.
        freeze: parts of the network that are not trained at first, given by the beginning of the names of their weights, such
            as ``encoder`` or ``encoder.stages.0``; ``taken`` for all weights taken unchanged from the model of ``--from``.
        freeze_until: fraction of the run for which they stay frozen; 1 for all of it.
        divide_batch: if several devices train together (``torchrun``), they divide the samples of one batch, and the
            run equals that of one device; by default each device has a whole batch.
        devices_exponent: by default, several devices multiply all learning rates by this power of their number: 0.5 for the
            square root, 1 for the linear rule, 0 to leave the rates unchanged.
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
    """Name of a setting -> field of Recipe; includes the names of earlier versions."""
    older = {one.metadata["called"]: one.name for one in fields(Recipe) if "called" in one.metadata}
    return {one.name: one.name for one in fields(Recipe)} | older


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe with other values, for example from ``--set key=value`` or a JSON file.

    Args:
        settings: dictionary of field name -> value (JSON types). The names of earlier versions also work.

    Raises:
        TrainingError: an unknown name (the known ones are listed), an invalid value, or one setting under both of its names.
    """
    known, kinds = setting_names(), get_type_hints(Recipe)
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    try:
        for key, value in settings.items():
            name = known.get(key)
            if name is None:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" (did you mean {known[close[0]]!r}?)" if close else ""
                raise RecordError(f"recipe: unknown setting {key!r}{hint}")
            if name in values:
                raise RecordError(f"recipe: {given[name]!r} and {key!r} are the same setting, give one of them")
            values[name], given[name] = from_json(kinds[name], value, where=f"recipe.{key}"), key
        return replace(recipe, **values)
    except ValueError as fault:
        settings_known = ", ".join(dict.fromkeys(known.values()))
        raise TrainingError(f"{fault}. The settings of a recipe are: {settings_known}") from fault


def learning_rate_factor(recipe: Recipe, fraction: float, cooldown: float | None = None) -> float | None:
    """The learning rate at ``fraction`` of the run, as a fraction of its maximum; None when the run is over.

    ``cooldown`` is the fraction at which the fall begins, by default ``recipe.constant_until``. The end moves in proportion: if
    the fall begins at half of the default, the run ends at half of its length.
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
    """The fraction at which the training run ends, as in ``learning_rate_factor``."""
    whole = recipe.constant_until
    return 1.0 if cooldown is None or whole == 0 else min(cooldown, whole) / whole


def steps_of_an_epoch(recipe: Recipe, plan: Plan, voxels: int) -> float:
    """Number of steps (not rounded) that use as many voxels as ``voxels``. The batch size of ``recipe`` is settled."""
    assert recipe.batch_size, "the batch size is settled"
    return voxels / (recipe.batch_size * math.prod(plan.patch_size))


def is_augmentation_free(recipe: Recipe, fraction: float, epochs_left: float) -> bool:
    """Whether the final phase has begun. ``epochs_left``: voxels of the remaining samples / voxels of all cases."""
    return fraction >= recipe.constant_until and epochs_left < recipe.augmentation_free_epochs


def restoration_weight(recipe: Recipe, fraction: float) -> float:
    """Weight of the restoration loss at ``fraction`` of the run."""
    return recipe.restoration_weight * min(1.0, fraction / (recipe.restoration_warmup or 1e-9))


def momentum_for(recipe: Recipe, steps: int) -> float:
    """Momentum with a memory of about one two-hundredth of the run: 0.9 up to 2000 steps, 0.95 at 4000, at most 0.98.

    0.99 remembers a hundred steps and raises the effective rate a hundredfold, too much for a short run
    (docs/experiments/momentum-and-augmentation.md).
    """
    return min(0.98, max(0.9, 1 - 200 / max(steps, 1))) if recipe.momentum is None else recipe.momentum


def ema_decay(steps: int, step: int) -> float:
    """Decay of the averaged weights after ``step`` of ``steps``: a memory of a twelfth of the run, at most 1000 steps."""
    return min(0.999, max(0.9, 1 - 12 / max(steps, 1)), (1 + step) / (10 + step))


def patch_stage(
    recipe: Recipe, fraction: float, patch: Sequence[int], divisor: Sequence[int]
) -> tuple[tuple[int, int, int], int]:
    """(patch, batch factor) at a fraction of the run. Edges are multiples of ``divisor`` and at most those of ``patch``."""
    for stage in recipe.patch_curriculum or ():
        if fraction < stage.until:
            edges = [max(d, round(p * stage.scale / d) * d) for p, d in zip(patch, divisor, strict=True)]
            return _triple(min(e, p) for e, p in zip(edges, patch, strict=True)), stage.batch_factor
    return _triple(patch), 1


def _triple(edges: Iterable[int]) -> tuple[int, int, int]:
    z, y, x = edges
    return z, y, x
