"""Fragments of HTML, and numbers formatted for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup

from autoseg.digits import as_text
from autoseg.imaging.colours import structure_colours
from autoseg.names import scrubbed
from autoseg.page.rendering import text

__all__ = ["Table", "colour_of", "interval", "number", "scrubbed", "swatch", "text"]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        heads: titles of the columns.
        rows: cells, plain text or ``Markup``; the first of each row is its heading.
        css: class of the element.
        numeric_from: index of the first column that is aligned to the right, as numbers are.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    css: str = ""
    numeric_from: int = 1


def number(value: Any, digits: int = 3) -> str:
    """Format a value: floats with ``digits`` decimals, yes or no for booleans, a dash for None, sequences value by value.

    Thousands are separated by commas. Anything else is its ``str``.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return as_text(value, digits, grouped=",").replace("-", "−")
    if isinstance(value, list | tuple):
        return ", ".join(number(part, digits) for part in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def interval(low: str, high: str) -> Markup:
    """An interval in brackets, to follow a mean; its ends are already formatted."""
    return Markup(f' <span class="interval">[{text(low)}, {text(high)}]</span>')


def colour_of(index: int) -> str:
    """The colour of structure number ``index``, as #rrggbb."""
    return _colours(1 << max(3, index.bit_length()))[index]  # few different sizes: each takes time


@cache
def _colours(count: int) -> tuple[str, ...]:
    return tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in structure_colours(range(count)))


def swatch(index: int, name: str) -> Markup:
    """The name of a structure, preceded by a swatch of its colour."""
    return Markup(f'<i class="swatch" style="background:{colour_of(index)}"></i>{text(name)}')
