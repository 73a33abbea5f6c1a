"""Calibrate adaptive windows: the smallest number of windows whose masks equal those of all windows.

A ladder of Doubts, each stricter than the last, is tried on each scan in one pass over all windows. Masks are compared on the
network's grid; no reference is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.inference.adaptive import Stage, grid_of
from autoseg.inference.predictor import Predictor
from autoseg.inference.sliding_window import Tiling
from autoseg.inference.windows import AdaptiveWindows, Doubt
from autoseg.reconstruct.confidence import agreement
from planners.plan import Plan

__all__ = ["LADDER", "MOST_CASES", "calibrate", "can_spare"]

logger = logging.getLogger(__name__)

# in steps of similar cost: below a jump of 8, smaller ones cost far more windows than larger margins do. Larger ones are for
# networks that trained for long, whose logits are larger
LADDER = tuple(
    Doubt(margin, jump, halo)
    for margin, jump, halo in (
        (0.5, 32.0, 0.0),
        (0.5, 16.0, 0.0),
        (0.5, 12.0, 0.0),
        (0.5, 10.0, 0.0),
        (0.5, 8.0, 0.0),
        (2.0, 8.0, 0.0),
        (2.0, 7.0, 0.0),
        (2.0, 6.0, 0.0),
        (2.0, 4.0, 0.0),
        (2.0, 4.0, 0.125),
        (4.0, 3.0, 0.25),
        (8.0, 2.0, 0.25),
    )
)
MOST_CASES = 8  # largest validation cases of a fold to use


def can_spare(plan: Plan, shape: Sequence[int], step: float) -> bool:
    """Whether a scan of (z, y, x) voxels on the network grid has more windows than the first pass."""
    return not grid_of(shape, Tiling(plan.patch_size, step)).first_pass().all()


def calibrate(predictor: Predictor, scans: Iterable[np.ndarray]) -> AdaptiveWindows | None:
    """The AdaptiveWindows of a model.

    Args:
        predictor: with the folds, views and tile step to be used for prediction.
        scans: (C, z, y, x) float32 on the network grid, one at a time in memory; scans without windows to skip are ignored.

    Returns:
        The first Doubt of the ``LADDER`` that differs by less than ``LARGEST_DIFFERENCE`` in each structure found, or the
        last one, with any difference; None if no scan has windows to skip.
    """
    labels = predictor.bundle.labels
    names, step, tried = labels.structures, predictor.options.step, []
    for data in scans:
        if can_spare(predictor.bundle.plan, data.shape[1:], step):
            stages = predictor.try_doubts(data, LADDER)
            every = stages[-1].result
            tried.append([Stage(_differences(s.result, every, labels), s.computed, s.of) for s in stages[:-1]])
    if not tried:
        return None
    for doubt, cases in zip(LADDER, zip(*tried, strict=True), strict=True):
        columns = zip(names, zip(*(case.result for case in cases), strict=True), strict=True)
        values = {name: [one for one in column if one is not None] for name, column in columns}
        found = {name: fmean(column) for name, column in values.items() if column}
        counts = sum(case.computed for case in cases), sum(case.of for case in cases)
        windows = AdaptiveWindows(doubt, step, len(cases), *counts, found)
        logger.info("margin %g, jump %g, halo %g: %s", doubt.margin, doubt.jump, doubt.halo, windows)
        if windows.is_trusted(found):
            break
    return windows


def _differences(one: np.ndarray, other: np.ndarray, labels: LabelSchema) -> list[float | None]:
    """1 minus the Dice of two votes for each structure; None if neither has it."""
    found = agreement((one, other), len(labels.structures), has_regions=labels.has_regions)
    return [None if dice is None else 1 - dice for dice in found]
