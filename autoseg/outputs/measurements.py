"""Measurements of every structure: in ``CASE.json``, and one table for a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.atomic import replacing
from autoseg.data.dataset import Case
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written
from autoseg.options import SurfaceOptions
from autoseg.reconstruct.confidence import entropies
from autoseg.reconstruct.measure import as_json, csv_rows, measure_structures
from autoseg.records import read_case

__all__ = ["TABLE", "Measurements", "write_measurements"]

TABLE = "measurements.csv"


@dataclass(frozen=True)
class Measurements:
    """Size, position, shape and certainty of the final labels; also of their surfaces, if ``surfaces`` are written."""

    surfaces: SurfaceOptions
    name = "measurements"
    suffixes = ()

    @property
    def identity(self) -> dict[str, Any]:
        return {"export": {"reconstruction": self.surfaces.identity}}

    def check(self, model: ModelFacts) -> None:
        """Every model's labels can be measured."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        model, labels = found.model, found.model.labels
        one = model.compares_folds and len(model.folds) < 2
        measured = measure_structures(
            found.labels,
            labels.groups,
            meshes=found.surfaces(self.surfaces) if self.surfaces.formats else None,
            entropies=entropies(found.answer.logits, has_regions=labels.has_regions, temperatures=model.temperatures),
            agreements=found.answer.agreement,
            remark="no inter-fold Dice: only one fold predicted" if one else "",
        )
        return Written((), {"measurements": as_json(measured)})


def write_measurements(folder: Path, cases: Iterable[str], name: str = TABLE) -> None:
    """Write one table of the measurements in the ``CASE.json`` of these cases."""
    records = {case: record.measurements for case in cases if (record := read_case(folder / f"{case}.json"))}
    with replacing(folder / name) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(csv_rows(records))
