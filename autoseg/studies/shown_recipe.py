"""Shows a complete recipe: each setting with its value, its meaning and its origin.

With a data set it also shows the values that depend on the plan, the device and the length.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autoseg.options import TrainingOptions
from autoseg.options.fields import descriptions
from autoseg.studies.ready import choose_recipe
from autoseg.training.augment import AUGMENTATIONS, PRESETS
from autoseg.training.augment.presets import Step
from autoseg.training.losses import LOSSES
from autoseg.training.recipe import Recipe, momentum_for, setting_names
from autoseg.training.settle import Training
from autoseg.workspace import read_json
from planners.records import to_json

__all__ = ["Setting", "ShownRecipe", "show"]


@dataclass(frozen=True)
class Setting:
    """A setting: its value, its meaning and the origin of the value.

    ``settled`` is the value that a training run uses instead, by the plan, the device or the length; None if it uses ``value``.
    """

    name: str
    value: Any
    source: str
    meaning: str
    settled: Any = None


@dataclass(frozen=True)
class AugmentationStep:
    """A transform of the augmentation, its probability per sample, and all its options."""

    transform: str
    probability: float
    options: dict[str, Any]


@dataclass(frozen=True)
class ShownRecipe:
    """All settings, the loss, the steps of the augmentation, and the settled training run if a data set was given."""

    settings: tuple[Setting, ...]
    loss: str
    augmentation: tuple[AugmentationStep, ...]
    training: Training | None = None

    def as_json(self) -> dict[str, Any]:
        """The recipe as JSON."""
        found: dict[str, Any] = to_json(self)
        return {**found, "training": to_json(self.training)}

    def summary(self) -> str:
        """The recipe as text."""
        head = (
            ("setting", "value", "from", "meaning")
            if self.training is None
            else ("setting", "value", "here", "from", "meaning")
        )
        rows = [head, *(_row(one, self.training is not None) for one in self.settings)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
        lines = ["  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows]
        lines += ["", f"loss: {self.loss}", "", "augmentation, of each sample in this order:"]
        lines += [f"  {_step_text(step)}" for step in self.augmentation] or ["  none"]
        return "\n".join([*lines, "", self.training.explain()] if self.training else lines)


def show(options: TrainingOptions, training: Training | None = None) -> ShownRecipe:
    """The recipe given by the options of a training run.

    Args:
        training: settled for a data set; None without a data set.

    Raises:
        AutosegError: an invalid recipe, file or setting.
    """
    recipe, sources = choose_recipe(options), _sources(options)
    meaning = descriptions(Recipe)
    settled = _settled(recipe, training) if training else {}
    names = [one.name for one in fields(Recipe)]
    preset = PRESETS[recipe.augmentation]
    return ShownRecipe(
        tuple(Setting(n, getattr(recipe, n), sources[n], meaning[n], settled.get(n)) for n in names),
        f"{recipe.loss}: {inspect.getdoc(LOSSES[recipe.loss])}".partition("\n\n")[0],
        tuple(map(_complete, (*preset.steps, *preset.one_of))),
        training,
    )


def _sources(options: TrainingOptions) -> dict[str, str]:
    """Where the value of each setting comes from."""
    text = str(options.recipe)
    known, is_file = setting_names(), text.endswith(".json")
    sources = dict.fromkeys(known.values(), "recipe autoseg" if is_file else f"recipe {text}")
    if is_file:
        sources |= {"name": Path(text).name, **{known[key]: Path(text).name for key in read_json(text)}}
    return sources | {known[key]: "--set" for key, _ in options.settings}


def _settled(recipe: Recipe, training: Training) -> dict[str, Any]:
    """The values of settings that the recipe leaves to the plan, the device or the length, or that cannot be used."""
    settled, steps = training.recipe, training.length.steps
    values: Mapping[str, Any] = {
        "batch_size": training.batch_size,
        "mirror": bool(training.plan.mirror_axes),
        "momentum": momentum_for(recipe, steps) if steps else "by its steps",
        "bf16": training.precision,
        "restoration_weight": settled.restoration_weight,
    }
    return {name: value for name, value in values.items() if value != getattr(recipe, name)}


def _complete(step: Step) -> AugmentationStep:
    """A step with the default options of its transform filled in."""
    parameters = inspect.signature(AUGMENTATIONS[step.transform].sample).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is not one.empty}
    return AugmentationStep(step.transform, step.probability, {**defaults, **dict(step.options)})


def _row(one: Setting, is_settled: bool) -> tuple[str, ...]:
    here = (_text(one.value if one.settled is None else one.settled),) if is_settled else ()
    return (one.name, _text(one.value), *here, one.source, one.meaning)


def _text(value: Any) -> str:
    """A value in the syntax of ``--set``."""
    return value if isinstance(value, str) else json.dumps(to_json(value))


def _step_text(step: AugmentationStep) -> str:
    options = ", ".join(f"{name} {_text(value)}" for name, value in step.options.items())
    return f"{step.transform}, probability {step.probability:g}" + (f": {options}" if options else "")
