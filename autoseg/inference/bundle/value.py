"""The value that a model is in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from autoseg.data.labels import LabelSchema
from autoseg.data.unlike import TrainingScans
from autoseg.inference.bundle.record import BESIDE, COARSE
from autoseg.inference.windows import AdaptiveWindows
from autoseg.reconstruct.components import LabelRule
from planners.plan import NetworkSpec, Plan

__all__ = ["Bundle", "State"]

State = Mapping[str, torch.Tensor]  # of a network, by name


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model in memory, its weights still on disk.

    Attributes:
        plan: how scans are prepared and which network it is.
        labels: what the outputs mean.
        channels: image channels in order.
        file_ending: of the training data, such as ``.nii.gz``.
        folds: fold name -> function without arguments that returns the state dict, checked.
        learned_from: fold name -> digests of the training cases that it learned from; empty where the model does not say.
        windows: fold name -> AdaptiveWindows, of the folds for which somebody has looked for them.
        info: versions, provenance, validation scores; plain JSON.
        digest: sixteen hexadecimal digits of all that predictions depend on, weights included: the identity of the model.
        name: where it was loaded from, for messages.
        postprocessing: rules for the final labels, in order.
        scans: what the training scans were like; None where the model does not say.
        coarse: the coarse stage of a cascade, whose labels this model reads; else None.
        temperatures: what logits are divided by before they become probabilities: one, or one for each region; () for 1.
        networks: fold name -> its network, of folds that have not the plan's.
        beside: a model of another plan, with the same labels and channels, whose logits are averaged with these on the grid of
            the scan; else None.
        digest_with: the digest that the model would have with some of its folds alone: what a prediction by these depends on.
    """

    plan: Plan
    labels: LabelSchema
    channels: tuple[str, ...]
    file_ending: str
    folds: Mapping[str, Callable[[], State]]
    learned_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    windows: Mapping[str, AdaptiveWindows] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    name: str = "model"
    postprocessing: tuple[LabelRule, ...] = ()
    scans: TrainingScans | None = None
    coarse: Bundle | None = None
    temperatures: tuple[float, ...] = ()
    networks: Mapping[str, NetworkSpec] = field(default_factory=dict)
    beside: Bundle | None = None
    digest_with: Callable[[Collection[str]], str] = lambda folds: ""

    @property
    def stages(self) -> Mapping[str, Bundle]:
        """Folder within the model -> each model in it, itself first."""
        found = {"": self, f"{COARSE}/": self.coarse, f"{BESIDE}/": self.beside}
        return {folder: stage for folder, stage in found.items() if stage is not None}

    def network_of(self, fold: str) -> NetworkSpec:
        """The network whose weights a fold has."""
        return self.networks.get(fold, self.plan.network)
