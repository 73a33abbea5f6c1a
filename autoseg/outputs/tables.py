"""The tables of a folder of results, made from the records of its cases."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from autoseg.outputs.borders import BORDERS_TABLE, write_borders
from autoseg.outputs.measurements import TABLE, write_measurements
from autoseg.outputs.surfaces import tell_notes
from autoseg.places import refuse_foreign
from autoseg.records import read_case

__all__ = ["refuse_foreign_tables", "write_tables"]


def refuse_foreign_tables(folder: Path, part: str = "") -> None:
    """Raise FileError if a file of another program has the name of a table."""
    for name in (TABLE, BORDERS_TABLE):
        refuse_foreign(folder / _of_part(name, part), name)


def write_tables(folder: Path, cases: Collection[str], part: str = "", *, made: Collection[str] = ()) -> str:
    """Write ``measurements.csv``, and ``borders.csv`` if surfaces of neighbours are measured.

    Args:
        folder: with a ``CASE.json`` for each case.
        cases: cases that were just done or skipped. Those that lie in the folder from earlier calls follow.
        part: suffix of the names, such as ``_0_of_4`` for a shard, whose tables have its own cases only.
        made: cases that were just done; notes on their surfaces are logged as warnings.

    Returns:
        A sentence on how the surfaces of neighbours fit together; '' where none touch.
    """
    tell_notes(folder, made)
    every = [*cases] if part else [*cases, *_made_before(folder, cases)]
    write_measurements(folder, every, _of_part(TABLE, part))
    return write_borders(folder, every, _of_part(BORDERS_TABLE, part))


def _made_before(folder: Path, cases: Collection[str]) -> list[str]:
    """Further cases with a finished record in the folder, sorted."""
    found = {path.stem: read_case(path) for path in sorted(folder.glob("[!.]*.json")) if path.stem not in cases}
    return [name for name, record in found.items() if record and record.is_done and record.made_by]


def _of_part(name: str, part: str) -> str:
    return name.replace(".", f"{part}.")
