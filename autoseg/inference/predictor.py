"""From a scan to labels on the scan's own grid, with a model loaded once.

There are three steps, each a method, so that ``cohort`` can work on several cases at a time: ``prepare`` (scan to network grid;
reading, numpy), ``infer`` (the networks on the device) and ``decode`` (logits to labels on the native grid; numpy). ``predict``
runs all three. The fine stage of a cascade also reads the prediction of its coarse stage; ``prepare`` then uses a Predictor of
the coarse stage, on the same device.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.errors import FileError, ModelError
from autoseg.imaging.dicom_series import DicomSeries
from autoseg.imaging.files import read_volume
from autoseg.imaging.resample import axis_orders
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.inference.adaptive import Reading, Stage, grid_of, predict_adaptively, try_doubts
from autoseg.inference.bundle import Bundle, load_bundle, load_networks
from autoseg.inference.choice import doubt_of
from autoseg.inference.inferred import Answer, Inferred, ModelFacts, Prediction, Prepared
from autoseg.inference.sliding_window import Network, Tiling, flips_of, predict_logits
from autoseg.inference.slot_maps import stage_maps
from autoseg.inference.windows import Doubt
from autoseg.names import counted
from autoseg.networks import close_gates, slot_blocks
from autoseg.networks.devices import choose_device, prepare_for
from autoseg.options import InferenceOptions
from autoseg.preprocess.case import coarse_codes, one_hot, prepare_volume, spacing_of
from autoseg.preprocess.facts import unlike_training
from autoseg.reconstruct.components import apply_rules
from autoseg.reconstruct.confidence import agreement, votes_of
from autoseg.reconstruct.lazy_logits import LazyLogits, all_finite
from autoseg.reconstruct.native import Part, logits_to_codes, mean_on_native
from planners.cost import prefers_lazy_logits
from planners.plan import NetworkSpec

__all__ = ["Prediction", "Predictor", "Prepared"]

logger = logging.getLogger(__name__)

PROBE_EDGE = 48  # voxels; convolutions dominate, and a laptop needs about a second

Image = str | Path | DicomSeries
Scan = Volume | Image | Sequence[Image]
Head = tuple[torch.Tensor, torch.Tensor]  # weight and bias of a last layer
Agreement = tuple[float | None, ...] | None


@dataclass(frozen=True, eq=False)
class Asked:
    """What is computed in each window.

    Attributes:
        functions: (B, C, *patch) -> the arrays to blend.
        reading: how they are interpreted within a window.
        finish: the blended array -> Logits.
        heads: last layers to apply to blended features; filled when the functions are called.
    """

    functions: Sequence[Network]
    reading: Reading
    finish: Callable[[np.ndarray], Any]
    heads: list[Head] = field(default_factory=list)


Look = Callable[[Asked], np.ndarray]


class Predictor:
    """A model loaded for prediction; starts no processes.

    Args:
        model: a Bundle, or the path of a model's folder or zip.
        options: InferenceOptions. ``mirror``: mirrored TTA, 2 to the power of the number of axes passes; ``step``: tile step,
            in (0, 1]. To compare folds, they process the scan one after the other. This needs memory for a second set of
            logits and changes logits only by rounding; each fold then chooses its own adaptive windows. A coarse stage uses
            the same ``folds``, or all if it lacks one of them. ``precision`` ``auto`` is bf16 on a GPU that supports it, and
            on a CPU if a short trial is faster; results differ by rounding, so use ``fp32`` if two machines must agree.
        device: ``auto`` (CUDA, else MPS, else CPU), or a torch device name.
        scratch: folder for arrays too large for memory during prediction (many structures, large volumes); None for the
            system's temporary folder.

    Raises:
        ModelError: no usable model, a missing fold, damaged weights; adaptive windows requested from a model without them.
        AutosegError: no such device.
    """

    def __init__(
        self,
        model: Bundle | str | Path,
        options: InferenceOptions | None = None,
        *,
        device: str = "auto",
        scratch: str | Path | None = None,
    ) -> None:
        self.options = options = options or InferenceOptions()
        if not 0 < options.step <= 1:
            raise ModelError(f"step must be above 0 and at most 1, found {options.step}")
        if options.precision not in ("auto", "fp32", "bf16"):
            raise ModelError(f"precision must be auto, fp32 or bf16, found {options.precision!r}")
        self.bundle = model if isinstance(model, Bundle) else load_bundle(model)
        self.device = choose_device(device)
        self.scratch = scratch
        self.doubt = doubt_of(self.bundle, options)
        self.mirror_axes = tuple(self.bundle.plan.mirror_axes) if options.mirror else ()
        several = len(self.bundle.folds if options.folds is None else options.folds)
        self._lazy = (
            not self.bundle.networks and prefers_lazy_logits(self.bundle.plan.network, several) and not options.half_sums
        )
        networks = load_networks(self.bundle, options.folds, lazy_logits=self._lazy)
        self._device_lock = threading.Lock()
        self.networks = [network.to(self.device) for network in networks.values()]
        for network in self.networks if options.closed_gates else ():
            close_gates(network)
        specs = [self.bundle.network_of(fold) for fold in networks]
        first, *others = self.networks
        applied = prepare_for(self.device, first, specs[0], [self._trial_patch(specs[0])], precision=options.precision)
        for network, spec in zip(others, specs[1:], strict=True):
            prepare_for(self.device, network, spec, [self._trial_patch(spec)], precision=applied.precision)
        self.coarse = self._coarse_stage()
        self.beside = self._second_model()
        self.facts = ModelFacts(
            name=self.bundle.name,
            digest=self.bundle.digest,
            labels=self.bundle.labels,
            plan=self.bundle.plan,
            folds=tuple(networks),
            restores=all(spec.restoration for spec in specs) and self.beside is None,
            compares_folds=options.fold_agreement,
            gates={} if self.beside else {s: b.gate.abs().max().item() for s, b in slot_blocks(self.networks[0]).items()},
            device=str(self.device),
            precision=applied.precision,
            temperatures=self.bundle.temperatures,
        )

    def _coarse_stage(self) -> Predictor | None:
        coarse = self.bundle.coarse
        if coarse is None:
            return None
        folds = self.options.folds
        there = folds if folds is not None and coarse.folds.keys() >= {str(fold) for fold in folds} else None
        options = replace(self.options, folds=there, fold_agreement=False)
        predictor = Predictor(coarse, options, device=str(self.device), scratch=self.scratch)
        predictor._device_lock = self._device_lock
        return predictor

    def _second_model(self) -> Predictor | None:
        """The second model of an ensemble of two plans; it has the same device and fold names."""
        if self.bundle.beside is None:
            return None
        predictor = Predictor(self.bundle.beside, self.options, device=str(self.device), scratch=self.scratch)
        predictor._device_lock = self._device_lock
        return predictor

    def predict(self, scan: Scan, *, probabilities: bool = False) -> Prediction:
        """Predict the labels of one scan.

        Args:
            scan: ``Volume``, the path of an image or DICOM folder, or a sequence of paths, one per channel.
            probabilities: also return probabilities: 2 bytes per voxel and head, memory-mapped if too large for memory.

        Returns:
            Prediction on the grid of the scan.

        Raises:
            ModelError: another number of channels than the model was trained with.
            FileError, GeometryError: as ``read_volume``.
        """
        prepared = self.prepare(scan)
        found = self.decode(self.infer(prepared), prepared)
        chances = found.probabilities() if probabilities else None
        said = found.answer.agreement, prepared.unlike
        return Prediction(found.labels, chances, self.facts.digest, found.seconds, found.notes, *said)

    def prepare(self, scan: Scan) -> Prepared:
        """Read a scan, if it is a path, and resample it to the network grid, with the labels of a coarse stage."""
        start, resample = time.perf_counter(), self.options.resample_channels
        volume = scan if isinstance(scan, Volume) else read_volume(scan, resample=resample)
        expected = self.bundle.channels
        if len(volume.data) != len(expected):
            names = ", ".join(expected)
            raise ModelError(
                f"{_names(scan)}: the model expects {counted(len(expected), 'channel')} ({names}), found {len(volume.data)}. "
                "Give one file with all of them, or a folder with a file for each: CASE_0000 and so on"
            )
        data, grid = prepare_volume(volume, self.bundle.plan)
        if not np.isfinite(data).all():
            raise FileError(
                f"{_names(scan)}: expected finite numbers, found NaN or infinity. Export the scan again; `autoseg verify` says "
                "how many and where, for all scans of a data set"
            )
        training, plan, notes = self.bundle.scans, self.bundle.plan, volume.notes
        differs = None if training is None else unlike_training(volume, plan, training)
        if self.coarse:
            said = self.coarse.predict(volume)
            codes = self.bundle.labels.encode(said.labels.data)
            assert plan.coarse, "the model has a coarse stage"
            channels = one_hot(coarse_codes(codes, volume, plan), plan.coarse.count).astype(np.float32)
            data, notes = np.concatenate([data, channels]), (*notes, *said.notes)
        beside = self.beside.prepare(volume) if self.beside else None
        return Prepared(data, grid, volume.geometry, time.perf_counter() - start, notes, differs, beside)

    def infer(self, prepared: Prepared) -> Answer:
        """The networks' averaged logits (K, z, y, x) float32 on the network grid.

        If all networks together have fewer features than heads, the logits are LazyLogits of these. For an ensemble of two
        plans, they are on the scan's grid.
        """
        found = self._infer_alone(prepared)
        if self.beside is None or prepared.beside is None:
            return found
        start, other = time.perf_counter(), self.beside.infer(prepared.beside)
        parts = [
            Part(answer.logits, part.grid, predictor._logits_orders(part))
            for predictor, part, answer in ((self, prepared, found), (self.beside, prepared.beside, other))
        ]
        regions = self.bundle.labels.has_regions
        return Answer(
            logits=mean_on_native(parts, prepared.native, has_regions=regions, scratch=self.scratch),
            seconds=found.seconds + time.perf_counter() - start,
            notes=(*found.notes, *other.notes),
            agreement=_least(found.agreement, other.agreement),
            windows=(found.windows[0] + other.windows[0], found.windows[1] + other.windows[1]),
        )

    def _infer_alone(self, prepared: Prepared) -> Answer:
        """The output of the networks of this plan alone."""
        start = time.perf_counter()
        notes: list[str] = []
        counts: list[tuple[int, int]] = []
        several = self.options.fold_agreement and len(self.networks) > 1

        def look(asked: Asked) -> np.ndarray:
            stage, told = self._look(asked, prepared.data)
            notes.extend(told)
            counts.append((stage.computed, stage.of))
            return stage.result

        agreed = None
        if self._lazy:
            logits, agreed = self._infer_lazily(look, several)
        elif several:
            logits, agreed = self._fold_by_fold(look)
        else:
            logits = look(self._asked())
        if not all_finite(logits):
            raise ModelError(f"{self.bundle.name}: the network returned numbers that are not finite; try precision fp32")
        computed, of = (sum(column) for column in zip(*counts, strict=True))
        return Answer(logits, time.perf_counter() - start, tuple(notes), agreed, (computed, of))

    def try_doubts(self, data: np.ndarray, doubts: Sequence[Doubt]) -> list[Stage[np.ndarray]]:
        """The results of several Doubts on a scan, then of all windows; arguments as in ``adaptive.try_doubts``.

        Args:
            data: (C, z, y, x) float32 on the network grid.

        Returns:
            Stages with votes as from ``confidence.votes_of``.
        """
        asked, regions = self._asked(), self.bundle.labels.has_regions

        def judge(found: np.ndarray) -> np.ndarray:
            return votes_of(asked.finish(found), has_regions=regions)

        with self._device_lock:
            return try_doubts(
                asked.functions,
                data,
                self.tiling,
                doubts,
                asked.reading,
                judge,
                device=self.device,
                autocast=self._autocast,
                scratch=self.scratch,
            )

    def _asked(self, networks: Sequence[torch.nn.Module] | None = None) -> Asked:
        """What the networks (default: all) compute in each window, and how it is processed."""
        networks, regions = networks or self.networks, self.bundle.labels.has_regions
        if not self._lazy:
            return Asked(networks, Reading(regions), lambda found: found)
        heads: list[Head] = []

        def features(tiles: torch.Tensor) -> torch.Tensor:
            scores = [network(tiles) for network in networks]
            heads[:] = [(one.weight, one.bias) for one in scores]  # the same each time
            return torch.cat([one.features for one in scores], dim=1)

        reading = Reading(regions, lambda found: _logits_of(found, heads))
        return Asked([features], reading, lambda found: _lazy_logits(found, heads), heads)

    def _fold_by_fold(self, look: Look) -> tuple[Any, tuple[float | None, ...]]:
        """(logits averaged over the folds, inter-fold agreement on each structure)."""
        votes, total = [], None
        for network in self.networks:
            logits = look(self._asked([network]))
            votes.append(votes_of(logits, has_regions=self.bundle.labels.has_regions))
            for head in logits:
                head /= len(self.networks)
            if total is None:
                total = logits
                continue
            for mean, head in zip(total, logits, strict=True):
                mean += head
        return total, self._agreement(votes)

    def _infer_lazily(self, look: Look, several: bool) -> tuple[Any, tuple[float | None, ...] | None]:
        """(LazyLogits from the features of all folds, their agreement if ``several`` are to be compared)."""
        asked, agreed = self._asked(), None
        found = look(asked)
        if several:
            ends = np.cumsum([weight.shape[1] for weight, _ in asked.heads])
            parts = zip(np.split(found, ends[:-1]), asked.heads, strict=True)
            folds = [_lazy_logits(part, [head]) for part, head in parts]
            agreed = self._agreement([votes_of(fold, has_regions=self.bundle.labels.has_regions) for fold in folds])
        return asked.finish(found), agreed

    def _agreement(self, votes: list[np.ndarray]) -> tuple[float | None, ...]:
        labels = self.bundle.labels
        return tuple(agreement(votes, len(labels.structures), has_regions=labels.has_regions))

    def restore(self, data: np.ndarray, slices: Sequence[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
        """Restore an image.

        Args:
            data: (C, z, y, x) float32 on the network grid, in stored intensities.
            slices: slice thickness of the scan along (z, y, x), in voxels of that grid; 1 for thin slices.

        Returns:
            The same shape, in [0, 1].

        Raises:
            ModelError: the model does not restore images.
        """
        if not self.facts.restores:
            raise ModelError(f"{self.bundle.name}: was trained without restoration_weight and does not restore images")
        networks = [_Restoring(network, slices) for network in self.networks]
        return self.over_windows(networks, data, self.mirror_axes)

    def over_windows(self, functions: Sequence[Network], data: np.ndarray, mirror_axes: Sequence[int] = ()) -> np.ndarray:
        """Apply any ``functions`` of (B, C, *patch), not only the networks, to a whole volume, as in ``predict_logits``.

        One call at a time uses the device; others wait, so threads do not share its memory.

        Args:
            data: (C, z, y, x) float32 on the network grid.

        Returns:
            (K, z, y, x) float32: the K output channels, blended with the window weights.
        """
        found, notes = self._over_all_windows(functions, data, self._tiling(mirror_axes))
        for note in notes:
            logger.warning(note)
        return found

    def _look(self, asked: Asked, data: np.ndarray) -> tuple[Stage[np.ndarray], tuple[str, ...]]:
        """(Stage with the requested result, from the windows chosen by the options and the model; sentences)."""
        tiling = self.tiling
        if self.doubt is None:
            found, notes = self._over_all_windows(asked.functions, data, tiling)
            of = math.prod(grid_of(data.shape[1:], tiling).size) * len(flips_of(tiling))
            return Stage(found, of, of), notes
        with self._device_lock:
            return predict_adaptively(
                asked.functions,
                data,
                tiling,
                self.doubt,
                asked.reading,
                device=self.device,
                autocast=self._autocast,
                scratch=self.scratch,
            )

    def _over_all_windows(
        self, functions: Sequence[Network], data: np.ndarray, tiling: Tiling
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        with self._device_lock:
            return predict_logits(functions, data, tiling, device=self.device, autocast=self._autocast, scratch=self.scratch)

    @property
    def tiling(self) -> Tiling:
        """The tiling of a volume for this model, with all mirrored views."""
        return self._tiling(self.mirror_axes)

    @property
    def _autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.facts.precision == "bf16" else None

    def _tiling(self, mirror_axes: Sequence[int]) -> Tiling:
        plan = self.bundle.plan
        return Tiling(
            patch_size=plan.patch_size,
            step=self.options.step,
            mirror_axes=tuple(mirror_axes),
            batch=1 if self.device.type == "cpu" else plan.batch_size,
            pad_value=plan.network.input_mean or 0.0,  # zero after the network's first operation, as in training
            peak=plan.window_peak,
            half_sums=self.options.half_sums,
        )

    def decode(self, answer: Answer, prepared: Prepared) -> Inferred:
        """Convert the networks' output to labels on the scan's own grid."""
        start = time.perf_counter()
        if self.beside:
            prepared = replace(prepared, grid=prepared.native)  # the grid of both models' logits
        labels, orders = self.bundle.labels, (1, 1, 1) if self.beside else self._logits_orders(prepared)
        codes = logits_to_codes(
            answer.logits,
            prepared.grid,
            prepared.native,
            paint_codes=labels.paint_codes if labels.has_regions else None,
            orders=orders,
            has_regions=labels.has_regions,
            in_half=self.options.half_sums,
        )
        said = labels.decode(codes)
        rules = self.bundle.postprocessing if self.options.postprocess else ()
        values = apply_rules(said, rules, prepared.native.voxel_ml)
        return Inferred(
            labels=LabelVolume(values, prepared.native),
            prepared=prepared,
            answer=answer,
            model=self.facts,
            orders=orders,
            seconds={"prepare": prepared.seconds, "infer": answer.seconds, "decode": time.perf_counter() - start},
            restore=self.restore if self.facts.restores else None,
            attention=partial(stage_maps, self, prepared.data) if self.beside is None else lambda per_head: iter(()),
            scratch=self.scratch,
            from_logits=values is said,
            in_half=self.options.half_sums,
        )

    def _logits_orders(self, prepared: Prepared) -> tuple[int, ...]:
        """Spline order for each network axis for resampling to the native grid."""
        spacing_to, rule = spacing_of(prepared.native, self.bundle.plan), self.bundle.plan.resampling
        return tuple(
            axis_orders(prepared.grid.spacing_mm, spacing_to, rule.logits_order, rule.coarse_logits_order, rule.coarse_ratio)
        )

    def _trial_patch(self, spec: NetworkSpec) -> tuple[int, ...]:
        """(z, y, x) of the trial patch: the plan's, limited to about ``PROBE_EDGE``; two or more voxels at the bottleneck."""
        edges = zip(self.bundle.plan.patch_size, spec.divisor, strict=True)
        return tuple(min(edge, max(2, PROBE_EDGE // divisor) * divisor) for edge, divisor in edges)


def _least(one: Agreement, other: Agreement) -> Agreement:
    """The lower known fold agreement on each structure."""
    if one is None or other is None:
        return one or other
    return tuple(min((a for a in both if a is not None), default=None) for both in zip(one, other, strict=True))


def _lazy_logits(features: np.ndarray, heads: Sequence[Head]) -> LazyLogits:
    """LazyLogits (K, z, y, x), the mean over networks: their concatenated features (F, z, y, x), and their last layers."""
    weights = [weight.detach().flatten(1).cpu().numpy() for weight, _ in heads]
    bias = np.mean([bias.detach().cpu().numpy() for _, bias in heads], axis=0)
    return LazyLogits(features, np.concatenate(weights, axis=1) / len(heads), bias)


def _logits_of(features: torch.Tensor, heads: Sequence[Head]) -> Iterator[torch.Tensor]:
    """(z, y, x) logits of each head, the mean over networks, from concatenated features (F, z, y, x)."""
    weights = torch.cat([weight.detach().flatten(1) for weight, _ in heads], dim=1).float() / len(heads)
    biases = torch.stack([bias.detach().float() for _, bias in heads]).mean(dim=0)
    for weight, bias in zip(weights, biases, strict=True):
        yield torch.tensordot(weight, features.float(), dims=1) + bias


class _Restoring(torch.nn.Module):
    """A network that returns the restored image instead of logits."""

    def __init__(self, network: torch.nn.Module, slices: Sequence[float]) -> None:
        super().__init__()
        self.network, self.slices = network, torch.tensor(slices)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        restored: torch.Tensor = self.network(x, restore=self.slices.expand(len(x), 3))[1]
        return restored


def _names(scan: Scan) -> str:
    """The scan, for messages."""
    if isinstance(scan, Volume):
        return "the volume"
    images: Sequence[Image] = [scan] if isinstance(scan, str | Path | DicomSeries) else scan
    return ", ".join(image.name if isinstance(image, DicomSeries) else Path(image).name for image in images)
