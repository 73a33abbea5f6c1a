"""Segmentations for 3D Slicer: ``CASE.seg.nrrd``, with names, colours and codes; overlaps are in layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.dataset import Case
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written

__all__ = ["SlicerSegmentation"]

DERIVED = "derived: segments of the label map beside it"


@dataclass(frozen=True)
class SlicerSegmentation:
    """The final labels of each case as a 3D Slicer segmentation; overlapping regions are in layers."""

    name = "seg_nrrd"
    suffixes = (".seg.nrrd",)

    @property
    def identity(self) -> dict[str, Any]:
        return {"export": {self.name: {}}}

    def check(self, model: ModelFacts) -> None:
        """Every model's labels can be written so."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        from autoseg.imaging.seg_nrrd import write_seg_nrrd  # takes a fifth of a second to import DICOM's code tables

        path = folder / f"{case.id}{self.suffixes[0]}"
        write_seg_nrrd(path, found.labels, found.model.labels.groups, description=DERIVED)
        return Written((path,))
