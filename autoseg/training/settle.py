"""Settles a training run: decides everything that depends on device, length or data before the run begins.

A plan is made for a graphics card and does not depend on the training run; a recipe does not depend on the data. ``settle``
combines them once, and records what it decided and why. Code that trains, compares, counts costs or reports on a training
run reads the resulting ``Training``. All rules for CPUs are in this module: many small steps are better there than few large
ones, so the network has a fraction of the plan's features (``Recipe.cpu_width``) and the batch a limit
(``Recipe.cpu_batch_size``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autoseg.errors import TrainingError
from autoseg.names import counted
from autoseg.preprocess.normalize import UNIT_SCHEMES
from autoseg.training.length import Length
from autoseg.training.recipe import PatchStage, Recipe, patch_stage, steps_of_an_epoch
from planners import NetworkSpec, Plan, with_network
from planners.change import CHANGED
from planners.plan import Decision

__all__ = [
    "RATES",
    "PatchBatch",
    "Training",
    "as_before",
    "batches_at_once",
    "choose_batch",
    "choose_network",
    "is_mirrored",
    "settle",
    "width_fraction",
]

Size = tuple[int, int, int]

CPU = "cpu"
MIRRORING, BATCH, RESTORATION, PRECISION, WIDTH = "mirroring", "batch", "restoration", "precision", "width"
DEVICES, PATCHES, VALIDATIONS = "devices", "patches", "validations"
RATES = ("learning_rate", "muon_learning_rate", "attention_rate", "restoration_rate")
MIRRORED_EPOCHS = 50  # better without mirroring at 13 of them, with it at 75 (docs/experiments/mirroring-and-length.md)
CURRICULUM = (PatchStage(0.7, 0.8, 1),)
CPU_CURRICULUM = (PatchStage(0.6, 0.7, 1), PatchStage(0.9, 0.8, 1))  # docs/experiments/half-the-time-cpu.md
MOST_VALIDATIONS = 25
FEWEST_VALIDATIONS = 4  # enough to see a curve
VALIDATIONS_SHARE = 0.04  # fraction of the time of a run on a CPU
VALIDATION_SECONDS = 30  # at least, between two validations on a CPU, if the length is a time
PASSES = 3  # forward, backward for the features, backward for the weights: equal costs
# text of version 0.1. It is part of the plan that identifies a checkpoint, so new wording would refuse old checkpoints
UNASKED = "for a short training, which learns faster so, or because the recipe says so"


@dataclass(frozen=True)
class PatchBatch:
    """Until the fraction ``until`` of a training run, batches of ``batch_size`` patches of ``patch_size`` (z, y, x) voxels."""

    until: float
    patch_size: Size
    batch_size: int


@dataclass(frozen=True)
class Training:
    """Everything that a training run depends on except its cases and its seed.

    Attributes:
        plan: Plan with the network and the mirror axes that are really used.
        recipe: Recipe with the batch size, patch sizes, number of validations and restoration weight that are really used.
        length: in steps or seconds.
        patches: patch and batch sizes, stage by stage.
        precision: ``float32``, ``bfloat16``, or ``probe``: the faster of both, measured at the start.
        epochs: passes through the data: voxels of all batches / voxels of all cases; None if only the time of the run is known.
        decisions: what was settled, each with its rule and numbers.
        batches_at_once: batches in a step: one for each device, or 1 if the devices divide it.
    """

    plan: Plan
    recipe: Recipe
    length: Length
    patches: tuple[PatchBatch, ...]
    precision: str
    epochs: float | None
    decisions: tuple[Decision, ...]
    batches_at_once: int = 1

    @property
    def batch_size(self) -> int:
        """Number of patches of full size in a batch."""
        return self.patches[-1].batch_size

    def explain(self, *, decisions: bool = True) -> str:
        """The settled run as lines of text: what is trained, and the ``decisions`` with their rules and numbers."""
        features = ", ".join(map(str, self.plan.network.features))
        epochs = "" if self.epochs is None else f", {self.epochs:.1f} times the voxels of all cases"
        lines = [
            f"plan {self.plan.name}, network {self.plan.network.name} with {features} features, recipe {self.recipe.name}",
            f"length: {self.length}{epochs}",
        ]
        for stage in self.patches:
            size = " x ".join(map(str, stage.patch_size))
            lines.append(f"until {stage.until:.0%}: batches of {stage.batch_size} patches of {size} voxels")
        lines += [replace(self.plan, decisions=self.decisions).explain()] if decisions else []
        return "\n".join(lines)


def settle(
    plan: Plan,
    recipe: Recipe,
    length: Length,
    device: str,
    voxels: int,
    network: str | NetworkSpec | None = None,
    devices: int = 1,
) -> Training:
    """Settle a training run.

    Args:
        plan: the plan as stored.
        recipe: the requested recipe.
        length: length of the run.
        device: kind of the device, such as ``cpu`` or ``cuda``.
        voxels: number of voxels of all training cases, on the network's grid.
        network: a name, None for the plan's network, or a NetworkSpec, which is used unchanged.
        devices: number of devices that train together.

    Raises:
        TrainingError: a batch is to be divided over more devices than it has samples.
    """
    settled, about_network = choose_network(plan, network, recipe, device)
    settled, recipe, about_restoration = _settle_restoration(settled, recipe)
    asked, recipe = recipe, replace(recipe, batch_size=choose_batch(recipe, settled, device))
    at_once = batches_at_once(recipe, devices)
    recipe, about_devices = _settle_devices(recipe, devices)
    epochs = at_once * length.steps / steps_of_an_epoch(recipe, settled, voxels) if length.steps and voxels else None
    settled, about_mirroring = _settle_mirroring(settled, recipe, epochs, device)
    recipe, about_patches = _settle_patches(recipe, settled, length, device)
    return Training(
        plan=settled,
        recipe=recipe,
        length=length,
        patches=_patches(recipe, settled),
        precision={None: "probe", True: "bfloat16", False: "float32"}[recipe.bf16],
        epochs=epochs,
        decisions=(
            *about_network,
            *_about_batch(asked, recipe, settled),
            *about_devices,
            *about_patches,
            *about_mirroring,
            *about_restoration,
            _precision(recipe),
        ),
        batches_at_once=at_once,
    )


def as_before(recipe: Recipe) -> Recipe:
    """The recipe with the defaults of version 0.1 for patch sizes and validations, with which runs of that version continue."""
    curriculum = CURRICULUM if recipe.patch_curriculum is None else recipe.patch_curriculum
    return replace(recipe, patch_curriculum=curriculum, validations=recipe.validations or MOST_VALIDATIONS)


def width_fraction(recipe: Recipe, device: str) -> float:
    """Fraction of the plan's features that networks have on a kind of device."""
    return recipe.cpu_width if device == CPU else 1.0


