"""The metrics by name, and their values when a mask is empty.

A metric is a function of ``(reference, predicted, spacing_mm)``, bool masks of one structure, that returns a number, or
``None`` if undefined. The end of its name is its unit (``_mm``, ``_ml``; otherwise none). The metrics here read a
``MaskPair``, which counts voxels and measures surfaces once for all. Other metrics get the masks cropped to their union.
``mse_mask`` and ``ssim_mask`` are explained in ``reconstruction``; they are read together with ``foreground_share``, the
fraction of the image that the reference fills.

Empty masks (a missed structure must never improve a mean by being left out of it):

==================  ==========================  ===========================  ==============================
metric              both empty                  only the reference empty     only the prediction empty
==================  ==========================  ===========================  ==============================
dice, iou, nsd      undefined: true negative    0                            0
precision           undefined                   0                            undefined
recall              undefined                   undefined                    0
hd95, hd, assd      undefined                   undefined                    diagonal of the image, flagged
volume error        0 mL, relative undefined    mL, relative undefined       minus the reference's volume, -1
mse_mask            undefined: true negative    fraction of the image        fraction of the image
ssim_mask, _roi     undefined                   of what was found            of what was missed
==================  ==========================  ===========================  ==============================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoseg.errors import GeometryError
from autoseg.evaluation import overlap, reconstruction, surfaces
from autoseg.registry import Registry

__all__ = ["METRICS", "MaskPair", "PairMetric", "default_tolerance_mm", "explain", "image_diagonal_mm", "unit_of"]


def default_tolerance_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Default tolerance of the surface Dice: the largest voxel edge, but at least 1 mm or ten voxels, whichever is less.

    With voxels of micrometres, 1 mm would be far too much. An axis of one voxel is not counted.
    """
    largest = max((s for s, n in zip(spacing_mm, shape, strict=True) if n > 1), default=1.0)
    return max(largest, min(1.0, 10 * largest))


def image_diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Length of the image diagonal; axes of one voxel are not counted."""
    return float(np.linalg.norm([s * n for s, n in zip(spacing_mm, shape, strict=True) if n > 1]))


@dataclass(frozen=True, eq=False)
class MaskPair:
    """One structure in the reference and in the prediction, with everything its metrics share.

    Attributes:
        reference, predicted: (Z, Y, X) bool, False where ``ignored``; a part of the image that contains both.
        steps_mm: (3, 3), see ``Geometry.steps_mm``.
        diagonal_mm: diagonal of the whole image, used as the distance to a structure that was missed.
        tolerance_mm: how far apart surfaces may be and still agree.
        n_voxels: voxels of the whole image that are not ignored; all of this part if None.
        ignored: (Z, Y, X) bool, voxels without annotation, or None.
        lower: (3,) index in the whole image where this part begins.
        image_shape: (3,) shape of the whole image; that of this part if None.
    """

    reference: np.ndarray
    predicted: np.ndarray
    steps_mm: np.ndarray
    diagonal_mm: float
    tolerance_mm: float
    n_voxels: int | None = None
    ignored: np.ndarray | None = None
    lower: Sequence[int] = (0, 0, 0)
    image_shape: Sequence[int] | None = None

    @classmethod
    def of_images(cls, reference: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float]) -> MaskPair:
        """A pair of whole images with the default tolerance.

        Raises:
            GeometryError: the masks differ in shape.
        """
        if reference.shape != predicted.shape:
            raise GeometryError(f"masks of one shape are expected: reference {reference.shape}, predicted {predicted.shape}")
        return cls(
            reference=reference,
            predicted=predicted,
            steps_mm=np.diag(spacing_mm),
            diagonal_mm=image_diagonal_mm(reference.shape, spacing_mm),
            tolerance_mm=default_tolerance_mm(reference.shape, spacing_mm),
        )

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along (z, y, x)."""
        return tuple(np.linalg.norm(self.steps_mm, axis=0).tolist())

    def volume_ml(self, n_voxels: int) -> float:
        """Volume of so many voxels, in mL; negative for a negative number."""
        return n_voxels * abs(float(np.linalg.det(self.steps_mm))) / 1000

    @cached_property
    def counts(self) -> overlap.Counts:
        """Voxel counts over the whole image."""
        return overlap.count_voxels(self.reference, self.predicted, self.n_voxels)

    @cached_property
    def surfaces(self) -> surfaces.SurfaceDistances | None:
        """SurfaceDistances, or None when a mask has no surface."""
        return surfaces.measure_surfaces(self.reference, self.predicted, self.steps_mm, ignored=self.ignored)

    @cached_property
    def similarity(self) -> tuple[float | None, float | None]:
        """SSIM over the whole image, with ignored voxels as background, and around the structure."""
        shape = self.image_shape or self.reference.shape
        return reconstruction.mask_ssim(self.reference, self.predicted, lower=self.lower, shape=shape)


