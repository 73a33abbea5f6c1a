"""The tables of a folder of results, made from the records of its cases."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from autoseg.outputs.borders import BORDERS_TABLE, write_borders
from autoseg.outputs.measurements import TABLE, write_measurements
from autoseg.places import refuse_foreign

__all__ = ["refuse_foreign_tables", "write_tables"]


def refuse_foreign_tables(folder: Path, part: str = "") -> None:
    """Raise FileError if a file of another program has the name of a table."""
    for name in (TABLE, BORDERS_TABLE):
        refuse_foreign(folder / _of_part(name, part), name)


def write_tables(folder: Path, cases: Collection[str], part: str = "") -> str:
    """Write ``measurements.csv``, and ``borders.csv`` if surfaces of neighbours are measured.

    Args:
        folder: with a ``CASE.json`` for each case.
        cases: cases in the tables.
        part: suffix of the names, such as ``_0_of_4`` for a shard.

    Returns:
        A sentence on how the surfaces of neighbours fit together; '' where none touch.
    """
    write_measurements(folder, cases, _of_part(TABLE, part))
    return write_borders(folder, cases, _of_part(BORDERS_TABLE, part))


def _of_part(name: str, part: str) -> str:
    return name.replace(".", f"{part}.")
