"""From a scan to labels on the scan's own grid, with a model that is loaded once.

The way has three steps, each a method, so that ``cohort`` can work on several cases at a time: ``prepare`` (scan to network
grid; reading, numpy), ``infer`` (the networks; the only step that uses the device) and ``decode`` (logits to labels on the
native grid; numpy). ``predict`` is the three in a row.
"""

import logging
import threading
import time
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from autoseg.errors import FileError, ModelError
from autoseg.imaging.dicom_series import DicomSeries
from autoseg.imaging.files import read_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.resample import axis_orders
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.inference.bundle import Bundle, load_bundle, load_networks
from autoseg.inference.sliding_window import predict_logits
from autoseg.networks import finest_head, postpone_logits
from autoseg.networks.machine import choose_device, faster_in_bf16, give_to_onednn
from autoseg.preprocess.case import prepare_volume, spacing_of
from autoseg.reconstruct.components import keep_largest
from autoseg.reconstruct.composed import ComposedLogits, all_finite
from autoseg.reconstruct.confidence import agreement, votes_of
from autoseg.reconstruct.native import logits_to_codes, probabilities_to_native

__all__ = ["Prediction", "Predictor", "Prepared"]

logger = logging.getLogger(__name__)

PROBE_EDGE = 48  # voxels; large enough that convolutions dominate, small enough for a second on a laptop


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the network grid: ``data`` (C, z, y, x) float32 on ``grid``, and the ``native`` grid it came from.

    ``notes`` are sentences about choices that reading took.
    """

    data: np.ndarray
    grid: Geometry
    native: Geometry
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about a scan.

    Attributes:
        labels: label values (not codes) on the scan's own grid.
        probabilities: (K, Z, Y, X) float16 on that grid, one per head of the network: background and structures, which add
            up to one, or regions, each in [0, 1]. None where not asked for.
        model: ``Bundle.digest`` of the model.
        seconds: of each step: ``prepare``, ``infer``, ``decode``.
        notes: sentences about what went another way than usual.
        fold_agreement: for each structure how far the folds agree, see ``confidence.agreement``; None where not asked for, or
            of one fold.
    """

    labels: LabelVolume
    probabilities: np.ndarray | None
    model: str
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    fold_agreement: tuple[float | None, ...] | None = None


