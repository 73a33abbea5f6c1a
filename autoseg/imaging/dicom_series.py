"""A DICOM series as one scan: which images it consists of, and where they lie.

A *plane* is one image in space: a file, or a frame of a file that holds many. A *series* here is a stack of planes that were
taken to be one volume; one series of a scanner can hold several. Numbers are kept as DICOM has them: LPS (towards the patient's
left, back, head), mm, rows before columns. ``Stack`` is the only place that turns them into a ``Geometry``.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import FileError, GeometryError
from autoseg.imaging.geometry import Geometry

__all__ = ["DicomSeries", "Plane", "Stack", "depths_mm", "grid_plane", "repeats", "stack_of"]

TO_RAS = np.array([-1.0, -1.0, 1.0])
# Lengths are met to so many mm at most, and in small voxels to a share of them.
SAME_PLACE_MM, SAME_PLACE_SHARE = 1e-2, 0.05  # of the mean distance of images, and of a pixel
FINEST_MM, FINEST_SHARE = 1e-5, 1e-3  # of a pixel: below either two headers mean one place
EVEN_MM = 0.101  # writers that round positions to a tenth of a mm are off by up to 0.05, and so are both ends
EVEN_SHARE = 0.02  # of the distance of slices: nothing is moved by more than a fiftieth of a slice,
EVEN_MOST = 0.2  # or a fifth by rounding: a slice that is missing moves another one by a quarter at least
TILT_MM, TILT_SHARE = 0.06, 0.1  # the latter of a pixel
OFF_GRID = 0.5  # of a pixel: how far beside the common grid a slice may say that it lies
ROUNDED = 1e-4  # directions and relative pixel sizes that differ by more are worth a note


@dataclass(frozen=True)
class Plane:
    """One image.

    Attributes:
        path, frame: the file, and the number of the frame in it, from 0.
        called: what messages, which may be kept, call the file: its name, if that does not give away the patient.
        uid: SOPInstanceUID of the file.
        shape: rows and columns.
        position: LPS mm of the centre of the first pixel; None where the file does not say.
        orientation: six direction cosines, along a row and down a column; None where the file does not say.
        spacing_mm: between rows and between columns; None where the file does not say.
        thickness_mm: of a slice; None where the file does not say.
        slope, intercept: of the stored values.
        samples: 1, or 3 of a colour image.
        is_inverted: MONOCHROME1, so that small values are meant to be shown bright.
        problem: why its values are no intensities, as a phrase; empty where they are.
        traits: name -> text of what may tell apart images of one place, such as ``EchoTime``.
    """

    path: Path
    frame: int
    called: str
    uid: str
    shape: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    thickness_mm: float | None
    slope: float
    intercept: float
    samples: int
    is_inverted: bool = False
    problem: str = ""
    traits: tuple[tuple[str, str], ...] = ()

    @property
    def steps_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Vectors (3,) from a pixel to the next one down its column, and to the next one along its row."""
        assert self.orientation is not None
        assert self.spacing_mm is not None
        along, down = np.reshape(self.orientation, (2, 3))
        return down * self.spacing_mm[0], along * self.spacing_mm[1]


