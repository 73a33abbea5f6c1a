"""Small pieces of HTML, and numbers and sentences as people read them."""

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
        rows: cells, texts or HTML; the first of each row is its heading.
        numeric_from: the column from which on cells are set as numbers, to the right.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    css: str = ""
    numeric_from: int = 1


def number(value: Any, digits: int = 3) -> str:
    """A number for people: integers whole, others with so many digits; a dash for None; anything else as it is."""
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
    """The ends of an interval, as texts, to stand beside a mean."""
    return Markup(f' <span class="interval">[{text(low)}, {text(high)}]</span>')


def colour_of(index: int) -> str:
    """The colour of structure number ``index``, as #rrggbb."""
    return _colours(1 << max(3, index.bit_length()))[index]  # of a few numbers: each choice takes its time


@cache
def _colours(count: int) -> tuple[str, ...]:
    return tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in structure_colours(range(count)))


def swatch(index: int, name: str) -> Markup:
    """The name of a structure with a spot of its colour."""
    return Markup(f'<i class="swatch" style="background:{colour_of(index)}"></i>{text(name)}')
