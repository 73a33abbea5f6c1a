"""Numbers for tables and CSV: fixed decimals where they say enough, significant digits where they would say nothing.

The volume of a structure of a micrometre is 3.584e-09 mm³ and not 0.0.
"""

from __future__ import annotations

import math

__all__ = ["as_text", "rounded"]

NOISE = 1e-14  # less is the rounding of sums of numbers near 1, in a text for people


def rounded(value: float, decimals: int = 4, digits: int = 4) -> float:
    """A number with ``decimals`` decimals, or more where fewer than ``digits`` significant digits would be left."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, max(decimals, digits - 1 - math.floor(math.log10(abs(value)))))


def as_text(value: float, decimals: int, *, digits: int = 2, sign: str = "", grouped: str = "") -> str:
    """A number with ``decimals`` decimals; one that these would make 0 or a single digit has ``digits`` significant ones.

    Args:
        sign: ``"+"`` to show it of positive numbers too.
        grouped: ``","`` between thousands.
    """
    fixed = f"{round(value, decimals) + 0.0:{sign}{grouped}.{decimals}f}"  # + 0.0: no minus before a zero
    if abs(value) < NOISE or not math.isfinite(value) or abs(value) >= 10 ** (digits - 1 - decimals):
        return fixed
    return f"{value:{sign}.{digits}g}"
