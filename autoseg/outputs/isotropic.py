"""Volumes with cubic voxels: one restored by the network, one interpolated without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.dataset import Case
from autoseg.imaging import nifti
from autoseg.imaging.files import read_volume
from autoseg.imaging.resample import resample_image
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written
from autoseg.preprocess.case import scanner_units, spacing_of
from autoseg.reconstruct.native import image_to_native

__all__ = ["Isotropic"]

THICKER = 1.5  # slices count as thick from this many times the other spacing


@dataclass(frozen=True)
class Isotropic:
    """``CASE_iso_cubic.nii.gz``, the scan by cubic splines, and ``CASE_iso.nii.gz``, restored by the network.

    Both cover the box of the scan, in its units, and are marked as derived in their headers. A model without a restoration
    head gives only the first, and ``CASE.json`` says so. Outside the region that the network processed, the restored volume
    equals the first; intensities are clipped to the range of the network. Space between slices is restored on the network's
    grid. If that grid is as coarse as the scan, the network could not learn it, and ``CASE.json`` says so.

    Attributes:
        spacing_mm: edge of the voxels; 0 for the finest spacing of each scan.
        resample_channels: as for reading the scan.
    """

    spacing_mm: float
    resample_channels: bool = False
    name = "isotropic"
    suffixes = ("_iso_cubic.nii.gz", "_iso.nii.gz")

    @property
    def identity(self) -> dict[str, Any]:
        return {"export": {"isotropic": {"spacing_mm": self.spacing_mm}}}

    def check(self, model: ModelFacts) -> None:
        """Accept every model; without a restoration head there is still the interpolated volume."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        volume = read_volume(case.images, resample=self.resample_channels)
        grid = volume.geometry.isotropic(self.spacing_mm)
        cubic = resample_image(volume.data, volume.geometry, grid, (3, 3, 3))
        files, restored = [folder / f"{case.id}_iso_cubic.nii.gz"], None
        note = "the model was trained without restoration_weight and does not restore images"
        nifti.write(files[0], _channels(cubic), grid, description="derived: scan on cubic voxels by splines")
        if found.restore is not None:
            plan, prepared = found.model.plan, found.prepared
            slices = _slices(spacing_of(volume.geometry, plan), prepared.grid.spacing_mm)
            image = scanner_units(found.restore(prepared.data, slices), volume, plan)
            files.append(folder / f"{case.id}_iso.nii.gz")
            restored, note = files[-1].name, _unlearned(slices, prepared.grid.spacing_mm)
            image = image_to_native(image, prepared.grid, cubic, grid)
            nifti.write(files[-1], _channels(image), grid, description="derived: restored by a network, on cubic voxels")
        about = {
            "derived": True,
            "spacing_mm": grid.spacing_mm,
            "interpolated": files[0].name,
            "restored": restored,
            "note": note,
        }
        return Written(tuple(files), {"isotropic": about})


def _slices(native_mm: Sequence[float], grid_mm: Sequence[float]) -> list[float]:
    """Slice thickness of the scan along (z, y, x) in voxels of the network's grid, relative to its other axes."""
    voxels = [max(1.0, native / mm) for native, mm in zip(native_mm, grid_mm, strict=True)]
    return [count / min(voxels) for count in voxels]


def _unlearned(slices: Sequence[float], grid_mm: Sequence[float]) -> str:
    """A sentence if the network's grid has thick slices and those of the scan are no thicker; else empty."""
    if max(slices) > THICKER or max(grid_mm) < THICKER * min(grid_mm):
        return ""
    return (
        f"slices are no thicker than those the model learned from ({max(grid_mm):.3g} mm): it removes noise and blur, and "
        "between the slices the restored volume is interpolated"
    )


def _channels(data: np.ndarray) -> np.ndarray:
    """(Z, Y, X) for one channel, as viewers expect; several channels stay (C, Z, Y, X)."""
    one: np.ndarray = data[0] if len(data) == 1 else data
    return one
