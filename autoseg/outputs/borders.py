"""Gap and overlap of the surfaces of neighbouring structures: in ``CASE.json``, in a table for a folder, and as a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autoseg.data.dataset import Case
from autoseg.digits import as_csv, as_text, rounded
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written
from autoseg.names import counted
from autoseg.options import SurfaceOptions
from autoseg.places import is_foreign
from autoseg.reconstruct.borders import Border, borders_as_json, measure_borders
from autoseg.records import read_case
from autoseg.workspace import write_text

__all__ = ["BORDERS_TABLE", "Borders", "borders_line", "write_borders"]

BORDERS_TABLE = "borders.csv"


@dataclass(frozen=True)
class Borders:
    """How well the surfaces of structures that touch fit together."""

    surfaces: SurfaceOptions
    name = "borders"
    suffixes = ()

    @property
    def identity(self) -> dict[str, Any]:
        return {}  # it is part of the identity of the measurements

    def check(self, model: ModelFacts) -> None:
        """Every model's surfaces can be measured."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        borders = measure_borders(found.labels, found.model.labels.groups, found.surfaces(self.surfaces))
        return Written((), {"borders": borders_as_json(borders)})


def write_borders(folder: Path, cases: Iterable[str], name: str = BORDERS_TABLE) -> str:
    """Write one table of the borders in the ``CASE.json`` of these cases; no table if no structures with surfaces touch.

    Returns:
        A sentence that sums up the table; '' without a table.
    """
    records = [(case, record.borders) for case in cases if (record := read_case(folder / f"{case}.json"))]
    names = [field.name for field in fields(Border)]
    rows = [[case, *(border.get(name) for name in names)] for case, borders in records for border in borders]
    if not rows:
        if not is_foreign(folder / name, BORDERS_TABLE):
            (folder / name).unlink(missing_ok=True)  # from an earlier call
        return ""
    lines = ([rounded(cell) if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_text(folder / name, as_csv([["case", *names], *lines]))
    return borders_line([dict(zip(["case", *names], row, strict=True)) for row in rows])


def borders_line(borders: Sequence[Mapping[str, Any]]) -> str:
    """A sentence about borders of several cases, as in the table."""
    widest = max(borders, key=lambda one: _size(one, "gap_max_mm"))
    most = _size(widest, "gap_max_mm")
    where = f" ({widest['first']} and {widest['second']}, {widest['case']})" if most else ""
    gap, overlap = (sum(_size(one, name) for one in borders) for name in ("gap_mm3", "overlap_mm3"))
    return (
        f"{counted(len(borders), 'border')} of neighbours: surfaces at most {as_text(most, 2)} mm apart{where}; "
        f"gaps of {as_text(gap, 1)} mm3, overlaps of {as_text(overlap, 1)} mm3"
    )


def _size(border: Mapping[str, Any], name: str) -> float:
    """A number of a record; 0 if it is not a number."""
    value = border.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
