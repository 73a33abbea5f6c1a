"""How well a model restores the images that its fold held back, after they were degraded on purpose.

The protocol is that of ``evaluation.reconstruction``, on the network's grid, where intensities lie in [0, 1]: noise, thick
slices and blur, each with random numbers of its own that hang on the case alone. Written as ``restoration.json``.
"""

import numpy as np

from autoseg.engines import map_cases
from autoseg.evaluation.markdown import markdown_table
from autoseg.evaluation.reconstruction import (
    DEGRADATIONS,
    SLICE_FACTOR,
    compare_intensities,
    degrade,
    slice_axis,
    ssim_window,
)
from autoseg.evaluation.restored import RESTORED_HEADINGS, restored_cells, summarise_restored
from autoseg.preprocess.store import open_case
from autoseg.workspace import write_json

__all__ = ["restoration_table", "validate_restoration"]


def validate_restoration(predictor, prepared, cases, path):
    """Degrade, restore and compare every case; writes ``path`` and returns what it holds.

    Args:
        predictor: a Predictor whose model restores.
        prepared: folder of the prepared cases.
        cases: their identifiers.

    Returns:
        Dictionary: ``rows``, one per case and degradation; ``summary``, for each degradation and number (and for
        ``ssim_gain``, over the bar) its mean over cases with a 95 % interval and ``n``; ``failures``.
    """
    outcomes = map_cases(lambda case: _rows(predictor, open_case(prepared / case)), cases, workers=1)
    rows = [row for outcome in outcomes if outcome.error is None for row in outcome.value]
    result = {
        "rows": rows,
        "failures": {outcome.name: str(outcome.error) for outcome in outcomes if outcome.error is not None},
        "summary": summarise_restored(rows),
    }
    write_json(path, result)
    return result


def _rows(predictor, case):
    clean = np.clip(case.image[:], 0, 1)
    roi, spacing_mm = case.codes[:] > 0, case.geometry.spacing_mm
    rows = []
    for kind in DEGRADATIONS:
        channels = [degrade(kind, channel, spacing_mm, f"{case.case}/{c}") for c, channel in enumerate(clean)]
        if channels[0] is None:  # too few slices to be made thick
            continue
        degraded = np.stack(channels)
        axis = slice_axis(clean.shape[1:], spacing_mm)
        slices = [float(SLICE_FACTOR) if kind == "thick_slices" and axis == other else 1.0 for other in range(3)]
        found = compare_intensities(clean, predictor.restore(degraded, slices), degraded, roi)
        about = {"slice_axis": axis, "ssim_window": list(ssim_window(clean.shape[1:]))}
        rows.append({"case": case.case, "degradation": kind, **found, **about})
    return rows


def restoration_table(result):
    """The summary as Markdown."""
    lines = [markdown_table([RESTORED_HEADINGS, *restored_cells(result["summary"])])]
    lines += [f"not restored: {case}: {reason}" for case, reason in result["failures"].items()]
    return "\n".join(["Restored validation images, against the best without a network:", "", *lines])
