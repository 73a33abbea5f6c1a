"""Small pieces of HTML, and numbers and sentences as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoseg.digits import as_text
from autoseg.imaging.colours import structure_colours
from autoseg.page.rendering import text

__all__ = ["Table", "colour_of", "interval", "number", "scrubbed", "swatch", "text"]

_FOLDERS = re.compile(r"""(?<![\w<.])(?:[A-Za-z]:)?(?:[\\/]|\.{1,2}[\\/]|~[\\/])(?:[^\\/\s'",;:()]+[\\/])*(?=[^\\/\s])""")


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


def scrubbed(sentence: str, folders: Iterable[str | Path] = ()) -> str:
    """A sentence without the folders of this machine: of a path only the last name is left.

    Args:
        folders: paths known to occur; they may hold blanks, which the general rule takes for the end of a path.
    """
    for folder in sorted({str(folder).rstrip("/\\") for folder in folders} - {"", "."}, key=len, reverse=True):
        sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}[\\/](?:[^\\/\s]+[\\/])*", "", sentence)
        sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", Path(folder).name, sentence)
    return _FOLDERS.sub("", sentence)


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
    colours = structure_colours(range(1 << max(3, index.bit_length())))  # of a few numbers: each choice takes its time
    return "#{:02x}{:02x}{:02x}".format(*colours[index])


def swatch(index: int, name: str) -> Markup:
    """The name of a structure with a spot of its colour."""
    return Markup(f'<i class="swatch" style="background:{colour_of(index)}"></i>{text(name)}')
