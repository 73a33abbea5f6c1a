"""A DICOM structure set (RTSTRUCT) as labels: its closed contours, drawn on the grid of the scan that they belong to.

A voxel belongs to a structure if its centre lies inside an odd number of the structure's contours on that slice. So a contour
within another is a hole, and so is the inside of a keyhole. A centre exactly on an outline belongs to one side of it, the same
for every structure: structures with a common border share no voxel there, and leave none out. (``skimage.draw.polygon`` gives
it to both. The time of scikit-image's tests grows with pixels times points, that of ``_fill`` with the rows that edges cross.)

Contours may lie on slices in any direction, but on slices of the grid. Nothing is interpolated between them.
"""

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from autoseg.errors import FileError, GeometryError, blamed_on
from autoseg.imaging.crop import NOWHERE, Box, crop
from autoseg.imaging.dicom_file import open_dataset
from autoseg.imaging.dicom_label import distinct_names, text_of
from autoseg.imaging.geometry import FARTHEST_MM, Geometry
from autoseg.imaging.raw import REMEDY, digest_of, read_bytes, refuse_beyond_memory
from autoseg.names import counted

__all__ = ["StructureSet", "read_contours", "read_structures", "structure_names"]

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
OFF_SLICE = 0.15  # of a slice: positions of contours are often rounded to a tenth of a mm
SNAP = 6  # decimals of an index: equal points in the patient are equal on the grid, however they were computed
OTHER_SCAN = "Give the scan that they were drawn on, or draw them on this one and export them as SEG or NIfTI."
CROSSINGS = 1 << 20  # of edges and rows, computed at a time

Contour = NDArray[np.float64]  # (N, 3) RAS+ mm, closed


@dataclass(frozen=True, eq=False)
class _Structure:
    """``contours`` are the items of closed contours, ``others`` the types of those that are not closed."""

    value: int
    frame: str
    contours: list[Dataset]
    others: list[str]