def choose_network(
    plan: Plan, network: str | NetworkSpec | None, recipe: Recipe, device: str
) -> tuple[Plan, tuple[Decision, ...]]:
    """The plan with the network to train, in the width for the device, and the decisions about it."""
    if isinstance(network, NetworkSpec):
        return replace(plan, network=network), ()
    if network:
        plan = with_network(plan, network)
    warnings = tuple(decision for decision in plan.decisions if network and decision.warning and decision.what == CHANGED)
    fraction = width_fraction(recipe, device)
    if fraction == 1:
        return plan, warnings
    before, narrow = plan.network.features, plan.network.scaled(fraction)
    width = Decision(
        WIDTH,
        f"on a CPU {narrow.name} has {', '.join(map(str, narrow.features))} features (--set cpu_width=1 for the plan's)",
        "many small steps train better there than few large ones",
        f"the plan's network has {', '.join(map(str, before))}",
    )
    return replace(plan, network=narrow), (*warnings, width)


def choose_batch(recipe: Recipe, plan: Plan, device: str) -> int:
    """Patches in a batch: the recipe's number, else the plan's; on a CPU at most the recipe's limit for CPUs."""
    if recipe.batch_size is not None:
        return recipe.batch_size
    most = recipe.cpu_batch_size if device == CPU else None
    return min(plan.batch_size, most or plan.batch_size)


