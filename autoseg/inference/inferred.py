"""The values of a scan on its way through a model: prepared, network output, inferred."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.data.unlike import Unlike
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import SurfaceMesh
from autoseg.imaging.volume import LabelVolume
from autoseg.options import SurfaceOptions
from autoseg.reconstruct.native import probabilities_to_native
from autoseg.reconstruct.shared import shared_surfaces
from autoseg.reconstruct.surface import surfaces_from_labels, surfaces_from_scores
from autoseg.records import doubts
from planners.plan import Plan

if TYPE_CHECKING:  # the verbs that make surfaces of label maps do not wait for torch
    from autoseg.inference.slot_maps import StageMaps

__all__ = ["Answer", "Inferred", "ModelFacts", "Prediction", "Prepared"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the network grid: ``data`` (C, z, y, x) float32 on ``grid``, and its original ``native`` grid.

    ``notes`` are sentences about choices made in reading. ``unlike`` lists the quantities in which the scan differs from the
    training scans; None if the model does not describe these. ``beside`` is the same scan prepared for the second model of an
    ensemble of two plans.
    """

    data: np.ndarray
    grid: Geometry
    native: Geometry
    seconds: float
    notes: tuple[str, ...] = ()
    unlike: tuple[Unlike, ...] | None = None
    beside: Prepared | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The output of the networks for a prepared scan.

    Attributes:
        logits: (K, z, y, x) float32 on the network grid, averaged over folds and mirrored TTA: an array, or LazyLogits. For
            an ensemble of two plans, an array on the scan's grid.
        seconds: computing time.
        notes: sentences about anything unusual.
        agreement: inter-fold Dice of each structure; None if not requested, or with one fold.
        windows: (computed, of): tiles (windows in each mirrored view) that were computed, out of all.
    """

    logits: Any
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    agreement: tuple[float | None, ...] | None = None
    windows: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of a model for a scan.

    Attributes:
        labels: label values (not codes) on the scan's own grid.
        probabilities: (K, Z, Y, X) float16 on that grid, one per head of the network: background and structures, which add
            up to one, or regions, each in [0, 1]. None if not requested.
        model: ``Bundle.digest`` of the model.
        seconds: of each step: ``prepare``, ``infer``, ``decode``.
        notes: sentences about anything unusual.
        fold_agreement: inter-fold Dice of each structure, see ``confidence.agreement``; None if not requested, or with
            one fold.
        unlike: as in Prepared.
    """

    labels: LabelVolume
    probabilities: np.ndarray | None
    model: str
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    fold_agreement: tuple[float | None, ...] | None = None
    unlike: tuple[Unlike, ...] | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What outputs need to know about a model.

    Attributes:
        name, digest: of the Bundle.
        labels: meaning of its outputs.
        plan: preparation of scans.
        folds: the folds used.
        restores: whether it was trained to restore images.
        compares_folds: whether inter-fold agreement was requested.
        gates: {stage: largest gate of its slot attention}, from the first fold; empty without slots.
        device, precision: where and in which number format the networks run.
        temperatures: as in Bundle.
    """

    name: str
    digest: str
    labels: LabelSchema
    plan: Plan
    folds: tuple[str, ...]
    restores: bool = False
    compares_folds: bool = False
    gates: Mapping[int, float] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "fp32"
    temperatures: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Inferred:
    """A scan and everything a model inferred from it: the input of every output.

    Attributes:
        labels: the final label values on the scan's own grid.
        prepared, answer: the values they come from. For an ensemble of two plans, both are on the scan's grid.
        model: ModelFacts.
        orders: spline order of each network axis on the way to the scan's grid.
        seconds: of each step.
        restore: (data, slices) -> restored image, see ``Predictor.restore``; None if the model cannot restore.
        attention: number of slots of each head -> StageMaps of each stage with slots.
        scratch: folder for arrays too large for memory; None for the system's.
        from_logits: whether the labels come directly from the logits. If they were changed, surfaces follow the labels.
        in_half: whether logits are rounded to half precision on the scan's grid, see ``native.logits_to_codes``.
    """

    labels: LabelVolume
    prepared: Prepared
    answer: Answer
    model: ModelFacts
    orders: tuple[int, ...]
    seconds: dict[str, float]
    restore: Callable[[np.ndarray, Any], np.ndarray] | None = None
    attention: Callable[[int], Iterator[StageMaps]] = lambda per_head: iter(())
    scratch: str | Path | None = None
    from_logits: bool = True
    in_half: bool = False
    _surfaces: dict[tuple[float, bool], list[SurfaceMesh | None]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.prepared.notes, *self.answer.notes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the labels should be checked: a channel shows nothing, the scan is unlike the training scans, or the folds
        disagree."""
        agreed = zip(self.model.labels.structures, self.answer.agreement or (), strict=False)
        channels = zip(self.model.plan.normalization, self.prepared.data, strict=False)  # a cascade has more after these
        blank = [how.channel for how, data in channels if data.min() == data.max()]
        empty = [f"the network sees one value in all voxels of {', '.join(blank)}"] if blank else []
        return (*empty, *doubts(self.prepared.unlike or (), dict(agreed)))

    def probabilities(self) -> np.ndarray:
        """(K, Z, Y, X) float16 on the scan's grid; memory-mapped if too large for memory."""
        found: np.ndarray = probabilities_to_native(
            self.answer.logits,
            self.prepared.grid,
            self.prepared.native,
            scratch=self.scratch,
            orders=self.orders,
            has_regions=self.model.labels.has_regions,
            temperatures=self.model.temperatures,
            in_half=self.in_half,
        )
        return found

    def surfaces(self, how: SurfaceOptions) -> list[SurfaceMesh | None]:
        """A surface, or None, for each structure; computed once."""
        key = how.decimate, how.shared
        if key not in self._surfaces:
            self._surfaces[key] = self._make_surfaces(*key)
        return self._surfaces[key]

    def _make_surfaces(self, decimate: float, shared: bool) -> list[SurfaceMesh | None]:
        labels = self.model.labels
        if shared:
            return shared_surfaces(self.labels, self.model.labels.groups)
        if not self.from_logits:
            return surfaces_from_labels(self.labels, self.model.labels.groups, decimate=decimate)
        return surfaces_from_scores(
            self.answer.logits,
            self.prepared.grid,
            labels.structures,
            has_regions=labels.has_regions,
            decimate=decimate,
        )
