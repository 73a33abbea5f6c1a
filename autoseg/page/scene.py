"""What is shown of a case: scan and masks in canonical orientation, cropped to the structures and a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from autoseg.errors import AutosegError
from autoseg.imaging.crop import crop, nonzero_box
from autoseg.imaging.files import read_label_volume, read_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import orient
from autoseg.records import CaseRecord

__all__ = ["PageCase", "Scene", "read_scene", "try_scene"]

MARGIN_MM = 20.0  # at least, to show where in the body a structure lies


@dataclass(frozen=True)
class PageCase:
    """A case of the report and its files, each of which may be missing.

    Attributes:
        id: name of the case.
        images: one file per channel; the first is shown.
        record: content of CASE.json.
        surfaces: folder with a mesh per structure.
        called: name for ``predicted``, which may also be a label map of another tool.
    """

    id: str
    images: tuple[Path, ...] = ()
    reference: Path | None = None
    predicted: Path | None = None
    record: CaseRecord = CaseRecord()
    surfaces: Path | None = None
    called: str = "prediction"


@dataclass(frozen=True, eq=False)
class Scene:
    """Part of a scan; the array axes point to the head, the front and the right.

    Attributes:
        scan: (Z, Y, X) uint8, 0 to 255 between the percentiles 0.5 and 99.5, or None.
        reference, predicted: (Z, Y, X) label values, or None; at least one is given.
        geometry: grid of this part.
        notes: sentences about what could not be shown.
        called: name for ``predicted``.
    """

    scan: np.ndarray | None
    reference: np.ndarray | None
    predicted: np.ndarray | None
    geometry: Geometry
    notes: tuple[str, ...] = ()
    called: str = "prediction"

    @cached_property
    def difference(self) -> np.ndarray:
        """(Z, Y, X) bool: where the two masks differ or, with one mask alone, where it is not 0."""
        if self.reference is None or self.predicted is None:
            return np.asarray(self.shown != 0)
        return np.asarray(self.reference != self.predicted)

    @property
    def shown(self) -> np.ndarray:
        """The prediction, or the reference if there is none."""
        data = self.reference if self.predicted is None else self.predicted
        assert data is not None, "a scene has a mask"
        return data

    @cached_property
    def slices(self) -> tuple[int, ...]:
        """(z, y, x) index of the slice with most ``difference`` along each axis; of equal ones, the middle one."""
        counts = [self.difference.sum(axis=tuple(i for i in range(3) if i != axis)) for axis in range(3)]
        fullest = [np.flatnonzero(count == count.max()) for count in counts]
        return tuple(int(best[len(best) // 2]) for best in fullest)


def read_scene(case: PageCase) -> Scene | None:
    """The Scene of a PageCase, or None if it has no mask. A scan or reference on another grid is left out, with a note.

    Raises:
        AutosegError: a file cannot be read.
    """
    main = case.predicted or case.reference
    if main is None:
        return None
    mask = read_label_volume(main)
    grid, notes = mask.geometry, []
    reference = read_label_volume(case.reference, onto=grid) if case.predicted and case.reference else None
    scan = read_volume(case.images[0], onto=grid) if case.images else None
    if not case.images:
        notes.append("the scan was not found")
    for name, volume in (("reference", reference), ("scan", scan)):
        if volume is not None and not volume.geometry.corresponds(grid):
            notes.append(f"the {name} lies on another grid and is not shown")
    fits = [volume if volume is None or volume.geometry.corresponds(grid) else None for volume in (reference, scan)]
    order, flips = grid.canonical()
    geometry = grid.oriented(order, flips)
    masks = [mask.data] + ([fits[0].data] if fits[0] is not None else [])
    masks = [orient(data, order, flips) for data in masks]
    lower, upper = _box(np.stack([data != 0 for data in masks]), geometry)
    masks = [np.ascontiguousarray(crop(data, lower, upper)) for data in masks]
    grey = None if fits[1] is None else _grey(crop(orient(fits[1].data[0], order, flips), lower, upper))
    predicted = masks[0] if case.predicted else None
    truth = masks[-1] if case.reference and (len(masks) == 2 or not case.predicted) else None
    for name, data in ((case.called, predicted), ("reference", truth)):
        if data is not None and not data.any():
            notes.append(f"{name}: no voxel is labelled")
    shape = [b - a for a, b in zip(lower, upper, strict=True)]
    return Scene(grey, truth, predicted, geometry.cropped(lower, shape), tuple(notes), case.called)


def try_scene(case: PageCase) -> tuple[Scene | None, str]:
    """(Scene, ''), (None, reason) if a file cannot be read, or (None, '') if the case has no mask."""
    try:
        return read_scene(case), ""
    except AutosegError as found:
        return None, str(found)


def _box(masks: np.ndarray, geometry: Geometry) -> tuple[Sequence[int], Sequence[int]]:
    """(lower, upper) of the masks (n, Z, Y, X) with a margin, within the image; the whole image if no voxel is labelled."""
    lower, upper = nonzero_box(masks)
    box = []
    for a, b, n, spacing in zip(lower, upper, geometry.shape, geometry.spacing_mm, strict=True):
        margin = round(max(MARGIN_MM, 0.25 * (b - a) * spacing) / spacing)
        box.append((max(0, a - margin), min(n, b + margin)))
    return [a for a, _ in box], [b for _, b in box]


def _grey(data: np.ndarray) -> np.ndarray:
    """(Z, Y, X) as uint8, 0 to 255 between the percentiles 0.5 and 99.5; voxels that are not finite count as 0."""
    data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = np.percentile(data[:: max(1, data.shape[0] // 64)], (0.5, 99.5))
    return np.asarray(np.clip((data - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8))