class Predictor:
    """A model that waits for scans; starts no processes.

    Args:
        model: a Bundle, or the path of a model's folder or zip.
        folds: names of folds, whose logits are averaged; None for all that the model has.
        device: ``auto`` (CUDA, else MPS, else CPU), or a name as torch knows it.
        mirror: average over the mirrorings that the plan allows; 2 to the number of axes times the work.
        step: distance of neighbouring windows as a part of the window, in (0, 1].
        resample_channels: bring channels that lie on other grids onto that of the first, instead of refusing them.
        fold_agreement: measure how far the folds agree. They then go over the scan one after the other, which takes memory for
            a second set of logits, and changes no logit but by rounding.
        precision: ``fp32``, ``bf16``, or ``auto``: bf16 on a GPU that has it, and on a CPU where a short trial finds it faster.
            Results differ by rounding, so say ``fp32`` where two machines must agree.
        scratch: folder for what is too large for memory while a scan is predicted (many structures, large volumes); None for
            the system's temporary folder.

    Raises:
        ModelError: no usable model, a fold that it lacks, damaged weights.
        AutosegError: no such device.
    """

    def __init__(
        self,
        model,
        *,
        folds=None,
        device="auto",
        mirror=True,
        step=0.5,
        resample_channels=False,
        fold_agreement=False,
        precision="auto",
        scratch=None,
    ):
        if not 0 < step <= 1:
            raise ModelError(f"step must be above 0 and at most 1, found {step}")
        if precision not in ("auto", "fp32", "bf16"):
            raise ModelError(f"precision must be auto, fp32 or bf16, found {precision!r}")
        self.bundle = model if isinstance(model, Bundle) else load_bundle(model)
        self.device = choose_device(device)
        self.scratch = scratch
        self.step = float(step)
        self.resample_channels = resample_channels
        self.fold_agreement = fold_agreement
        self.mirror_axes = tuple(self.bundle.plan.mirror_axes) if mirror else ()
        networks = load_networks(self.bundle, folds)
        self.folds = tuple(networks)
        self._device_lock = threading.Lock()
        self.networks = [network.to(self.device) for network in networks.values()]
        self._heads = _fewer_than_logits([finest_head(network) for network in self.networks])
        for network in self.networks if self._heads else ():
            postpone_logits(network)
        if precision == "auto":
            precision = "bf16" if faster_in_bf16(self.networks[0], self._probe_shape(), self.device) else "fp32"
        self.precision = precision
        if self.device.type == "cpu" and precision == "fp32":
            for network in self.networks:
                give_to_onednn(network)

    @property
    def restores(self):
        """Whether the model has learned to restore images."""
        return self.bundle.plan.network.restoration

    def options(self):
        """What, besides the model and the scan, the result depends on; JSON. Without the precision, which only rounds."""
        asked = {name: True for name in ("resample_channels", "fold_agreement") if getattr(self, name)}
        return {"folds": list(self.folds), "mirror_axes": list(self.mirror_axes), "step": self.step, **asked}

    def predict(self, scan, *, probabilities=False):
        """Labels of one scan.

        Args:
            scan: ``Volume``, the path of an image (of a DICOM folder too), or a sequence of paths, one per channel.
            probabilities: also return them: 2 bytes per voxel and head, mapped from a file where that is too large for memory.

        Returns:
            Prediction on the grid of the scan.

        Raises:
            ModelError: another number of channels than the model was trained with.
            FileError, GeometryError: as ``read_volume``.
        """
        prepared = self.prepare(scan)
        logits, about = self.infer(prepared)
        return self.decode(logits, prepared, probabilities=probabilities, **about)

    def prepare(self, scan):
        """Read a scan, where it is a path, and bring it to the network grid; returns ``Prepared``."""
        start, notes = time.perf_counter(), []
        how = {"resample": self.resample_channels, "on_note": notes.append}
        volume = scan if isinstance(scan, Volume) else read_volume(scan, **how)
        expected = self.bundle.channels
        if len(volume.data) != len(expected):
            names = ", ".join(expected)
            raise ModelError(
                f"{_names(scan)}: the model expects {len(expected)} channels ({names}), found {len(volume.data)}. "
                "Give one file with all of them, or a folder with a file for each: CASE_0000 and so on"
            )
        data, grid = prepare_volume(volume, self.bundle.plan)
        if not np.isfinite(data).all():
            raise FileError(f"{_names(scan)}: holds values that are not finite numbers. `autoseg verify` lists such scans")
        return Prepared(data, grid, volume.geometry, time.perf_counter() - start, tuple(notes))

    def infer(self, prepared):
        """The networks' averaged logits (K, z, y, x) float32 on the network grid, and what ``decode`` takes besides: the
        seconds they took, notes, and the agreement of the folds.

        Where all networks together have fewer features than heads, the logits are ComposedLogits of these.
        """
        start, notes = time.perf_counter(), []
        how = {"mirror_axes": self.mirror_axes, "on_note": notes.append}
        several = self.fold_agreement and len(self.networks) > 1
        if self._heads:
            logits, agreed = self._composed(prepared.data, how, several)
        elif several:
            logits, agreed = self._fold_by_fold(prepared.data, how)
        else:
            logits, agreed = self.over_windows(self.networks, prepared.data, **how), None
        if not all_finite(logits):
            raise ModelError(f"{self.bundle.name}: the network returned numbers that are not finite; try precision fp32")
        return logits, {"seconds": time.perf_counter() - start, "notes": tuple(notes), "fold_agreement": agreed}

    def _fold_by_fold(self, data, how):
        """(logits averaged over the folds, agreement of the folds on each structure)."""
        votes, total = [], None
        for network in self.networks:
            logits = self.over_windows([network], data, **how)
            votes.append(votes_of(logits, has_regions=self.bundle.labels.has_regions))
            for head in logits:
                head /= len(self.networks)
            if total is None:
                total = logits
                continue
            for mean, head in zip(total, logits, strict=True):
                mean += head
        return total, self._agreement(votes)

    def _composed(self, data, how, several):
        """(ComposedLogits of the features of all folds, their agreement where ``several`` are to be compared)."""

        def features(tiles):
            return torch.cat([network(tiles).features for network in self.networks], dim=1)

        found, agreed = self.over_windows([features], data, **how), None
        if several:
            ends = np.cumsum([head.in_channels for head in self._heads])
            folds = [_compose(part, [head]) for part, head in zip(np.split(found, ends[:-1]), self._heads, strict=True)]
            agreed = self._agreement([votes_of(fold, has_regions=self.bundle.labels.has_regions) for fold in folds])
        return _compose(found, self._heads), agreed

    def _agreement(self, votes):
        labels = self.bundle.labels
        return tuple(agreement(votes, len(labels.structures), has_regions=labels.has_regions))

    def restore(self, data, slices=(1.0, 1.0, 1.0)):
        """An image restored.

        Args:
            data: (C, z, y, x) float32 on the network grid, in stored intensities.
            slices: how many voxels of that grid a slice of the scan is thick along (z, y, x), 1 where it is as thin.

        Returns:
            The same shape, in [0, 1].

        Raises:
            ModelError: the model does not restore images.
        """
        if not self.restores:
            raise ModelError(f"{self.bundle.name}: was trained without restoration_weight and does not restore images")
        networks = [_Restoring(network, slices) for network in self.networks]
        return self.over_windows(networks, data, mirror_axes=self.mirror_axes)

    def over_windows(self, functions, data, *, mirror_axes=(), on_note=logger.warning):
        """Any ``functions`` of (B, C, *patch), not only the networks, as ``predict_logits`` takes them over a whole volume.

        One call at a time uses the device; others wait, so threads need not share its memory.

        Args:
            data: (C, z, y, x) float32 on the network grid.

        Returns:
            (K, z, y, x) float32: what the functions return, K channels, blended with the weights of the windows.
        """
        plan = self.bundle.plan
        with self._device_lock:
            return predict_logits(
                functions,
                data,
                patch_size=plan.patch_size,
                step=self.step,
                mirror_axes=mirror_axes,
                device=self.device,
                autocast=torch.bfloat16 if self.precision == "bf16" else None,
                batch_views=1 if self.device.type == "cpu" else plan.batch_size,
                pad_value=plan.network.input_mean or 0.0,  # zero after the network's first operation, as in training
                peak=plan.window_peak,
                scratch=self.scratch,
                on_note=on_note,
            )

    def decode(self, logits, prepared, *, probabilities=False, seconds=0.0, notes=(), fold_agreement=None):
        """Logits on the network grid to a Prediction on the scan's grid; the last three are those of ``infer``."""
        start = time.perf_counter()
        labels = self.bundle.labels
        how = {"orders": self._logits_orders(prepared), "has_regions": labels.has_regions}
        paint = labels.paint_codes if labels.has_regions else None
        codes = logits_to_codes(logits, prepared.grid, prepared.native, paint_codes=paint, **how)
        values = keep_largest(np.array(labels.declared_values, np.int32)[codes], self.bundle.postprocessing)
        chances = None
        if probabilities:
            chances = probabilities_to_native(logits, prepared.grid, prepared.native, scratch=self.scratch, **how)
        took = {"prepare": prepared.seconds, "infer": seconds, "decode": time.perf_counter() - start}
        volume, notes = LabelVolume(values, prepared.native), (*prepared.notes, *notes)
        return Prediction(volume, chances, self.bundle.digest, took, notes, fold_agreement)

    def _logits_orders(self, prepared):
        """Spline order for each network axis on the way to the native grid."""
        spacing_to, rule = spacing_of(prepared.native, self.bundle.plan), self.bundle.plan.resampling
        return axis_orders(prepared.grid.spacing_mm, spacing_to, rule.logits_order, rule.coarse_logits_order, rule.coarse_ratio)

    def _probe_shape(self):
        """(C, z, y, x) of the trial patch: the plan's, but no edge far beyond ``PROBE_EDGE``; two voxels at the bottom."""
        spec = self.bundle.plan.network
        edges = zip(self.bundle.plan.patch_size, spec.divisor, strict=True)
        return (spec.in_channels, *(min(edge, max(2, PROBE_EDGE // divisor) * divisor) for edge, divisor in edges))


def _fewer_than_logits(heads):
    """The last layers of all networks if what they read has fewer channels, all together, than what each gives; else ()."""
    fewer = None not in heads and sum(head.in_channels for head in heads) < heads[0].out_channels
    return tuple(heads) if fewer else ()


def _compose(features, heads):
    """ComposedLogits (K, z, y, x), the mean over networks: their features (F, z, y, x), one after the other, and Heads."""
    weights = [head.weight.detach().flatten(1).cpu().numpy() for head in heads]
    bias = np.mean([head.bias.detach().cpu().numpy() for head in heads], axis=0)
    return ComposedLogits(features, np.concatenate(weights, axis=1) / len(heads), bias)


class _Restoring(torch.nn.Module):
    """A network that returns the restored image instead of logits."""

    def __init__(self, network, slices):
        super().__init__()
        self.network, self.slices = network, torch.tensor(slices)

    def forward(self, x):
        return self.network(x, restore=self.slices.expand(len(x), 3))[1]


def _names(scan):
    """The scan, for messages."""
    if isinstance(scan, Volume):
        return "the volume"
    images = [scan] if isinstance(scan, str | PathLike | DicomSeries) else scan
    return ", ".join(image.name if isinstance(image, DicomSeries) else Path(image).name for image in images)