@dataclass(frozen=True, eq=False)
class StructureSet:
    """The contours of a structure set.

    Attributes:
        path: the file.
        values: {name: value in the label map}.
        contours: {name: contours}; an empty list for a structure that is not drawn.
        elsewhere: (N, 3) RAS+ mm, one point of each contour of structures that were not asked for.
        notes: what was left out.
        digest: of the bytes on disk.
    """

    path: Path
    values: dict[str, int]
    contours: dict[str, list[Contour]]
    elsewhere: Contour
    notes: tuple[str, ...]
    digest: str

    def mask(self, name: str, onto: Geometry) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """((Z, Y, X) of 0 and 1 for one structure, notes); errors as ``read_contours``."""
        box, inside, notes = self.draw(name, onto)
        mask = np.zeros(onto.shape, np.uint8)
        crop(mask, *box)[...] = inside
        return mask, (*self.notes, *notes)

    def draw(self, name: str, onto: Geometry) -> tuple[Box, NDArray[np.bool_], list[str]]:
        """(box on the grid, bool array of its shape, notes) of one structure."""
        contours = self.contours[name]
        if not contours:
            return NOWHERE, np.zeros((0, 0, 0), bool), []
        index = onto.to_index(np.concatenate(contours))
        starts = np.cumsum([0, *map(len, contours)])
        lowest, highest = (extreme.reduceat(index, starts[:-1]) for extreme in (np.minimum, np.maximum))
        axis = int((highest - lowest).sum(axis=0).argmin())
        slices = np.rint((lowest + highest)[:, axis] / 2)
        off = np.maximum(highest[:, axis] - slices, slices - lowest[:, axis])
        if (off > OFF_SLICE).any():
            raise GeometryError(
                f"{self.path}: expected the contours of {name} on slices of the scan, {onto}; found "
                f"{(off > OFF_SLICE).sum()} of {len(off)} up to {off.max():.2g} slices away. {OTHER_SCAN}"
            )
        self._refuse_another_scan(onto, axis)
        shape = np.array(onto.shape)
        is_here = (slices >= 0) & (slices < shape[axis])
        is_cut = is_here & np.delete((lowest < -0.5) | (highest > shape - 0.5), axis, axis=1).any(axis=1)
        missing = np.ptp(slices[is_here]) + 1 - len(np.unique(slices[is_here])) if is_here.any() else 0
        notes = _told(
            name,
            ("contours beyond the slices of the scan, left out", int((~is_here).sum())),
            ("contours cut off at the edge of the image", int(is_cut.sum())),
            ("slices between its first and its last without a contour, left empty", int(missing)),
        )
        if not is_here.any():
            return NOWHERE, np.zeros((0, 0, 0), bool), notes
        lower = np.clip(np.ceil(lowest[is_here].min(axis=0)), 0, shape).astype(int)
        upper = np.clip(np.floor(highest[is_here].max(axis=0)) + 1, lower, shape).astype(int)
        lower[axis], upper[axis] = slices[is_here].min(), slices[is_here].max() + 1
        size, in_plane = upper - lower, [other for other in range(3) if other != axis]
        refuse_beyond_memory(2 * math.prod(size.tolist()), self.path)
        inside = np.zeros((size[axis], *size[in_plane]), bool)
        is_of = np.repeat(is_here, np.diff(starts))
        follower = np.arange(1, len(index) + 1)
        follower[starts[1:] - 1] = starts[:-1]
        edges = np.round((index - lower)[np.stack([np.arange(len(index)), follower], axis=1)[is_of]][..., in_plane], SNAP)
        _fill(inside, np.repeat((slices - lower[axis])[is_here], np.diff(starts)[is_here]).astype(int), edges)
        return (lower.tolist(), upper.tolist()), np.moveaxis(inside, 0, axis), notes

    @cached_property
    def _centres(self) -> NDArray[np.float64]:
        """Of every contour of the file, (N, 3) RAS+ mm; a point of it where it was not asked for."""
        return np.array([*(points.mean(axis=0) for contours in self.contours.values() for points in contours), *self.elsewhere])

    def _refuse_another_scan(self, onto: Geometry, axis: int) -> None:
        """GeometryError if all contours of the file are beyond the grid, or if all lie on every n-th slice only."""
        index = onto.to_index(self._centres)
        if not ((index > -1) & (index < onto.shape)).all(axis=1).any():
            raise GeometryError(f"{self.path}: expected contours within the scan, {onto}; found all beyond it. {OTHER_SCAN}")
        slices = np.unique(np.rint(index[:, axis])).astype(int)
        step = int(np.gcd.reduce(np.diff(slices))) if len(slices) > 2 else 1
        if step > 1:
            raise GeometryError(
                f"{self.path}: expected contours on neighbouring slices of the scan, {onto}; found them on one in {step} only. "
                f"{OTHER_SCAN}"
            )


def structure_names(path: Path) -> dict[str, int]:
    """{name: value in the label map}, ordered by value, as ``dicom_label.segment_names``.

    Structures of points or open lines alone are left out; structures that are not drawn are empty.
    """
    with blamed_on(path, "a structure set that is whole"):
        return {name: one.value for name, one in _structures(path).items() if one.contours or not one.others}