def batches_at_once(recipe: Recipe, devices: int) -> int:
    """Number of batches in a step of ``devices`` devices."""
    return 1 if recipe.divide_batch else devices


def is_mirrored(recipe: Recipe, epochs: float | None, device: str) -> bool:
    """Whether a training run mirrors patches, and predictions with its model use mirroring.

    Mirrored anatomy does not occur in scans, so it is an additional task. Short runs have no time for it; in long runs it
    prevents overfitting.

    Args:
        epochs: passes through the voxels of all cases; None if only the time of the run is known. Such a run counts as short
            on a CPU and as long elsewhere.
    """
    if recipe.mirror is not None:
        return recipe.mirror
    return device != CPU if epochs is None else epochs >= MIRRORED_EPOCHS


def _about_batch(asked: Recipe, settled: Recipe, plan: Plan) -> tuple[Decision, ...]:
    if asked.batch_size is not None:
        rule = "the recipe says so"
    elif settled.batch_size == plan.batch_size:
        rule = "the plan says so"
    else:
        rule = "on a CPU, many small steps train better than few large ones (--set cpu_batch_size=null for the plan's)"
    return (Decision(BATCH, f"batches of {settled.batch_size}", rule, f"planned: {plan.batch_size}"),)


def _settle_devices(recipe: Recipe, devices: int) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe for several devices; its batch size is settled.

    If the devices divide a batch, batch and learning rates are those of one device. Otherwise a step averages the gradients of
    one batch per device; these are less noisy, so the step may be longer. The square-root rule keeps the variance of the
    weight updates (Hoffer et al. 2017), and is the rule for optimisers with steps of constant length (Malladi et al. 2022),
    such as Muon and Adam. The linear rule (Goyal et al. 2017) is for SGD and long runs with warmup.
    """
    size = recipe.batch_size or 1
    if devices == 1:
        return recipe, ()
    if recipe.divide_batch:
        if size < devices:
            raise TrainingError(
                f"a batch of {size} cannot be divided over {devices} devices. Start at most {size} processes, give a larger "
                f"one (--set batch_size={devices}), or each device a whole one (--set divide_batch=false)"
            )
        chosen = f"{devices} devices divide each batch of {size}"
        return recipe, (Decision(DEVICES, chosen, "the recipe says so; the training is that of one device"),)
    factor = devices**recipe.devices_exponent
    decision = Decision(
        DEVICES,
        f"each of {devices} devices takes a batch of {size}, {size * devices} in a step; learning rates times {factor:.3g}",
        "the square root of the number of devices, or another power of it (--set devices_exponent=X); a length that is not "
        "given is the plan's divided by that number",
        f"exponent {recipe.devices_exponent:g}; learning rate {recipe.learning_rate:g} on one device",
    )
    return replace(recipe, **{name: factor * getattr(recipe, name) for name in RATES}), (decision,)


def _settle_restoration(plan: Plan, recipe: Recipe) -> tuple[Plan, Recipe, tuple[Decision, ...]]:
    """Plan and recipe, made consistent about whether the network also restores the image."""
    others = [how.channel for how in plan.normalization if how.scheme not in UNIT_SCHEMES]
    asked, restores = recipe.restoration_weight, recipe.restoration_weight > 0 and not others and not plan.coarse
    decisions: tuple[Decision, ...] = ()
    if asked and plan.coarse:
        recipe = replace(recipe, restoration_weight=0.0)
        rule = "the fine stage of a cascade reads labels too, which cannot be degraded like an image"
        decisions = (Decision(RESTORATION, "the image is not restored", rule, f"weight asked for: {asked:g}"),)
    elif asked and others:
        recipe = replace(recipe, restoration_weight=0.0)
        chosen = f"the image is not restored: {', '.join(others)} is not scaled to [0, 1] by this plan"
        decisions = (Decision(RESTORATION, chosen, "only what lies in [0, 1] can be restored", f"weight asked for: {asked:g}"),)
    elif restores:
        chosen = "the network has a second head, which restores the image"
        decisions = (Decision(RESTORATION, chosen, "the recipe says so", f"weight {asked:g}"),)
    return replace(plan, network=replace(plan.network, restoration=restores)), recipe, decisions


def _settle_mirroring(plan: Plan, recipe: Recipe, epochs: float | None, device: str) -> tuple[Plan, tuple[Decision, ...]]:
    """The plan with the mirror axes of this run: those of the plan, or none (``is_mirrored``)."""
    planned = next((decision for decision in plan.decisions if decision.what == MIRRORING), None)
    axes = planned.chosen if planned else ", ".join(map(str, plan.mirror_axes))
    if not plan.mirror_axes:
        return plan, ()
    if is_mirrored(recipe, epochs, device):
        return plan, (Decision(MIRRORING, f"mirrored along {axes}", "a long run gains from mirroring, or the recipe says so"),)
    told = tuple(
        replace(d, chosen="none", rule=UNASKED, numbers=f"planned: {d.chosen}") if d is planned else d for d in plan.decisions
    )
    chosen = "not mirrored, neither in training nor in prediction (--set mirror=true for the plan's axes)"
    return replace(plan, mirror_axes=(), decisions=told), (Decision(MIRRORING, chosen, UNASKED, f"planned: {axes}"),)


def _patches(recipe: Recipe, plan: Plan) -> tuple[PatchBatch, ...]:
    """Patch and batch sizes, stage by stage; ``recipe`` has its batch size settled."""
    found, begin = [], 0.0
    for until in [*(stage.until for stage in recipe.patch_curriculum or ()), 1.0]:
        if until > begin:
            patch, factor = patch_stage(recipe, begin, plan.patch_size, plan.network.divisor)
            found.append(PatchBatch(until, patch, (recipe.batch_size or plan.batch_size) * factor))
            begin = until
    return tuple(found)


def _settle_patches(recipe: Recipe, plan: Plan, length: Length, device: str) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with its patch sizes and validations settled; its batch size is settled before."""
    if device != CPU:
        return as_before(recipe), ()
    decisions: list[Decision] = []
    if recipe.patch_curriculum is None:
        recipe = replace(recipe, patch_curriculum=CPU_CURRICULUM)
        sizes = ", then ".join(dict.fromkeys(" x ".join(map(str, stage.patch_size)) for stage in _patches(recipe, plan)))
        rule = "small patches teach most in less time (--set patch_curriculum=[] for whole ones)"
        decisions.append(Decision(PATCHES, f"patches grow: {sizes} voxels", rule))
    if recipe.validations is None:
        count = _affordable_validations(recipe, plan, length)
        recipe = replace(recipe, validations=count)
        rule = "as many as cost little time (--set validations=N for another number)"
        decisions.append(Decision(VALIDATIONS, f"the loss is validated {counted(count, 'time')}", rule))
    return recipe, tuple(decisions)


def _affordable_validations(recipe: Recipe, plan: Plan, length: Length) -> int:
    """How many validations a run on a CPU has time for. Each is a forward pass of a few patches of full size."""
    if length.steps is None:
        return max(FEWEST_VALIDATIONS, min(MOST_VALIDATIONS, int((length.seconds or 0) / VALIDATION_SECONDS)))
    begin, voxels = 0.0, 0.0  # of a batch, on average
    for stage in _patches(recipe, plan):
        voxels += (stage.until - begin) * stage.batch_size * math.prod(stage.patch_size)
        begin = stage.until
    one = recipe.validation_patches * math.prod(plan.patch_size)
    return max(FEWEST_VALIDATIONS, min(MOST_VALIDATIONS, int(VALIDATIONS_SHARE * length.steps * PASSES * voxels / one)))


def _precision(recipe: Recipe) -> Decision:
    if recipe.bf16 is None:
        return Decision(PRECISION, "bfloat16 where it is faster, else float32", "tried at the start, on this machine")
    return Decision(PRECISION, "bfloat16" if recipe.bf16 else "float32", "the recipe says so")
