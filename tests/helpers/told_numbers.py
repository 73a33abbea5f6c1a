"""The numbers in a methods text, and whether each occurs in the records that the text names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoseg.methods.results import CONSTANTS

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\d])")


def numbers_in(methods: str) -> list[str]:
    """The numbers of a ``methods.md`` as printed, without those in citations, file names and its last lines."""
    text = methods.partition("\nWritten by autoseg")[0]
    text = re.sub(r"\[@[^\]]*\]|`[^`]*`", "", text)
    return NUMBER.findall(text.replace("\\", ""))


def records_named(methods: str, folder: Path) -> list[Any]:
    """The records that a text names at its end, as JSON."""
    names = re.findall(r"`([^`]+\.jsonl?)`", methods.partition("\nWritten by autoseg")[2])
    assert names
    lines = [line for name in names for line in ((folder / name).read_text().splitlines() if name.endswith("l") else [])]
    whole = [(folder / name).read_text() for name in names if name.endswith("json")]
    return [json.loads(text) for text in [*lines, *whole]]


def known_numbers(value: Any) -> Iterator[float]:
    """Every number of a JSON value, including those in its texts and the lengths of its lists and objects."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, str):
        ends = re.sub(r"\d+\.(?=\d+\.)", "", value)  # 13.0 of the version 2.13.0
        for text in (value, ends):
            for found in re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", text):
                yield from (float(found), -float(found))  # a sign may be a minus or a dash
    else:
        parts = list(value.items()) if isinstance(value, dict) else value
        yield float(len(parts))
        for part in parts:
            yield from known_numbers(list(part) if isinstance(part, tuple) else part)


def unknown_numbers(methods: str, folder: Path) -> list[str]:
    """The numbers of a ``methods.md`` that occur in none of the records that it names."""
    known = {*CONSTANTS.values(), *known_numbers(records_named(methods, folder))}
    return [text for text in numbers_in(methods) if not any(_rounds_to(value, text) for value in known)]


def _rounds_to(value: float, text: str) -> bool:
    mantissa, _, exponent = text.partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return abs(value - float(text)) <= 0.5000001 * 10.0**-decimals if "." in text or exponent else value == float(text)
