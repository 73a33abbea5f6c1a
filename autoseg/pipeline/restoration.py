"""How well a model restores the images that its fold held back, after they were degraded on purpose.

The protocol is that of ``evaluation.reconstruction``, on the network's grid, where intensities lie in [0, 1]: noise, thick
slices and blur, each with random numbers of its own that hang on the case alone. Written as ``restoration.json``.
"""

import numpy as np

from autoseg.engines import map_cases
from autoseg.evaluation.reconstruction import (
    DEGRADATIONS,
    SLICE_FACTOR,
    compare_intensities,
    degrade,
    slice_axis,
    ssim_window,
)
from autoseg.evaluation.statistics import mean_interval
from autoseg.preprocess.store import open_case
from autoseg.workspace import write_json

__all__ = ["restoration_table", "validate_restoration"]

SHOWN = ("mse", "psnr", "ssim", "bar_mse", "bar_psnr", "bar_ssim", "skill")


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
        "summary": {kind: _summary([row for row in rows if row["degradation"] == kind]) for kind in DEGRADATIONS},
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


def _summary(rows):
    names = [f"{name}{suffix}" for suffix in ("", "_roi") for name in SHOWN]
    found = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    for suffix in ("", "_roi"):
        pairs = [(row[f"ssim{suffix}"], row[f"bar_ssim{suffix}"]) for row in rows]
        found[f"ssim_gain{suffix}"] = [a - b for a, b in pairs if a is not None and b is not None]
    return {
        name: {"mean": float(np.mean(values)) if values else None, "interval": list(mean_interval(values)), "n": len(values)}
        for name, values in found.items()
    }


def restoration_table(result):
    """The summary as Markdown."""
    lines = ["| degraded by | cases | SSIM | without | gain | PSNR, dB | without | skill |", "| --- " * 8 + "|"]
    for kind, found in result["summary"].items():
        if not found["ssim"]["n"]:
            continue
        low, high = found["ssim_gain"]["interval"]
        gain = f"{found['ssim_gain']['mean']:+.3f}" + ("" if low is None else f" [{low:+.3f}, {high:+.3f}]")
        ssim, bar_ssim, psnr, bar_psnr, skill = (
            found[name]["mean"] for name in ("ssim", "bar_ssim", "psnr", "bar_psnr", "skill")
        )
        cells = [kind.replace("_", " "), found["ssim"]["n"], f"{ssim:.3f}", f"{bar_ssim:.3f}", gain]
        cells += ["-" if number is None else f"{number:.1f}" for number in (psnr, bar_psnr)]
        cells.append("-" if skill is None else f"{skill:.2f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += [f"not restored: {case}: {reason}" for case, reason in result["failures"].items()]
    return "\n".join(["Restored validation images, against the best without a network:", "", *lines])
