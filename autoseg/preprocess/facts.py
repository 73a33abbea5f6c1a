"""Compares a scan with the training scans of a model, before prediction."""

from __future__ import annotations

import numpy as np

from autoseg.data.intensities import percentiles_of
from autoseg.data.unlike import ScanFacts, TrainingScans, Unlike, unlike
from autoseg.imaging.crop import crop, nonzero_box
from autoseg.imaging.volume import Volume
from planners.plan import Plan

__all__ = ["scan_facts", "unlike_training"]


def scan_facts(volume: Volume, plan: Plan) -> ScanFacts:
    """The statistics of a scan, axes in the orientation of the plan, measured as ``scan_case`` measures training cases."""
    lower, upper = nonzero_box(volume.data)
    geometry, data = volume.geometry.cropped(lower, np.subtract(upper, lower)), crop(volume.data, lower, upper)
    if plan.orientation == "canonical":
        geometry = geometry.transposed(geometry.canonical()[0])
    inside = (data != 0).any(axis=0)
    return ScanFacts(geometry.spacing_mm, geometry.shape, tuple(percentiles_of(channel, inside) for channel in data))


def unlike_training(volume: Volume, plan: Plan, training: TrainingScans) -> tuple[Unlike, ...]:
    """How a scan differs from the training scans of a model with this plan. For 2D networks the first axis is ignored."""
    axes = sorted(plan.axis_order[1:] if plan.patch_size[0] == 1 else plan.axis_order)
    return unlike(scan_facts(volume, plan), training, plan.normalization, axes=axes)