@dataclass(frozen=True)
class DicomSeries:
    """The images of one volume. Where a function takes the path of an image, it takes a series too.

    Attributes:
        name: unique among the series found together; made of folder names and the number of the series. A folder that gives
            away the patient is called by an alias, see ``dicom_patient.pseudonymise``.
        title: for messages, which may be kept: number, end of the identifier, folder within what was looked through, with such
            aliases.
        planes: not empty; sorted along the normal. Whether they fill an even grid is for ``stack_of`` to say.
        notes: sentences about what was left out or split.
        origin: what holds the files, for eyes in front of the screen alone; None where the name is theirs.
        inverts: images of MONOCHROME1 are turned round as their display asks, as ITK and its relatives do; else stored values
            are kept.
    """

    name: str
    title: str
    planes: tuple[Plane, ...]
    notes: tuple[str, ...] = ()
    origin: Path | None = None
    inverts: bool = False

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, each once."""
        return tuple(dict.fromkeys(plane.path for plane in self.planes))

    def __str__(self) -> str:
        return self.title


@dataclass(frozen=True)
class Stack:
    """A series whose planes fill a grid: z from plane to plane, y down a column, x along a row; and notes about it."""

    geometry: Geometry
    notes: tuple[str, ...]


def stack_of(series: DicomSeries) -> Stack:
    """The grid that the planes of a series fill.

    The distance of slices is taken from their positions, never from ``SliceThickness`` or ``SpacingBetweenSlices``, except for
    a single slice. Slices that are shifted against each other at a constant rate (a tilted gantry) make a sheared grid.

    Returns:
        Stack

    Raises:
        FileError: values that are no intensities.
        GeometryError: no positions; sizes, spacings or directions that differ; several images at one place; slices that
            are missing or lie unevenly.
    """
    _refuse_unusable(series)
    first = grid_plane(series.planes)
    notes = [*series.notes, *_unlike_notes(series), *_display_notes(series)]
    positions = np.array([plane.position for plane in series.planes])
    if len(positions) == 1:
        step = _normal(first) * (first.thickness_mm or 1.0)
        notes.append(f"A single slice; its thickness is taken as {first.thickness_mm or 1.0:g} mm.")
    else:
        _refuse_repeated_places(series)
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
        _refuse_uneven_places(series, positions, step)
        if len(positions) == 2:
            notes.append("Two slices only: nothing shows whether one between them is missing.")
        if tilt := _tilt_note(first, positions, step):
            notes.append(tilt)
    affine = np.column_stack([step, *first.steps_mm, positions[0]]) * TO_RAS[:, None]
    return Stack(Geometry.from_affine((len(positions), *first.shape), affine), tuple(notes))


def grid_plane(planes: Sequence[Plane]) -> Plane:
    """The plane whose pixel size and directions are those of the volume, the directions at right angles.

    Some writers round them differently from slice to slice; those with the most digits are taken.
    """
    first = max(planes, key=lambda plane: sum(len(repr(v)) for v in (*(plane.orientation or ()), *(plane.spacing_mm or ()))))
    pair = np.reshape(first.orientation or (), (2, 3))
    if np.abs(pair @ pair.T - np.eye(2)).max() > 1e-6:
        left, _, right = np.linalg.svd(pair, full_matrices=False)  # the nearest two that are
        pair = left @ right
    return replace(first, orientation=tuple(float(v) for v in pair.ravel()))


def depths_mm(planes: Sequence[Plane]) -> NDArray[np.float64]:
    """(N,) where planes with a place lie along their common normal."""
    depths: NDArray[np.float64] = np.array([plane.position for plane in planes], float) @ _normal(grid_plane(planes))
    return depths


def repeats(depths: NDArray[np.float64], plane: Plane, usual_mm: float = np.inf) -> NDArray[np.bool_]:
    """(N - 1,) whether an image lies at the place of the one before.

    Args:
        depths: (N,) mm, ascending.
        plane: one of the images.
        usual_mm: a length that is known to lie between slices.
    """
    gaps = np.diff(depths)
    pixel = min(plane.spacing_mm or (1.0,))
    scale = min(float(gaps.mean()) if gaps.size else np.inf, pixel, usual_mm)
    same: NDArray[np.bool_] = gaps <= max(FINEST_MM, FINEST_SHARE * pixel, min(SAME_PLACE_MM, SAME_PLACE_SHARE * scale))
    return same


def _normal(plane: Plane) -> NDArray[np.float64]:
    down, along = plane.steps_mm
    normal = np.cross(along, down)
    unit: NDArray[np.float64] = normal / np.linalg.norm(normal)
    return unit


def _refuse_unusable(series: DicomSeries) -> None:
    for plane in series.planes:
        needed = {
            "ImagePositionPatient": plane.position,
            "ImageOrientationPatient": plane.orientation,
            "PixelSpacing": plane.spacing_mm,
        }
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise GeometryError(
                f"{series}: {plane.called} has no usable {' and no '.join(missing)}, so its position in the patient is "
                "unknown. Export the original images of the scanner."
            )
        if plane.problem:
            raise FileError(f"{series}: {plane.called}: {plane.problem}. Export the original images of the scanner.")


def _unlike_notes(series: DicomSeries) -> list[str]:
    """What to say where slices differ by rounding; GeometryError where they differ by more."""
    for what in ("shape", "samples") if series.inverts else ("shape", "samples", "is_inverted"):
        _refuse_different(series, {getattr(plane, what) for plane in series.planes}, what)
    first = grid_plane(series.planes)
    own = next(plane for plane in series.planes if (plane.path, plane.frame) == (first.path, first.frame))
    corners = np.multiply([[1, 0], [0, 1], [1, 1]], np.subtract(first.shape, 1))
    steps = np.array([plane.steps_mm for plane in series.planes]) - own.steps_mm  # (planes, down and along, 3)
    apart = float(np.linalg.norm(corners @ steps, axis=-1).max() / min(first.spacing_mm or ()))
    relative = [np.array([plane.spacing_mm for plane in series.planes]) / first.spacing_mm - 1]
    turned = [np.array([plane.orientation for plane in series.planes]) - own.orientation]
    if apart > OFF_GRID:
        what = "spacing_mm" if np.abs(relative).max() > np.abs(turned).max() else "orientation"
        _refuse_different(series, {tuple(np.round(getattr(plane, what), 6)) for plane in series.planes}, what)
    if max(np.abs(relative).max(), np.abs(turned).max()) <= ROUNDED:
        return []
    return [
        f"The slices' directions or pixel sizes differ, by {apart:.2g} of a pixel at the far corner, as after rounding; "
        "those with the most digits are used."
    ]


def _refuse_different(series: DicomSeries, values: Collection[object], what: str) -> None:
    if len(values) > 1:
        raise GeometryError(
            f"{series}: expected slices of one {_WORDS[what]}, found {len(values)} different ones among {len(series.planes)} "
            "images. Such a series (of localisers, projections or screenshots) is no volume; give a series of parallel slices."
        )


_WORDS = {
    "shape": "size",
    "samples": "kind",
    "is_inverted": "kind (MONOCHROME1 or MONOCHROME2)",
    "spacing_mm": "pixel spacing",
    "orientation": "orientation",
}


def _display_notes(series: DicomSeries) -> list[str]:
    if not any(plane.is_inverted for plane in series.planes):
        return []
    if series.inverts:
        return ["The images are of MONOCHROME1, and their values were inverted."]
    return [
        "The images are of MONOCHROME1 (small values shown bright), and their stored values are used. SimpleITK, ITK and 3D "
        "Slicer invert them: a model that was trained on their files sees these intensities inverted."
    ]


def _refuse_repeated_places(series: DicomSeries) -> None:
    same = repeats(depths_mm(series.planes), series.planes[0])
    if same.any():
        at, count = int(same.argmax()), len(series.planes)
        raise GeometryError(
            f"{series}: expected one image at each position, found {count} images at {count - int(same.sum())} "
            f"({_label(series.planes[at])} and {_label(series.planes[at + 1])} lie at the same), and neither echo, "
            "time nor kind of image separates them into volumes. Put the images of one volume into a folder of their own."
        )


def _refuse_uneven_places(series: DicomSeries, positions: NDArray[np.float64], step: NDArray[np.float64]) -> None:
    even = positions[0] + np.arange(len(positions))[:, None] * step
    size = float(np.linalg.norm(step))
    tolerance = max(EVEN_SHARE * size, min(EVEN_MM, EVEN_MOST * size))
    apart = float(np.linalg.norm(positions - even, axis=1).max())
    if apart <= tolerance:
        return
    gaps = np.diff(depths_mm(series.planes))
    usual = float(np.median(gaps))
    missing = np.rint(gaps / usual).astype(int) - 1
    at = int(gaps.argmax())
    between = f"between {_label(series.planes[at])} and {_label(series.planes[at + 1])}"
    is_multiple = np.abs(gaps - (missing + 1) * usual).max() <= max(2 * EVEN_SHARE * usual, min(EVEN_MM, EVEN_MOST * usual))
    if is_multiple and 0 < missing.sum() <= len(positions):
        raise GeometryError(
            f"{series}: expected a slice every {usual:.4g} mm, found a gap of {gaps[at]:.4g} mm {between}: "
            f"{len(positions)} slices, {missing.sum()} missing. Copy or export the series again."
        )
    if gaps.max() - gaps.min() > tolerance:
        raise GeometryError(
            f"{series}: expected slices at even distances, found steps of {gaps.min():.4g} to {gaps.max():.4g} mm, the largest "
            f"{between}. Take an evenly spaced reconstruction, or resample the series before."
        )
    raise GeometryError(
        f"{series}: expected slices stacked along a straight line, found some {apart:.3g} mm beside it. Such a series is "
        "no volume; give a series of parallel slices."
    )


def _tilt_note(first: Plane, positions: NDArray[np.float64], step: NDArray[np.float64]) -> str | None:
    """What to say where slices are shifted sideways, or None."""
    normal = _normal(first)
    sideways = step - normal * (normal @ step)
    shift = float(np.linalg.norm(sideways)) * (len(positions) - 1)
    if shift <= min(TILT_MM, TILT_SHARE * min(first.spacing_mm or ())):
        return None
    degrees = np.degrees(np.arctan2(np.linalg.norm(sideways), abs(normal @ step)))
    return (
        f"The slices are shifted sideways by {shift:.2g} mm in all (a gantry tilted by {degrees:.1f} degrees): the grid is "
        "sheared, and some viewers refuse such files."
    )


def _label(plane: Plane) -> str:
    """The file, and where needed the frame, for messages."""
    return f"{plane.called}[{plane.frame}]" if plane.frame else plane.called
