"""Parsers for command-line texts. A wrong text is a ValueError that says what was expected and found."""

from __future__ import annotations

import csv
import json
import math
import re
from typing import Any

__all__ = [
    "as_fit",
    "duration",
    "edge_mm",
    "finite",
    "fraction",
    "names",
    "path",
    "positive",
    "quoted",
    "setting",
    "shard",
    "text",
    "whole",
]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def text(value: str) -> str:
    """The text itself."""
    return value


path = text


def names(value: str) -> tuple[str, ...]:
    """'a,b' as ("a", "b"), in order, without repeats; 'none' and '' as ()."""
    found = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    return () if found == ("none",) else found


def quoted(value: str) -> tuple[str, ...]:
    """'a,"b, c"' as ("a", "b, c"), in order, without repeats."""
    try:
        (row,) = csv.reader([value], skipinitialspace=True, strict=True)
    except csv.Error as fault:
        raise ValueError(f'expected names such as A,B or A,"B, left", found {value!r}') from fault
    if not (found := tuple(dict.fromkeys(name.strip() for name in row if name.strip()))):
        raise ValueError("expected names, found none")
    return found


def duration(value: str) -> float:
    """'90s', '30m', '1.5h' or '2d' as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value.strip())
    if not match or float(match[1]) == 0:
        raise ValueError(f"expected a time such as 90s, 30m or 1.5h, found {value!r}")
    return float(match[1]) * UNITS[match[2]]


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def edge_mm(value: str) -> float:
    """A length above 0."""
    number = _number(value)
    if not 0 < number < math.inf:
        raise ValueError(f"expected the edge of a voxel in mm, found {value!r}")
    return number


def finite(value: str) -> float:
    """A number above 0, not infinite."""
    number = _number(value)
    if not 0 < number < math.inf:
        raise ValueError(f"expected a number above 0, found {value!r}")
    return number


def fraction(value: str) -> float:
    """A number above 0 and below 1."""
    number = _number(value)
    if not 0 < number < 1:
        raise ValueError(f"expected a number between 0 and 1, found {value!r}")
    return number


def positive(value: str) -> int:
    """A whole number above 0."""
    if not value.isdecimal() or int(value) == 0:
        raise ValueError(f"expected a whole number above 0, found {value!r}")
    return int(value)


def as_fit(value: str) -> int:
    """A whole number above 0; ``auto``, as many as fit, as 0."""
    return 0 if value == "auto" else positive(value)


def whole(value: str) -> int:
    """A whole number from 0."""
    if not value.isdecimal():
        raise ValueError(f"expected a whole number from 0, found {value!r}")
    return int(value)


def shard(value: str) -> tuple[int, int]:
    """'i/N' as (i, N), i from 0 to N-1."""
    first, _, count = value.partition("/")
    if not (first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        raise ValueError(f"expected i/N with i from 0 to N-1, such as 0/4, found {value!r}")
    return int(first), int(count)


def setting(value: str) -> tuple[str, Any]:
    """'key=value' as a pair; the value is parsed as JSON, or kept as text if it is not JSON."""
    key, sign, word = value.partition("=")
    if not sign or not key:
        raise ValueError(f"expected KEY=VALUE, found {value!r}")
    try:
        return key, json.loads(word)
    except json.JSONDecodeError:
        return key, word
    except (ValueError, RecursionError) as fault:  # thousands of digits or of nested brackets
        raise ValueError(f"{key}: expected a number, a list or a text, found one without end") from fault
