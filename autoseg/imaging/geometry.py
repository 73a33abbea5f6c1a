"""Positions of voxels in the patient.

A ``Geometry`` is a grid: a shape and an affine from array index (z, y, x) to patient millimetres (x, y, z), RAS+ (towards
the patient's right, front, head). It is a value: for cropping, resizing, transposing or flipping an array, the method of
the same name here returns the new grid. Undoing any of them needs only the two grids. File formats return and take arrays
in (z, y, x); no other module converts between axis orders.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from autoseg.errors import GeometryError

__all__ = ["Geometry", "Ints", "Triple", "spans_space"]

Triple = tuple[float, float, float]
FLAT = 1e-9  # of a cube's volume: three directions that span less are coplanar
SAME_GRID = 0.05  # voxels between corresponding corners: headers store single precision, some only a few digits
SHIFTED_GRID = 0.5  # beyond, voxels of equal index are not the nearest to each other
PLAUSIBLE_MM = 1e-6, 1e4  # voxel edges
FARTHEST_MM = 1e7  # from the origin
SHEARED = 1e-4  # cosine of the angle between two axes; smaller ones are rounding in headers
MOST_VOXELS = 1 << 36  # in a volume: 64 GiB at one byte each
Ints = Sequence[int] | np.ndarray  # one for each axis


def spans_space(steps: ArrayLike) -> bool:
    """Whether the columns of a (3, 3) matrix are linearly independent, whatever their scale."""
    columns = []
    for column in zip(*np.asarray(steps, float).tolist(), strict=True):  # plain numbers are ten times as fast as small arrays
        length = math.hypot(*column)
        if not 0 < length < math.inf:
            return False
        columns.append([number / length for number in column])
    (a, b, c), (d, e, f), (g, h, i) = columns
    return bool(abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) > FLAT)


@dataclass(frozen=True)
class Geometry:
    """A grid of voxels in patient space.

    Attributes:
        shape: voxels along array axes (z, y, x).
        rows: three rows of four numbers, the affine that maps (index_z, index_y, index_x, 1) to (x, y, z) mm in RAS+.
    """

    shape: tuple[int, int, int]
    rows: tuple[tuple[float, float, float, float], ...]

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"expected a grid of three axes with at least one voxel each, found shape {self.shape}")
        if [len(row) for row in self.rows] != [4, 4, 4] or not (
            all(math.isfinite(number) for row in self.rows for number in row) and spans_space([row[:3] for row in self.rows])
        ):
            raise GeometryError(f"expected three directions that span space, found the affine {self.rows}")

    @classmethod
    def from_affine(cls, shape: Ints, affine: ArrayLike) -> Geometry:
        """From a (3 or 4, 4) matrix that maps (index_z, index_y, index_x, 1) to RAS+ millimetres."""
        rows: Any = tuple(tuple(float(v) for v in row) for row in np.asarray(affine, float)[:3])
        size: Any = tuple(int(n) for n in shape)
        return cls(size, rows)

    @classmethod
    def from_spacing(cls, shape: Ints, spacing_mm: Sequence[float]) -> Geometry:
        """The canonical grid at the origin: z to the head, y to the front, x to the right."""
        z, y, x = spacing_mm
        return cls.from_affine(shape, [[0, 0, x, 0], [0, y, 0, 0], [z, 0, 0, 0]])

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, index (z, y, x) to RAS+ mm; a new array."""
        return np.vstack([np.array(self.rows, float), [0, 0, 0, 1]])

    @property
    def spacing_mm(self) -> Triple:
        """Voxel size along the array axes (z, y, x)."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, in mL; less than the product of its edges if the grid is sheared."""
        return abs(float(np.linalg.det(self.steps_mm))) / 1000

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not at right angles, as with a tilted gantry."""
        return bool(np.abs(self.directions.T @ self.directions - np.eye(3)).max() >= SHEARED)

    @property
    def steps_mm(self) -> np.ndarray:
        """(3, 3) float64: column a leads from a voxel to the next along array axis a, rotated so that the matrix is triangular.

        For distances and volumes. Unless the grid is sheared, it is diagonal: ``spacing_mm``.
        """
        return np.linalg.qr(self.affine[:3, :3]).R if self.is_sheared else np.diag(self.spacing_mm)

    @property
    def directions(self) -> np.ndarray:
        """(3, 3) float64; column a is the unit vector of array axis a in RAS+."""
        return self.affine[:3, :3] / self.spacing_mm

    @property
    def orientation(self) -> str:
        """Three letters: the patient side towards which array axes z, y, x point, such as 'SAR'."""
        signs = self._nearest_axes()
        return "".join("RAS"[world] if sign > 0 else "LPI"[world] for world, sign in signs)

    def to_world(self, index_zyx: ArrayLike) -> np.ndarray:
        """(N, 3) indices to (N, 3) RAS+ millimetres."""
        affine = self.affine
        points: np.ndarray = np.asarray(index_zyx, float) @ affine[:3, :3].T + affine[:3, 3]
        return points

    def to_index(self, point_mm: ArrayLike) -> np.ndarray:
        """(N, 3) RAS+ millimetres to (N, 3) indices (z, y, x), not rounded."""
        affine = self.affine
        indices: np.ndarray = np.linalg.solve(affine[:3, :3], (np.asarray(point_mm, float) - affine[:3, 3]).T).T
        return indices

    def cropped(self, lower: Ints, shape: Ints) -> Geometry:
        """The part that begins at index ``lower`` (may be negative: then it is padded) and has ``shape`` voxels."""
        affine = self.affine
        affine[:3, 3] = self.to_world(np.array([lower]))[0]
        return Geometry.from_affine(shape, affine)

    def resized(self, shape: Ints) -> Geometry:
        """The grid over the same box with another number of voxels.

        Outer faces stay in place, so the spacing follows from the shapes and only approximates a requested spacing.
        """
        ratio = np.array(self.shape) / np.array(shape)
        affine = self.affine
        affine[:3, 3] = self.to_world([0.5 * ratio - 0.5])[0]
        affine[:3, :3] *= ratio
        return Geometry.from_affine(shape, affine)

    def transposed(self, order: Sequence[int]) -> Geometry:
        """The grid of ``array.transpose(order)``."""
        affine = self.affine
        affine[:3, :3] = affine[:3, list(order)]
        return Geometry.from_affine([self.shape[axis] for axis in order], affine)

    def flipped(self, axes: Sequence[int]) -> Geometry:
        """The grid of ``numpy.flip(array, axes)``."""
        affine = self.affine
        last = np.zeros(3)
        for axis in axes:
            last[axis] = self.shape[axis] - 1
        affine[:3, 3] = self.to_world([last])[0]
        for axis in axes:
            affine[:3, axis] *= -1
        return Geometry.from_affine(self.shape, affine)

    def canonical(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """How to bring an array of this grid to the canonical orientation.

        Returns:
            (order, flips): ``numpy.flip(array.transpose(order), flips)`` has axes that point, as closely as an oblique grid
            allows, to the head, the front and the right. Apply the same to the geometry with ``oriented``.
        """
        nearest = self._nearest_axes()
        order = tuple(next(a for a in range(3) if nearest[a][0] == world) for world in (2, 1, 0))
        flips = tuple(i for i, axis in enumerate(order) if nearest[axis][1] < 0)
        return order, flips

    def oriented(self, order: Sequence[int], flips: Sequence[int]) -> Geometry:
        """``transposed(order)`` and then ``flipped(flips)``."""
        return self.transposed(order).flipped(flips)

    def isotropic(self, spacing_mm: float | None = None) -> Geometry:
        """The grid of cubic voxels over the same box; with the finest spacing if ``spacing_mm`` is None.

        The edge is rounded to a whole number of voxels along each axis.

        Raises:
            GeometryError: a negative edge, or one so small that the volume would have too many voxels.
        """
        if spacing_mm is not None and spacing_mm < 0:
            raise GeometryError(f"expected cubic voxels with an edge above 0 mm, found {spacing_mm}")
        edge = spacing_mm or min(self.spacing_mm)
        shape = [max(1, round(n * size / edge)) for n, size in zip(self.shape, self.spacing_mm, strict=True)]
        if (count := math.prod(shape)) > MOST_VOXELS:
            raise GeometryError(
                f"expected cubic voxels that fit into memory, found {float(count):.2g} of them with an edge of {edge:.3g} mm. "
                "Ask for a larger edge"
            )
        return self.resized(shape)

    def is_same_grid(self, other: Geometry) -> bool:
        """Whether equal indices mean equal voxels, up to rounding in headers: 0.05 voxels at the corners."""
        return self.distance_voxels(other) <= SAME_GRID

    def corresponds(self, other: Geometry) -> bool:
        """Whether voxels of equal index are nearest to each other: corners up to half a voxel apart. The tolerance for masks of
        a scan, and of other masks; channels must be on the same grid."""
        return self.distance_voxels(other) <= SHIFTED_GRID

    def refuse_implausible(self) -> None:
        """``GeometryError`` for implausible voxels, whose processing would take too long or be meaningless."""
        least, most = PLAUSIBLE_MM
        spacing = self.spacing_mm
        z, y, x = self.shape
        reach = max(max(abs(first), abs(a * z + b * y + c * x + first)) for a, b, c, first in self.rows)
        if not (least <= min(spacing) and max(spacing) <= most and reach <= FARTHEST_MM):
            sizes = " x ".join(f"{size:.3g}" for size in spacing)
            raise GeometryError(
                f"expected voxels of {least:g} to {most:g} mm within {FARTHEST_MM:g} mm of the origin, found {sizes} mm up to "
                f"{reach:.3g} mm away. Check unit and voxel size in the header"
            )

    def matches(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether shapes are equal and all corners coincide within ``tolerance_mm``."""
        return self.shape == other.shape and self.distance_mm(other) <= tolerance_mm

    def distance_mm(self, other: Geometry) -> float:
        """The largest distance, along x, y or z, between voxels of equal index in two grids.

        Measured at the corners of this grid, where the difference of two affines is largest.
        """
        corners = self._corners()
        return float(np.abs(self.to_world(corners) - other.to_world(corners)).max())

    def distance_voxels(self, other: Geometry) -> float:
        """The largest distance between corresponding corners along an axis, in voxels; infinite if shapes differ."""
        corners = self._corners()
        return math.inf if self.shape != other.shape else float(np.abs(self.to_index(other.to_world(corners)) - corners).max())

    def _corners(self) -> np.ndarray:
        """(8, 3) indices (z, y, x)."""
        return np.array(list(itertools.product(*[(0, n - 1) for n in self.shape])))

    def __str__(self) -> str:
        size = "x".join(str(n) for n in self.shape)
        spacing = "x".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"{size} voxels of {spacing} mm (z, y, x), {self.orientation}"

    def _nearest_axes(self) -> list[tuple[int, int]]:
        """(world axis, sign) for each array axis, each world axis used once, with the best total alignment.

        For ties (such as a rotation by 45 degrees in float32), the canonical order has priority, so that a canonical grid
        stays canonical.
        """
        directions = self.directions
        best = max(
            sorted(itertools.permutations(range(3)), reverse=True),  # canonical (2, 1, 0) first; max returns the first
            key=lambda worlds: round(sum(abs(directions[world, axis]) for axis, world in enumerate(worlds)), 5),
        )
        return [(world, 1 if directions[world, axis] >= 0 else -1) for axis, world in enumerate(best)]
