"""Label maps: ``CASE`` + ending, on the grid of the scan, with its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.dataset import Case
from autoseg.imaging.files import write_label_volume
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written

__all__ = ["Labels"]


@dataclass(frozen=True)
class Labels:
    """The label map of each case; ``ending`` is its file type, such as ``.nii.gz``."""

    ending: str
    name = "labels"

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (self.ending,)

    @property
    def identity(self) -> dict[str, Any]:
        return {}

    def check(self, model: ModelFacts) -> None:
        """Every model gives labels."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        path = folder / f"{case.id}{self.ending}"
        write_label_volume(found.labels, path, like=case.images[0])
        return Written((path,))
