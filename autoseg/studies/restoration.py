"""Measures how well a model restores degraded images of its fold's validation cases.

The protocol is that of ``evaluation.reconstruction``, on the network's grid, where intensities are in [0, 1]: noise, thick
slices and blur, each with its own random numbers that depend only on the case. Written as ``restoration.json``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from autoseg.engines import map_cases, reason_of
from autoseg.evaluation.markdown import markdown_table
from autoseg.evaluation.reconstruction import (
    DEGRADATIONS,
    SLICE_FACTOR,
    compare_intensities,
    degrade,
    slice_axis,
    ssim_window,
)
from autoseg.evaluation.restored import (
    RESTORED_HEADINGS,
    RestorationResult,
    RestoredRow,
    restored_cells,
    summarise_restored,
)
from autoseg.evaluation.statistics import few_cases
from autoseg.inference.predictor import Predictor
from autoseg.names import folders_of, scrubbed
from autoseg.preprocess.store import StoredCase, open_case
from autoseg.workspace import write_json

__all__ = ["restoration_table", "validate_restoration"]


def validate_restoration(predictor: Predictor, prepared: Path, cases: Iterable[str], path: Path) -> RestorationResult:
    """Degrade, restore and compare every case. Writes the result to ``path`` and returns it.

    Args:
        predictor: a Predictor whose model restores images.
        prepared: folder of the prepared cases.
        cases: their identifiers.

    Returns:
        RestorationResult
    """
    outcomes = map_cases(lambda case: _rows(predictor, open_case(prepared / case)), cases, workers=1)
    rows = tuple(row for outcome in outcomes if outcome.error is None for row in outcome.value)
    folders = folders_of([prepared, path.parent])
    failures = {one.name: scrubbed(reason_of(one.error), folders) for one in outcomes if one.error is not None}
    result = RestorationResult(rows, failures, summarise_restored(rows))
    write_json(path, result)
    return result


def _rows(predictor: Predictor, case: StoredCase) -> list[RestoredRow]:
    clean = np.clip(case.image[:], 0, 1)
    roi, spacing_mm = case.codes[:] > 0, case.geometry.spacing_mm
    rows = []
    for kind in DEGRADATIONS:
        made = [degrade(kind, channel, spacing_mm, f"{case.case}/{c}") for c, channel in enumerate(clean)]
        channels = [channel for channel in made if channel is not None]
        if not channels:  # too few slices to make thick ones
            continue
        degraded = np.stack(channels)
        axis = slice_axis(clean.shape[1:], spacing_mm)
        slices = [float(SLICE_FACTOR) if kind == "thick_slices" and axis == other else 1.0 for other in range(3)]
        found = compare_intensities(clean, predictor.restore(degraded, slices), degraded, roi)
        rows.append(RestoredRow(case.case, kind, found, axis, ssim_window(clean.shape[1:])))
    return rows


def restoration_table(result: RestorationResult) -> str:
    """The summary as Markdown."""
    few = few_cases(mean.n for means in result.summary.values() for mean in means.values())
    lines = [markdown_table([RESTORED_HEADINGS, *restored_cells(result.summary)]), *(["", few] if few else [])]
    lines += [f"not restored: {case}: {reason}" for case, reason in result.failures.items()]
    return "\n".join(["Restored validation images, against the best without a network:", "", *lines])
