"""A model as a value in memory."""

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

State = Mapping[str, torch.Tensor]  # tensors of a network, by name


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model in memory, its weights still on disk.

    Attributes:
        plan: preparation of scans and the network.
        labels: meaning of the outputs.
        channels: image channels in order.
        file_ending: of the training data, such as ``.nii.gz``.
        folds: fold name -> function without arguments that returns the state dict, checked.
        learned_from: fold name -> digests of its training cases; empty if the model does not record them.
        windows: fold name -> AdaptiveWindows, for folds for which they were calibrated.
        info: versions, provenance, validation scores; plain JSON.
        digest: 16 hexadecimal digits over everything that predictions depend on, weights included: the model's identity.
        name: where it was loaded from, for messages.
        postprocessing: rules for the final labels, in order.
        scans: properties of the training scans; None if the model does not record them.
        coarse: the coarse stage of a cascade, whose labels this model reads; else None.
        temperatures: divisors of the logits before softmax or sigmoid: one, or one for each region; () for 1.
        networks: fold name -> its network, for folds that do not use the plan's.
        beside: a model of another plan, with the same labels and channels, whose logits are averaged with these on the grid of
            the scan; else None.
        digest_with: the digest of the model reduced to some of its folds, on which a prediction with these depends.
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
        """Folder inside the model -> the model there, itself first."""
        found = {"": self, f"{COARSE}/": self.coarse, f"{BESIDE}/": self.beside}
        return {folder: stage for folder, stage in found.items() if stage is not None}

    def network_of(self, fold: str) -> NetworkSpec:
        """The network of a fold."""
        return self.networks.get(fold, self.plan.network)