def read_structures(path: Path, only: Collection[str] | None = None) -> StructureSet:
    """Every closed contour of a file.

    Args:
        only: names of the structures to read; None for all.

    Raises:
        FileError: no structure; contours that are damaged, that belong to no structure, or to several frames of reference.
    """
    with blamed_on(path, "a structure set that is whole"):
        every, contours, notes = _structures(path), dict[str, list[Contour]](), []
        structures = {name: one for name, one in every.items() if only is None or name in only}
        lines = {name: one for name, one in structures.items() if one.others and not one.contours}
        structures = {name: one for name, one in structures.items() if name not in lines}
        if lines:
            listed = (f"{name} ({', '.join(dict.fromkeys(one.others))})" for name, one in lines.items())
            notes.append(f"Left out, since they are not closed: {', '.join(listed)}.")
        if not structures:
            raise FileError(f"{path}: expected structures with closed contours, found none. Export those that were drawn.")
        if empty := [name for name, one in structures.items() if not one.contours]:
            notes.append(f"Not drawn, so taken as empty: {', '.join(empty)}.")
        if len(frames := {one.frame: name for name, one in structures.items() if one.contours and one.frame}) > 1:
            raise FileError(
                f"{path}: expected structures in one frame of reference, found {len(frames)}, such as those of "
                f"{' and '.join(list(frames.values())[:2])}. Export those of one scan."
            )
        for name, one in structures.items():
            read = [_points(item, f"{path}: {name}") for item in one.contours]
            unique = {points.tobytes(): points for points in read if len(points) > 2}
            small = sum(len(points) < 3 for points in read)
            notes += _told(
                name,
                (f"contours that are not closed ({', '.join(dict.fromkeys(one.others))}), left out", len(one.others)),
                ("contours of fewer than 3 points, left out", small),
                ("contours that are there twice, counted once", len(read) - small - len(unique)),
            )
            contours[name] = list(unique.values())
        values = {name: one.value for name, one in structures.items()}
        others = [one for name, one in every.items() if name not in structures and {one.frame} <= {"", *frames}]
        elsewhere = [point for one in others for item in one.contours if (point := _first_point(item))]
        return StructureSet(path, values, contours, np.array(elsewhere), tuple(notes), digest_of(read_bytes(path)))


def read_contours(path: Path, onto: Geometry) -> tuple[NDArray[Any], Geometry, tuple[str, ...], str, bool]:
    """All structures as one label map on a grid; see ``files.read_file``.

    Returns:
        (data (1, Z, Y, X), the grid, notes, digest, False: the whole scan is covered).

    Raises:
        FileError: as ``read_structures``; structures that overlap.
        GeometryError: contours between the slices of the grid, or all beyond it.
    """
    structures = read_structures(path)
    kind = np.dtype(np.min_scalar_type(max([255, *structures.values.values()])))
    refuse_beyond_memory(math.prod(onto.shape) * kind.itemsize, path)
    data, notes = np.zeros((1, *onto.shape), kind), [*structures.notes]
    for name, value in structures.values.items():
        box, inside, told = structures.draw(name, onto)
        part = crop(data[0], *box)
        if (twice := part[inside & (part != 0)]).size:
            other = next(other for other, known in structures.values.items() if known == twice[0])
            raise FileError(
                f"{path}: expected one structure per voxel, found {other} and {name} in one. "
                "`autoseg convert folders` makes regions of structures that overlap."
            )
        part[inside] = value
        notes += told
    return data, onto, tuple(notes), structures.digest, False


def _structures(path: Path) -> dict[str, _Structure]:
    """{name: structure}, ordered by value: the number, or the first free value where that is not above 0."""
    ds = open_dataset(path, stop_before_pixels=True)
    described, drawn = dict[int, Dataset](), dict[int, Dataset]()
    for item in ds.get("StructureSetROISequence") or ():
        if described.setdefault(int(item.ROINumber), item) is not item:
            raise FileError(f"{path}: expected each structure number once, found {item.ROINumber} twice. {REMEDY}")
    for item in ds.get("ROIContourSequence") or ():
        if drawn.setdefault(int(item.ReferencedROINumber), item) is not item:
            raise FileError(
                f"{path}: expected one list of contours for each structure, found two for {item.ReferencedROINumber}. {REMEDY}"
            )
    numbers = dict.fromkeys([*described, *drawn])
    names = distinct_names({number: text_of(described.get(number), "ROIName") for number in numbers})
    free = itertools.count(max([0, *numbers]) + 1)
    found = {}
    for number in numbers:
        items = [(_type_of(item), item) for item in (drawn[number].get("ContourSequence") or () if number in drawn else ())]
        found[names[number]] = _Structure(
            number if number > 0 else next(free),
            text_of(described.get(number), "ReferencedFrameOfReferenceUID"),
            [item for kind, item in items if kind in CLOSED],
            [kind for kind, _ in items if kind not in CLOSED],
        )
    return dict(sorted(found.items(), key=lambda one: one[1].value))


