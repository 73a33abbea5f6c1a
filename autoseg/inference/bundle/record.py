"""What ``model.json`` says, and the names of the files of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.data.labels import LabelSchema
from autoseg.data.unlike import TrainingScans
from autoseg.errors import AutosegError, ModelError
from autoseg.inference.windows import AdaptiveWindows
from autoseg.reconstruct.components import LabelRule
from autoseg.workspace import as_record, parse_json, unsealed
from planners.names import fault_of_name
from planners.plan import NetworkSpec, Plan
from planners.records import added, schema_number

__all__ = ["AGAIN", "BESIDE", "COARSE", "MODEL", "ModelRecord", "WeightFile", "checked_record", "parse_model", "weight_name"]

MODEL = "model.json"
COARSE, BESIDE = "coarse", "beside"  # folders of a model within a model
FORMAT = "autoseg model 1"
SCHEMA = 3  # 2: what folds learned from, rules for labels; 3: scans, a coarse stage, windows, temperatures, networks
FOLD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
AGAIN = "Copy the model again from its source."


def weight_name(fold: str) -> str:
    """The file of the weights of a fold."""
    return f"fold_{fold}.safetensors"


@dataclass(frozen=True)
class WeightFile:
    """What ``model.json`` says about the weights of one fold.

    ``learned_from`` are digests of the training cases that the fold learned from, empty where the model does not say. No
    prediction depends on it, so it is no part of the model's identity. Neither are the ``windows`` that it proposes: which ones
    a prediction computes is an option of it, and None where nobody has looked. ``network`` is None for the plan's own; in an
    ensemble folds of several networks share a plan.
    """

    fold: str
    digest: str
    bytes: int
    learned_from: tuple[str, ...] = added(2, (), counts=False)
    windows: AdaptiveWindows | None = added(3, None, counts=False)
    network: NetworkSpec | None = added(3, None)


@dataclass(frozen=True)
class ModelRecord:
    """``model.json`` without its free-form ``info``.

    ``coarse`` is the digest of the coarse stage, where the plan has one, ``beside`` that of the second model of an ensemble.
    """

    plan: Plan
    labels: LabelSchema
    channels: tuple[str, ...]
    file_ending: str
    weights: tuple[WeightFile, ...] = ()
    format: str = FORMAT
    postprocessing: tuple[LabelRule, ...] = added(2, ())
    scans: TrainingScans | None = added(3, None, counts=False)
    coarse: str = added(3, "")
    temperatures: tuple[float, ...] = added(3, ())
    beside: str = added(3, "")
    schema: int = schema_number(SCHEMA, since=2)

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"expected the format {FORMAT!r}, found {self.format!r}; a newer autoseg may read it")
        if not self.file_ending.startswith(".") or fault_of_name(f"case{self.file_ending}"):
            raise ValueError(f"file_ending must be such as .nii.gz, found {self.file_ending!r}")
        labels = self.plan.coarse.count if self.plan.coarse else 0
        more = f" and {labels} coarse labels" if labels else ""
        if labels and labels != len(self.labels.declared_values) - 1:
            raise ValueError(f"the network reads {labels} coarse labels, but there are {len(self.labels.declared_values) - 1}")
        for network in (self.plan.network, *(entry.network for entry in self.weights if entry.network)):
            if network.in_channels != len(self.channels) + labels:
                raise ValueError(f"the network takes {network.in_channels} channels, but the model names {self.channels}{more}")
            if network.out_channels != self.labels.n_heads:
                raise ValueError(f"the network has {network.out_channels} outputs, but the labels need {self.labels.n_heads}")
        expected = len(self.labels.structures) if self.labels.has_regions else 1
        if self.temperatures and (len(self.temperatures) != expected or min(self.temperatures) <= 0):
            raise ValueError(f"temperatures must be {expected} numbers above 0, or none, found {self.temperatures}")
        for entry in self.weights:
            if not FOLD_NAME.fullmatch(entry.fold):
                raise ValueError(f"a fold cannot be called {entry.fold!r}; use letters, digits, - and _")
        names = tuple(channel.name for channel in self.scans.channels) if self.scans else self.channels
        if names != self.channels:
            raise ValueError(f"the model names the channels {self.channels}, but says what {names} were like")


def parse_model(data: bytes, where: str | Path) -> tuple[ModelRecord, dict[str, Any]]:
    """(ModelRecord, info) from the bytes of a model.json."""
    try:
        content = unsealed(parse_json(data, where), where)
    except AutosegError as fault:
        raise ModelError(str(fault)) from fault
    if not isinstance(content, dict) or not isinstance(info := content.pop("info", {}), dict):
        raise ModelError(f"{where}: expected an object, and an object as its 'info'")
    return as_record(ModelRecord, content, where, error=ModelError, remedy=AGAIN), info


def checked_record(
    plan: Plan,
    labels: LabelSchema,
    channels: Iterable[str],
    file_ending: str,
    weights: Iterable[str],
    folder: Path,
    postprocessing: Iterable[LabelRule] = (),
) -> ModelRecord:
    """The record of a model of these folds, without their weights.

    Raises:
        ModelError: it would be none; ``folder`` is named.
    """
    try:
        record = ModelRecord(plan, labels, tuple(channels), file_ending, postprocessing=tuple(postprocessing))
        replace(record, weights=tuple(WeightFile(fold, "", 0) for fold in weights))
    except ValueError as fault:
        raise ModelError(f"{folder}: {fault}") from fault
    return record
