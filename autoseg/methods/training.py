"""The methods statements of a training run: one for every setting of the recipe, with the values of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from autoseg.methods.statement import NOTHING, Statement, joined, number
from autoseg.records import TrainedAbout
from autoseg.training.recipe import Recipe
from planners.plan import Plan

__all__ = ["AUGMENTATIONS", "SETTINGS", "trained"]

LOSSES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dice_cross_entropy": ("the sum of soft Dice loss and cross-entropy", ("milletari2016vnet", "isensee2021nnunet")),
    "cross_entropy": ("cross-entropy", ()),
    "dice": ("the soft Dice loss", ("milletari2016vnet",)),
}
AUGMENTATIONS: Mapping[str, str] = {  # preset -> its transforms, in order
    "nnunet": "affine, noise, blur, brightness, contrast, low_resolution, gamma, mirror",
    "light": "affine, noise, brightness, contrast, gamma, mirror",
    "none": "",
}
WORDS: Mapping[str, str] = {
    "affine": "rotation and scaling",
    "low_resolution": "simulated low resolution",
    "mirror": "mirroring",
}
Tell = Callable[[Recipe, TrainedAbout, Plan], Statement]


def _cases(runs: Sequence[TrainedAbout]) -> Statement:
    """The number of training cases; for several runs, of each fold."""
    if not all(run.training for run in runs):
        return NOTHING
    start = " Training started from the weights of a trained model." if runs[0].start else ""
    if len(runs) > 1:
        sizes, held = (joined(str(getattr(run, name)) for run in runs) for name in ("training", "validation"))
        return Statement(f"{len(runs)} networks were trained, on {sizes} cases; {held} were held out for validation.{start}")
    (run,) = runs
    held = f"; {_count(run.validation, 'case was', 'cases were')} held out for validation" if run.validation else ""
    return Statement(f"The network was trained on {_count(run.training, 'case', 'cases')}{held}.{start}")


def _length(runs: Sequence[TrainedAbout]) -> Statement:
    if not all(run.steps for run in runs):
        return NOTHING
    steps, seconds = joined(str(run.steps) for run in runs), joined(number(run.seconds) for run in runs)
    where = f" on {runs[0].device}" if runs[0].device else ""
    took = f" and took {seconds} s{where}" if all(run.seconds for run in runs) else where
    seeds = joined(dict.fromkeys(str(run.seed) for run in runs))
    what = "training run" if len(runs) == 1 else "training runs"
    some = "step" if steps == "1" else "steps"
    return Statement(f"The {what} had {steps} {some}{took}, with the random seed {seeds}.")


def _optimiser(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    sgd = (
        f"stochastic gradient descent with Nesterov momentum, learning rate {number(recipe.learning_rate)}, weight decay "
        f"{number(recipe.weight_decay)} and gradients clipped to the norm {number(recipe.clip_norm)}"
    )
    momentum = recipe.momentum if recipe.momentum is not None else run.momentum
    pace = "Momentum followed the number of steps" if recipe.momentum is None else "Momentum was constant"
    pace += f" ({number(momentum)} at the end)." if momentum is not None else "."
    attention = ""
    if recipe.attention_rate and plan.network.attention:
        attention = f" Slots, scales and gates of self-attention used Adam with learning rate {number(recipe.attention_rate)}."
    if not recipe.muon_learning_rate:
        return Statement(f"The optimiser was {sgd}. {pace}{attention}", ("sutskever2013momentum",))
    kernels = f"Convolution kernels were optimised by Muon with learning rate {number(recipe.muon_learning_rate)}"
    cites = ("jordan2024muon", "sutskever2013momentum", *(["kingma2015adam"] if attention else []))
    return Statement(f"{kernels}, all other weights by {sgd}. {pace}{attention}", cites)


def _schedule(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    rise = f"rose over the fraction {number(recipe.warmup)} of the training, " if recipe.warmup else ""
    hold = f"were constant up to the fraction {number(recipe.constant_until)} and " if recipe.constant_until else ""
    return Statement(f"Learning rates {rise}{hold}fell to zero with the power {number(recipe.power)}.", ("isensee2021nnunet",))


def _stopping(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    told = (
        f"The loss was validated {_count(recipe.validations or 0, 'time', 'times')} over the planned length, on patches of "
        f"up to {_count(recipe.validation_patches, 'held-out case', 'held-out cases')}"
    )
    if recipe.patience is None or not run.validation:
        return Statement(f"{told}; there was no early stopping.") if run.validation else NOTHING
    return Statement(f"{told}; after {recipe.patience} validations without progress the learning rates fell at once.")


def _batches(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    if run.batch_size is None:
        return NOTHING
    why = ""
    if run.device == "cpu" and recipe.cpu_width != 1:
        why = f" On the CPU the network had {number(recipe.cpu_width)} times the planned features."
    return Statement(f"Batches held {_count(run.batch_size, 'patch', 'patches')}.{why}")


def _devices(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    return Statement(f"Several devices trained together: {run.devices}.") if run.devices else NOTHING


def _freezing(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    if not recipe.freeze:
        return NOTHING
    parts = joined("what came from that model" if part == "taken" else part for part in recipe.freeze)
    until = number(recipe.freeze_until)
    return Statement(f"Up to the fraction {until} of the training, these parts of the network were frozen: {parts}.")


def _curriculum(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    stages = [
        f"up to the fraction {number(stage.until)} of the training {number(stage.scale)} times as long along each axis"
        + (f" in batches {stage.batch_factor} times as large" if stage.batch_factor > 1 else "")
        for stage in recipe.patch_curriculum or ()
    ]
    return Statement(f"Patches grew: they were {joined(stages)}.") if stages else NOTHING


def _loss(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    words, cites = LOSSES.get(recipe.loss, (recipe.loss, ()))
    deep = recipe.deep_supervision and plan.network.deep_supervision
    more = ", with deep supervision at the scales of the decoder" if deep else ""
    return Statement(f"The loss was {words}{more}.", (*cites, *(["lee2015deeply"] if deep else [])))


def _sampling(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    share = number(recipe.foreground)
    return Statement(f"The fraction {share} of the patches was centred on a labelled voxel.", ("isensee2021nnunet",))


def _augmentation(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    steps = AUGMENTATIONS.get(recipe.augmentation)
    if steps == "":
        return Statement("Patches were not augmented.")
    names = [WORDS.get(name, name) for name in (steps or "").split(", ") if name != "mirror" or plan.mirror_axes]
    how = f"by random {joined(names)}" if steps else f"by the preset {recipe.augmentation}"
    last = number(recipe.augmentation_free_epochs)
    end = f" The last {last} passes over all voxels, at most, had none." if recipe.augmentation_free_epochs else ""
    return Statement(f"Patches were augmented {how}, with the transforms of nnU-Net.{end}", ("isensee2021nnunet",))


def _restoration(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    if not plan.network.restoration:
        return NOTHING
    apart = " It read the features without changing them." if recipe.restoration_detach else ""
    return Statement(
        f"A second head learned to restore degraded patches: its loss had the weight {number(recipe.restoration_weight)}, "
        f"reached after the fraction {number(recipe.restoration_warmup)} of the training, in one of "
        f"{recipe.restoration_every} steps, with Adam and learning rate {number(recipe.restoration_rate)}.{apart}",
        ("kingma2015adam",),
    )


def _averaging(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    return (
        Statement("An exponential moving average of the weights was used.", ("polyak1992averaging",)) if recipe.ema else NOTHING
    )


def _precision(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    if run.precision == "bf16":
        return Statement("Matrix products were computed in bfloat16.", ("kalamkar2019bfloat16",))
    return Statement("Computations were in single precision.") if run.precision else NOTHING


def _of_no_concern(recipe: Recipe, run: TrainedAbout, plan: Plan) -> Statement:
    """Nothing: the setting changes no result."""
    return NOTHING


SETTINGS: Mapping[str, Tell] = {  # field of Recipe -> its statement; statements appear in this order
    "name": _of_no_concern,
    "loss": _loss,
    "deep_supervision": _loss,
    "batch_size": _batches,
    "cpu_batch_size": _batches,
    "cpu_width": _batches,
    "divide_batch": _devices,
    "devices_exponent": _devices,
    "freeze": _freezing,
    "freeze_until": _freezing,
    "patch_curriculum": _curriculum,
    "foreground": _sampling,
    "augmentation": _augmentation,
    "augmentation_free_epochs": _augmentation,
    "mirror": _augmentation,
    "learning_rate": _optimiser,
    "muon_learning_rate": _optimiser,
    "attention_rate": _optimiser,
    "momentum": _optimiser,
    "weight_decay": _optimiser,
    "clip_norm": _optimiser,
    "warmup": _schedule,
    "constant_until": _schedule,
    "power": _schedule,
    "validations": _stopping,
    "validation_patches": _stopping,
    "patience": _stopping,
    "restoration_weight": _restoration,
    "restoration_rate": _restoration,
    "restoration_every": _restoration,
    "restoration_detach": _restoration,
    "restoration_warmup": _restoration,
    "ema": _averaging,
    "bf16": _precision,
    "checkpoint_minutes": _of_no_concern,
}


def trained(recipe: Recipe | None, runs: Sequence[TrainedAbout], plan: Plan) -> tuple[Statement, ...]:
    """The statements of the training runs of folds that were trained alike.

    Args:
        recipe: None if unknown, as in older models: then only the length of the runs is stated.
        runs: at least one.
    """
    if recipe is None:
        return (_length(runs),)
    told = dict.fromkeys(SETTINGS.values())
    return (_cases(runs), *(tell(recipe, runs[0], plan) for tell in told), _length(runs))


def _count(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
