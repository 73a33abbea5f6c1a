"""Tables as CSV, and their numbers: fixed decimals, or significant digits for numbers that are too small for these.

For example, the volume of a structure of about a micrometre is 3.584e-09 mm³ and not 0.0.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["as_csv", "as_text", "rounded"]

NOISE = 1e-14  # in texts, smaller numbers count as rounding errors of sums of numbers near 1


def rounded(value: float, decimals: int = 4, digits: int = 4) -> float:
    """Round to ``decimals`` decimals, or more if fewer than ``digits`` significant digits would be left."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, max(decimals, digits - 1 - math.floor(math.log10(abs(value)))))


def as_text(value: float, decimals: int, *, digits: int = 2, sign: str = "", grouped: str = "") -> str:
    """Format with ``decimals`` decimals, or with ``digits`` significant digits if these would leave fewer.

    Args:
        sign: ``"+"`` to show the sign of positive numbers as well.
        grouped: ``","`` to separate thousands.
    """
    fixed = f"{round(value, decimals) + 0.0:{sign}{grouped}.{decimals}f}"  # + 0.0: no minus before a zero
    if abs(value) < NOISE or not math.isfinite(value) or abs(value) >= 10 ** (digits - 1 - decimals):
        return fixed
    return f"{value:{sign}.{digits}g}"


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV. Null characters become U+FFFD: Python 3.10 cannot write them, and other programs end a cell there."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([cell.replace("\0", "\ufffd") if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()
