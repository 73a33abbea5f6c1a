"""Volumes in millilitres and the error of predicted volumes. 1 mL = 1000 mm3."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoseg.evaluation.overlap import Counts

__all__ = ["relative_volume_error", "volume_error_ml", "volume_ml"]


def volume_ml(n_voxels: int, spacing_mm: Sequence[float]) -> float:
    """Volume of ``n_voxels`` voxels; 0 for an empty mask."""
    return n_voxels * math.prod(spacing_mm) / 1000


def volume_error_ml(counts: Counts, spacing_mm: Sequence[float]) -> float:
    """Predicted minus reference volume; negative where the prediction is too small."""
    return volume_ml(counts.n_predicted - counts.n_reference, spacing_mm)


def relative_volume_error(counts: Counts) -> float | None:
    """Predicted minus reference volume over the reference's, at least -1; ``None`` when the reference is empty."""
    if counts.n_reference == 0:
        return None
    return (counts.n_predicted - counts.n_reference) / counts.n_reference