def _told(name: str, *counts: tuple[str, int]) -> list[str]:
    """A sentence for each number that is not 0."""
    return [f"{name}: {what}: {number}." for what, number in counts if number]


def _type_of(contour: Dataset) -> str:
    return text_of(contour, "ContourGeometricType").upper() or "of no type"


def _points(item: Dataset, where: str) -> Contour:
    """The points of a contour, (N, 3) RAS+ mm.

    Its bytes are taken as they are: pydicom is ten times as slow, and leaves values above 64 kB in explicit VR as bytes.
    """
    raw = _coordinates(item)
    numbers = np.array([float(number) for number in raw.split(b"\\")] if raw else [])
    stated = item.get("NumberOfContourPoints")
    if len(numbers) % 3 or stated not in (None, len(numbers) // 3):
        raise FileError(
            f"{where}: expected a contour of {'whole points' if stated is None else counted(int(stated), 'point')}, found "
            f"{counted(len(numbers), 'coordinate')}. {REMEDY}"
        )
    if not (np.abs(numbers) <= FARTHEST_MM).all():
        raise FileError(f"{where}: expected coordinates within {FARTHEST_MM:g} mm, found others. {REMEDY}")
    return numbers.reshape(-1, 3) * (-1, -1, 1)


def _first_point(item: Dataset) -> tuple[float, ...]:
    """x, y, z of the first point of a contour, RAS+ mm; () if it has none."""
    try:
        x, y, z = (float(number) for number in _coordinates(item).split(b"\\", 3)[:3])
    except ValueError:
        return ()
    return (-x, -y, z) if all(abs(number) <= FARTHEST_MM for number in (x, y, z)) else ()


def _coordinates(item: Dataset) -> bytes:
    element = item.get_item("ContourData")
    return ((element.value if element else None) or b"").strip(b" \0")


def _fill(inside: NDArray[np.bool_], layer: NDArray[np.intp], edges: NDArray[np.float64]) -> None:
    """Set the pixels whose centres lie inside an odd number of polygons of their layer.

    Each edge is marked where it crosses the rows, and a running exclusive or fills what is between two marks. An edge ends at
    the last row that it reaches.

    Args:
        inside: (layers, rows, columns), all False; changed.
        layer: of each edge.
        edges: (N, 2 ends, row and column), possibly beyond the layer.
    """
    _, rows, columns = inside.shape
    is_down = edges[:, 0, 0] > edges[:, 1, 0]
    edges[is_down] = edges[is_down, ::-1]  # upwards: a border of two structures is crossed at the same places in both
    first = np.clip(np.floor(edges[:, 0, 0]) + 1, 0, rows).astype(int)
    count = np.clip(np.floor(edges[:, 1, 0]) + 1, first, rows).astype(int) - first
    for part in np.array_split(np.flatnonzero(count), 1 + int(count.sum()) // CROSSINGS):
        which = np.repeat(part, count[part])
        row = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(count[part]) - count[part], count[part])
        (row_0, column_0), (row_1, column_1) = edges[which].transpose(1, 2, 0)
        column = np.floor(column_0 + (row - row_0) * (column_1 - column_0) / (row_1 - row_0)) + 1
        is_left = column < columns
        at = (layer[which] * rows + row)[is_left] * columns + np.maximum(column[is_left], 0).astype(int)
        np.logical_xor.at(inside.reshape(-1), at, True)
    np.logical_xor.accumulate(inside, axis=2, out=inside)
