"""Names and colours of label values for viewers: ``labels.txt`` for ITK-SNAP, ``labels.ctbl`` for 3D Slicer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoseg.atomic import replacing
from autoseg.imaging.colours import structure_colours

__all__ = ["write_label_tables"]

SIGN = "# written by autoseg"


def write_label_tables(folder: str | Path, names: Mapping[int, str]) -> None:
    """Write both tables into a folder; a table that autoseg did not write is kept.

    Args:
        names: {label value: name of the structure}; colours are assigned in this order.
    """
    rows = [(value, name, colour) for (value, name), colour in zip(names.items(), structure_colours(names), strict=True)]
    snap = [f'{value:>5} {r:>5} {g:>4} {b:>4} 1 1 1 "{name.replace(chr(34), chr(39))}"' for value, name, (r, g, b) in rows]
    slicer = [f"{value} {'_'.join(name.split())} {r} {g} {b} 255" for value, name, (r, g, b) in rows]
    tables = {
        "labels.txt": [
            SIGN,
            "# ITK-SNAP: value, red, green, blue, opacity, visible, meshed, name",
            '0 0 0 0 0 0 0 "Clear Label"',
            *snap,
        ],
        "labels.ctbl": [SIGN, "# 3D Slicer: value, name, red, green, blue, opacity", "0 Background 0 0 0 0", *slicer],
    }
    for file, lines in tables.items():
        path = Path(folder) / file
        if not path.exists() or path.read_bytes().startswith(SIGN.encode()):
            with replacing(path) as draft:
                draft.write_text("\n".join([*lines, ""]), encoding="utf-8")
