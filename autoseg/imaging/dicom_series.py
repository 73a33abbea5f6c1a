"""A DICOM series as one scan: which images it consists of, and where they lie.

A *plane* is one image in space: a file, or a frame of a file that holds many. A *series* here is a stack of planes that were
taken to be one volume; one series of a scanner can hold several. Numbers are kept as DICOM has them: LPS (towards the patient's
left, back, head), mm, rows before columns. ``Stack`` is the only place that turns them into a ``Geometry``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import FileError, GeometryError
from autoseg.imaging.geometry import Geometry

__all__ = ["DicomSeries", "Plane", "Stack", "stack_of"]

TO_RAS = np.array([-1.0, -1.0, 1.0])
SAME_DIRECTION = 1e-4  # of unit vectors: 0.03 mm at the far side of a head
SAME_PLACE_MM = 1e-2
EVEN_MM = 0.06  # writers that round positions to a tenth of a mm are off by up to 0.05
EVEN_SHARE = 0.02  # of the distance of slices: nothing is moved by more than a fiftieth of a slice


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
    problem: str = ""
    traits: tuple[tuple[str, str], ...] = ()

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) unit vector across the plane."""
        assert self.orientation is not None
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def depth_mm(self) -> float:
        """Where the plane lies along its normal."""
        assert self.position is not None
        return float(self.normal @ np.asarray(self.position))

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
            away the patient is called by an alias, see ``dicom_patient.disguise``.
        title: for messages, which may be kept: number, end of the identifier, folder with such aliases.
        planes: not empty; sorted along the normal. Whether they fill an even grid is for ``stack_of`` to say.
        notes: sentences about what was left out or split.
        origin: what holds the files, for eyes in front of the screen alone; None where the title tells it.
    """

    name: str
    title: str
    planes: tuple[Plane, ...]
    notes: tuple[str, ...] = ()
    origin: Path | None = None

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
    first = series.planes[0]
    _refuse_unusable(series)
    _refuse_unlike_planes(series)
    positions = np.array([plane.position for plane in series.planes])
    notes = list(series.notes)
    if len(positions) == 1:
        step = first.normal * (first.thickness_mm or 1.0)
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
                f"{series}: {plane.called} has no usable {' and no '.join(missing)}, so nobody knows where it lies in the "
                "patient. Export the original images of the scanner."
            )
        if plane.problem:
            raise FileError(f"{series}: {plane.called}: {plane.problem}. Export the original images of the scanner.")


def _refuse_unlike_planes(series: DicomSeries) -> None:
    for what in ("shape", "samples", "spacing_mm", "orientation"):
        values = np.array([getattr(plane, what) for plane in series.planes])
        if (np.abs(values - values[0]) > SAME_DIRECTION).any():
            n = len(np.unique(np.round(values, 3), axis=0))
            raise GeometryError(
                f"{series}: expected slices of one {_WORDS[what]}, found {n} different ones among {len(values)} images. Such a "
                "series (of localisers, projections or screenshots) is no volume; give a series of parallel slices."
            )


_WORDS = {"shape": "size", "samples": "kind", "spacing_mm": "pixel spacing", "orientation": "orientation"}


def _refuse_repeated_places(series: DicomSeries) -> None:
    gaps = np.diff([plane.depth_mm for plane in series.planes])
    repeated = int((gaps < SAME_PLACE_MM).sum())
    if repeated:
        at = int(np.argmax(gaps < SAME_PLACE_MM))
        raise GeometryError(
            f"{series}: expected one image at each place, found {len(gaps) + 1} images at {len(gaps) + 1 - repeated} "
            f"({_label(series.planes[at])} and {_label(series.planes[at + 1])} lie at the same), and no volumes that echo, "
            "time or kind of image tell apart. Put the images of one volume into a folder of their own."
        )


def _refuse_uneven_places(series: DicomSeries, positions: NDArray[np.float64], step: NDArray[np.float64]) -> None:
    even = positions[0] + np.arange(len(positions))[:, None] * step
    tolerance = max(EVEN_MM, EVEN_SHARE * float(np.linalg.norm(step)))
    apart = float(np.linalg.norm(positions - even, axis=1).max())
    if apart <= tolerance:
        return
    gaps = np.diff([plane.depth_mm for plane in series.planes])
    usual = float(np.median(gaps))
    missing = np.rint(gaps / usual).astype(int) - 1
    at = int(gaps.argmax())
    between = f"between {_label(series.planes[at])} and {_label(series.planes[at + 1])}"
    is_multiple = np.abs(gaps - (missing + 1) * usual).max() <= max(EVEN_MM, 2 * EVEN_SHARE * usual)
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
    sideways = step - first.normal * (first.normal @ step)
    shift = float(np.linalg.norm(sideways)) * (len(positions) - 1)
    if shift <= EVEN_MM:
        return None
    degrees = np.degrees(np.arctan2(np.linalg.norm(sideways), abs(first.normal @ step)))
    return (
        f"The slices are shifted sideways by {shift:.1f} mm in all (a gantry tilted by {degrees:.1f} degrees): the grid is "
        "sheared, and some viewers refuse such files."
    )


def _label(plane: Plane) -> str:
    """The file, and where needed the frame, for messages."""
    return f"{plane.called}[{plane.frame}]" if plane.frame else plane.called
