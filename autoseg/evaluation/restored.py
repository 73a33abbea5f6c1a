"""What restorations of many cases come to: means over cases, and these as the rows of a table.

A *row* is what ``compare_intensities`` found for a case and a degradation, with their names in ``case`` and ``degradation``.
"""

import statistics

from autoseg.evaluation.reconstruction import DEGRADATIONS
from autoseg.evaluation.statistics import mean_interval

__all__ = ["RESTORED_HEADINGS", "restored_cells", "summarise_restored"]

NUMBERS = ("mse", "psnr", "ssim", "bar_mse", "bar_psnr", "bar_ssim", "skill")
RESTORED_HEADINGS = ("degraded by", "cases", "MSE", "without", "SSIM", "without", "gain", "PSNR, dB", "without", "skill")
DIGITS = {"mse": 5, "bar_mse": 5, "psnr": 1, "bar_psnr": 1, "ssim": 3, "bar_ssim": 3, "skill": 2}


def summarise_restored(rows):
    """For each degradation and number its mean over the cases where it is defined.

    Returns:
        Dictionary degradation -> number (those of ``compare_intensities``, and ``ssim_gain``, over the bar; ``_roi`` for the
        structures alone) -> ``mean``, its 95 % bootstrap ``interval``, both None where there are too few, and ``n``.
    """
    return {kind: _summary([row for row in rows if row["degradation"] == kind]) for kind in DEGRADATIONS}


def _summary(rows):
    found = {}
    for suffix in ("", "_roi"):
        found |= {f"{name}{suffix}": [row.get(f"{name}{suffix}") for row in rows] for name in NUMBERS}
        pairs = zip(found[f"ssim{suffix}"], found[f"bar_ssim{suffix}"], strict=True)
        found[f"ssim_gain{suffix}"] = [None if None in pair else pair[0] - pair[1] for pair in pairs]
    return {name: _mean([value for value in values if value is not None]) for name, values in found.items()}


def _mean(values):
    mean = statistics.fmean(values) if values else None
    return {"mean": mean, "interval": list(mean_interval(values)), "n": len(values)}


def restored_cells(summary, *, structures=True):
    """A list of texts below ``RESTORED_HEADINGS`` for each degradation that there is: of the image, then of its structures."""
    parts = (("", ""), ("_roi", ", structures alone")) if structures else (("", ""),)
    rows = []
    for kind, found in summary.items():
        for suffix, where in parts:
            if not found[f"ssim{suffix}"]["n"]:
                continue
            text = {name: _text(found[f"{name}{suffix}"]["mean"], digits) for name, digits in DIGITS.items()}
            gain, (low, high) = found[f"ssim_gain{suffix}"]["mean"], found[f"ssim_gain{suffix}"]["interval"]
            gained = _text(gain, 3, "+") + ("" if low is None else f" [{low:+.3f}, {high:+.3f}]")
            cells = [kind.replace("_", " ") + where, str(found[f"ssim{suffix}"]["n"]), text["mse"], text["bar_mse"]]
            cells += [text["ssim"], text["bar_ssim"], gained, text["psnr"], text["bar_psnr"], text["skill"]]
            rows.append(cells)
    return rows


def _text(value, digits, sign=""):
    return "–" if value is None else f"{value:{sign}.{digits}f}"
