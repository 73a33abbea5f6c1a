"""What a model says of itself and of how its folds were trained: in ``model.json`` and, for predictions, in ``run.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autoseg.data.labels import LabelSchema
from planners.plan import Decision, NetworkSpec, Plan

__all__ = ["CalibrationAbout", "ModelAbout", "ModelInfo", "StudyAbout", "TrainedAbout"]


@dataclass(frozen=True)
class TrainedAbout:
    """How a fold was trained; in older models only steps, seconds and seed are known.

    Attributes:
        steps, seconds: that training took.
        seed: of its random numbers.
        recipe: name -> value of every setting; empty where it is not known.
        length: ``seconds`` or ``steps`` that were asked for; the other one is None.
        batch_size: patches in a batch.
        device, precision: that it was trained on and in; '' where they are not known.
        training, validation: how many cases; 0 where it is not known.
        momentum: at the end; None where it is not known.
        start: digest of the model that the weights came from, or ''.
        devices: what several devices that trained together took each, in words; '' for one.
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
    """How far the probabilities of a model were off, on cases that its folds did not see.

    Attributes:
        before, after: structure -> expected calibration error in [0, 1], without a temperature and with one.
        used: whether the model has that temperature.
    """

    before: dict[str, float]
    after: dict[str, float]
    used: bool

    @property
    def errors(self) -> dict[str, float]:
        """Of the probabilities as the model gives them."""
        return self.after if self.used else self.before


@dataclass(frozen=True)
class StudyAbout:
    """The study that a model comes from: its name, what it decided, and the calibration; None where that is not known."""

    name: str = ""
    decisions: tuple[Decision, ...] = ()
    calibration: CalibrationAbout | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The free-form part of a model, as far as it is known: data set, folds, versions, study."""

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
        temperatures: what logits are divided by; () for 1.
        networks: those of an ensemble that are not the plan's.
        info: as of the model.
    """

    plan: Plan
    labels: LabelSchema
    channels: tuple[str, ...]
    postprocessing: tuple[str, ...] = ()
    temperatures: tuple[float, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    info: ModelInfo = ModelInfo()
