"""Scoring the predicted label map of one case against its reference.

Needs only the two label maps and the meaning of their values, so the output of any tool can be scored.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, GeometryError
from autoseg.evaluation.metrics import METRICS, MaskPair, PairMetric, default_tolerance_mm, explain, image_diagonal_mm
from autoseg.evaluation.overlap import count_voxels, foreground_share
from autoseg.evaluation.reconstruction import mask_mse
from autoseg.evaluation.report import TOGETHER, CaseMetrics
from autoseg.imaging.crop import numbered
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume

__all__ = ["Tolerance", "check_tolerance", "evaluate_case"]

LARGEST_TABLE = 2**16  # label values up to here need no renumbering: a table of their boxes is small
Tolerance = float | Mapping[str, float] | None
Box = tuple[slice, ...]
Found = tuple[str, float | None, str]  # name of a metric, its value, why it is missing or a substitute


def check_tolerance(tolerance_mm: Tolerance) -> None:
    """Raise AutosegError for a tolerance that is not a length."""
    for value in tolerance_mm.values() if isinstance(tolerance_mm, Mapping) else (tolerance_mm,):
        if value is not None and not 0 <= value < math.inf:
            raise AutosegError(f"tolerance_mm: expected a length in mm, 0 or more, found {value}. Give another --tolerance-mm")


def evaluate_case(
    *,
    reference: LabelVolume,
    predicted: LabelVolume,
    labels: LabelSchema,
    case: str = "",
    tolerance_mm: Tolerance = None,
    unlabelled: Collection[int] = (),
) -> tuple[CaseMetrics, ...]:
    """Every metric of every structure of one case.

    Args:
        reference, predicted: LabelVolumes on one grid.
        labels: LabelSchema. Undeclared values count as background; voxels with its ``ignore`` value in the reference
            are excluded.
        case: name for messages and the report.
        tolerance_mm: of the surface Dice: a number, or a mapping from structure to number. None, or a structure
            missing in the mapping, means ``default_tolerance_mm``.
        unlabelled: numbers of the structures that were not annotated in the case; they are left out of every value.

    Returns:
        tuple of CaseMetrics, in the order of ``labels.structures``.

    Raises:
        GeometryError: the grids differ.
        AutosegError: a tolerance that is not a length.
    """
    check_tolerance(tolerance_mm)
    _check_grids(reference.geometry, predicted.geometry, case)
    maps, unlabelled = _Maps(reference.data, predicted.data, labels, reference.geometry, tolerance_mm), frozenset(unlabelled)
    together = _together(maps, unlabelled)
    rows = (_measure(maps.pair(number), case, name, together) for number, name in enumerate(labels.structures))
    return tuple(row.not_annotated() if number in unlabelled else row for number, row in enumerate(rows))


@dataclass(frozen=True, eq=False)
class _Maps:
    """The two label maps of a case; what all structures share is computed once."""

    reference: np.ndarray
    predicted: np.ndarray
    labels: LabelSchema
    geometry: Geometry
    tolerance_mm: Tolerance

    @cached_property
    def ignored(self) -> np.ndarray | None:
        """(Z, Y, X) bool, voxels without annotation; None if the labels declare none."""
        return None if self.labels.ignore is None else self.reference == self.labels.ignore

    @cached_property
    def n_voxels(self) -> int:
        """Voxels that count."""
        return self.reference.size - (0 if self.ignored is None else int(np.count_nonzero(self.ignored)))

    @cached_property
    def boxes(self) -> list[dict[int, Box | None]]:
        """The bounding box of each label value, in the reference and in the prediction."""
        return [_boxes(data, self.labels) for data in (self.reference, self.predicted)]

    def pair(self, number: int) -> MaskPair:
        """MaskPair of structure ``number``, cropped to the union of both masks and one voxel around it."""
        shape, spacing = self.geometry.shape, self.geometry.spacing_mm
        parts = [part for box in self.boxes for value in self.labels.values[number] if (part := box[value]) is not None]
        inside = tuple(
            slice(
                max(0, min((p[axis].start for p in parts), default=0) - 1),
                max((p[axis].stop for p in parts), default=0) + 1,
            )
            for axis in range(3)
        )
        masks = [self.labels.mask(data[inside], number) for data in (self.reference, self.predicted)]
        ignored = None if self.ignored is None else self.ignored[inside]
        if ignored is not None:
            masks = [mask & ~ignored for mask in masks]
        of_structure = self.tolerance_mm
        if isinstance(of_structure, Mapping):
            of_structure = of_structure.get(self.labels.structures[number])
        lower = tuple(side.start for side in inside)
        return MaskPair(
            reference=masks[0],
            predicted=masks[1],
            steps_mm=self.geometry.steps_mm,
            diagonal_mm=image_diagonal_mm(shape, spacing),
            tolerance_mm=default_tolerance_mm(shape, spacing) if of_structure is None else float(of_structure),
            n_voxels=self.n_voxels,
            ignored=ignored,
            lower=lower,
            image_shape=shape,
        )


def _check_grids(reference: Geometry, predicted: Geometry, case: str) -> None:
    if not reference.corresponds(predicted):
        same = reference.shape == predicted.shape
        shifted = same and np.allclose(reference.spacing_mm, predicted.spacing_mm, rtol=1e-3, atol=0)
        detail = ", the same voxels at another place or direction" if shifted else ""
        raise GeometryError(
            f"case {case!r}: reference and prediction lie on different grids{detail}\n"
            f"  reference {reference}, first voxel at {_position(reference)} mm\n"
            f"  predicted {predicted}, first voxel at {_position(predicted)} mm\n"
            "Predict onto the grid of the reference, or resample the prediction to it."
        )


def _position(geometry: Geometry) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in geometry.to_world([[0, 0, 0]])[0])


def _boxes(data: np.ndarray, labels: LabelSchema) -> dict[int, Box | None]:
    """The bounding box of each label value, in one pass over the image: value -> slices, or None if absent.

    Values are renumbered if a table up to the largest would be too big, as for brain atlases.
    """
    wanted = sorted({value for group in labels.values for value in group})
    if wanted[0] > 0 and wanted[-1] <= LARGEST_TABLE:
        boxes = ndimage.find_objects(data, max_label=wanted[-1])
        return {value: boxes[value - 1] for value in wanted}
    boxes = ndimage.find_objects(numbered(data, wanted), max_label=len(wanted))
    return dict(zip(wanted, boxes, strict=True))


def _together(maps: _Maps, unlabelled: Collection[int]) -> list[Found]:
    """The values of all structures as one mask, without unlabelled ones."""
    declared = sorted({value for n, group in enumerate(maps.labels.values) if n not in unlabelled for value in group})
    truth, guess = (np.isin(data, declared) for data in (maps.reference, maps.predicted))
    if maps.ignored is not None:
        truth, guess = truth[~maps.ignored], guess[~maps.ignored]
    counts = count_voxels(truth, guess)
    error, share = mask_mse(counts), foreground_share(counts)
    return list(zip(TOGETHER, (error, share), ("" if error is not None else "both empty", ""), strict=True))


def _measure(pair: MaskPair, case: str, structure: str, together: list[Found]) -> CaseMetrics:
    values: dict[str, float | None] = {}
    reasons = {}
    for name, metric in METRICS.items():
        if isinstance(metric, PairMetric):
            value = metric.measure(pair)
        else:
            value = metric(pair.reference, pair.predicted, pair.spacing_mm)
        reason = explain(name, value, pair)
        if value is not None and not math.isfinite(value):  # from a metric of another package: JSON has no such numbers
            value, reason = None, "not a number"
        values[name] = None if value is None else float(value)
        if reason:
            reasons[name] = reason
    row = CaseMetrics(case, structure, values, reasons, pair.tolerance_mm, pair.counts)
    return row.with_more(together)