@dataclass(frozen=True)
class PairMetric:
    """A metric that reads a ``MaskPair``; called with two masks of whole images, it makes the pair itself."""

    measure: Callable[[MaskPair], float | None]

    def __call__(self, reference: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float]) -> float | None:
        return self.measure(MaskPair.of_images(reference, predicted, spacing_mm))


def _surface_dice(pair: MaskPair) -> float | None:
    if pair.surfaces is not None:
        return surfaces.surface_dice(pair.surfaces, pair.tolerance_mm)
    return 0.0 if (pair.counts.n_reference == 0) != (pair.counts.n_predicted == 0) else None


def _distance(read: Callable[[surfaces.SurfaceDistances], float]) -> PairMetric:
    """A metric in mm: ``read`` of the surface distances, or the image's diagonal for a missed structure."""

    def measure(pair: MaskPair) -> float | None:
        if pair.surfaces is not None:
            return read(pair.surfaces)
        return pair.diagonal_mm if _missed(pair) else None

    return PairMetric(measure)


def _missed(pair: MaskPair) -> bool:
    return pair.counts.n_reference > 0 and pair.counts.n_predicted == 0


METRICS = Registry(
    "metric",
    {
        "dice": PairMetric(lambda pair: overlap.dice(pair.counts)),
        "iou": PairMetric(lambda pair: overlap.iou(pair.counts)),
        "precision": PairMetric(lambda pair: overlap.precision(pair.counts)),
        "recall": PairMetric(lambda pair: overlap.recall(pair.counts)),
        "nsd": PairMetric(_surface_dice),
        "hd95_mm": _distance(lambda found: surfaces.hausdorff(found, 95.0)),
        "hd_mm": _distance(lambda found: surfaces.hausdorff(found, 100.0)),
        "assd_mm": _distance(surfaces.mean_surface_distance),
        "reference_ml": PairMetric(lambda pair: pair.volume_ml(pair.counts.n_reference)),
        "predicted_ml": PairMetric(lambda pair: pair.volume_ml(pair.counts.n_predicted)),
        "volume_error_ml": PairMetric(lambda pair: pair.volume_ml(pair.counts.n_predicted - pair.counts.n_reference)),
        "relative_volume_error": PairMetric(lambda pair: overlap.relative_volume_error(pair.counts)),
        "foreground_share": PairMetric(lambda pair: overlap.foreground_share(pair.counts)),
        "mse_mask": PairMetric(lambda pair: reconstruction.mask_mse(pair.counts)),
        "ssim_mask": PairMetric(lambda pair: pair.similarity[0]),
        "ssim_mask_roi": PairMetric(lambda pair: pair.similarity[1]),
    },
)


def unit_of(name: str) -> str:
    """'mm', 'mL' or '' for the name of a metric."""
    return {"mm": "mm", "ml": "mL"}.get(name.rpartition("_")[2], "")


def explain(name: str, value: float | None, pair: MaskPair) -> str:
    """Why a value is undefined, or a substitute for an undefined one; '' for an ordinary value."""
    if value is not None and not (_missed(pair) and unit_of(name) == "mm"):
        return ""
    if value is not None:
        return "prediction empty: diagonal of the image"
    if pair.counts.n_reference == 0:
        return "both empty" if pair.counts.n_predicted == 0 else "reference empty"
    return "prediction empty" if pair.counts.n_predicted == 0 else "no surface apart from ignored voxels"
