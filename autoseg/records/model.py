"""The description of a model and of the training of its folds: in ``model.json`` and, for predictions, in ``run.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autoseg.data.labels import LabelSchema
from planners.plan import Decision, NetworkSpec, Plan

__all__ = ["CalibrationAbout", "ModelAbout", "ModelInfo", "StudyAbout", "TrainedAbout"]


@dataclass(frozen=True)
class TrainedAbout:
    """How a fold was trained. Older models have only steps, seconds and seed.

    Attributes:
        steps, seconds: duration of training.
        seed: seed of its random numbers.
        recipe: name -> value of every setting; empty if unknown.
        length: the requested ``seconds`` or ``steps``; the other one is None.
        batch_size: patches in a batch.
        device, precision: device and number format of training; '' if unknown.
        training, validation: number of cases; 0 if unknown.
        momentum: momentum at the end; None if unknown.
        start: digest of the model of the initial weights, or ''.
        devices: how several devices divided the work, in words; '' for one.
    """

    steps: int = 0
    seconds: float = 0.0
    seed: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    length: dict[str, int | float | None] = field(default_factory=dict)
    batch_size: int | None = None
    device: str = ""
    precision: str = ""
    training: int = 0
    validation: int = 0
    momentum: float | None = None
    start: str = ""
    devices: str = ""


@dataclass(frozen=True)
class CalibrationAbout:
    """The calibration error of a model, on cases that its folds were not trained on.

    Attributes:
        before, after: structure -> expected calibration error in [0, 1], without a temperature and with one.
        used: whether the model has that temperature.
    """

    before: dict[str, float]
    after: dict[str, float]
    used: bool

    @property
    def errors(self) -> dict[str, float]:
        """The errors of the probabilities that the model gives."""
        return self.after if self.used else self.before


@dataclass(frozen=True)
class StudyAbout:
    """The study that a model comes from: its name, its decisions, and the calibration; None if unknown."""

    name: str = ""
    decisions: tuple[Decision, ...] = ()
    calibration: CalibrationAbout | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The free-form part of a model, as far as known: data set, folds, versions, study."""

    dataset: str = ""
    folds: dict[str, TrainedAbout] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    study: StudyAbout | None = None


@dataclass(frozen=True)
class ModelAbout:
    """A model without its weights.

    Attributes:
        plan, labels, channels: as in the model.
        postprocessing: rules for the final labels, in words.
        temperatures: divisors of the logits; () for 1.
        networks: networks of an ensemble other than the plan's.
        info: as in the model.
    """

    plan: Plan
    labels: LabelSchema
    channels: tuple[str, ...]
    postprocessing: tuple[str, ...] = ()
    temperatures: tuple[float, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    info: ModelInfo = ModelInfo()
