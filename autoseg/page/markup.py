"""Small pieces of HTML. Every text passes through ``text``, so that no name in a data set can become markup."""

import html
import re
from pathlib import Path

from autoseg.imaging.colours import structure_colours

__all__ = ["colour_of", "interval", "number", "scrubbed", "swatch", "table", "text"]


_FOLDERS = re.compile(r"""(?<![\w<.])(?:[A-Za-z]:)?(?:[\\/]|\.{1,2}[\\/]|~[\\/])(?:[^\\/\s'",;:()]+[\\/])*(?=[^\\/\s])""")


def text(value):
    """Any value as text of an element or of an attribute in quotation marks."""
    return html.escape(str(value), quote=True)


def scrubbed(sentence, folders=()):
    """A sentence without the folders of this machine: of a path only the last name is left.

    Args:
        folders: paths known to occur; they may hold blanks, which the general rule takes for the end of a path.
    """
    for folder in sorted({str(folder).rstrip("/\\") for folder in folders} - {"", "."}, key=len, reverse=True):
        sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}[\\/](?:[^\\/\s]+[\\/])*", "", sentence)
        sentence = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", Path(folder).name, sentence)
    return _FOLDERS.sub("", sentence)


def number(value, digits=3):
    """A number for people: integers whole, others with so many digits; a dash for None; anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero
    if isinstance(value, list | tuple):
        return ", ".join(number(part, digits) for part in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def interval(low, high):
    """The ends of an interval, as texts, to stand beside a mean."""
    return f' <span class="interval">[{low}, {high}]</span>'


def table(heads, rows, caption="", css="", numeric_from=1):
    """A table.

    Args:
        heads: titles of the columns, plain texts.
        rows: cells as HTML; the first of each row is its heading.
        numeric_from: the column from which on cells are set as numbers, to the right.
    """
    kind = [' class="n"' if i >= numeric_from else "" for i in range(len(heads))]
    head = "".join(f'<th scope="col"{k}>{text(h)}</th>' for h, k in zip(heads, kind, strict=True))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{k}>{cell}</td>" for cell, k in zip(others, kind[1:], strict=True))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    body = "\n".join(lines)
    name = f' class="{css}"' if css else ""
    return f'<div class="scroll"><table{name}>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def colour_of(index):
    """The colour of structure number ``index``, as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*structure_colours(range(index + 1))[index])


def swatch(index, name):
    """The name of a structure with a spot of its colour."""
    return f'<i class="swatch" style="background:{colour_of(index)}"></i>{text(name)}'
