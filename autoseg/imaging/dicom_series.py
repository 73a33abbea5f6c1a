"""A DICOM series as one scan: its images and their positions.

A *plane* is one image in space: a file, or a frame of a multi-frame file. A *series* here is a stack of planes that form one
volume; one series of a scanner can contain several. Numbers are kept as in DICOM: LPS (towards the patient's left, back,
head), mm, rows before columns. Only ``Stack`` converts them to a ``Geometry``.
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
# Tolerances of lengths: in mm, and for small voxels a fraction of them.
SAME_PLACE_MM, SAME_PLACE_SHARE = 1e-2, 0.05  # of the mean distance of images, and of a pixel
FINEST_MM, FINEST_SHARE = 1e-5, 1e-3  # of a pixel: below either, two headers mean the same position
EVEN_MM = 0.101  # positions rounded to 0.1 mm are off by up to 0.05 mm, at both ends
EVEN_SHARE = 0.02  # of the slice distance: no slice is moved by more than a fiftieth of it,
EVEN_MOST = 0.2  # or a fifth by rounding: a missing slice moves another by at least a quarter
TILT_MM, TILT_SHARE = 0.06, 0.1  # the latter of a pixel
OFF_GRID = 0.5  # of a pixel: how far off the common grid a slice position may be
NO_UPTAKE = {"BQML", "CNTS", "PROPCNTS", "CPS"}  # units of PET: activity and counts
ROUNDED = 1e-4  # larger differences of directions and relative pixel sizes get a note


@dataclass(frozen=True)
class Plane:
    """One image.

    Attributes:
        path, frame: the file, and the frame number in it, from 0.
        called: name of the file in messages, which may be stored: its file name, unless that identifies the patient.
        uid: SOPInstanceUID of the file.
        shape: rows and columns.
        position: LPS mm of the centre of the first pixel; None if not stated.
        orientation: six direction cosines, along a row and down a column; None if not stated.
        spacing_mm: between rows and between columns; None if not stated.
        thickness_mm: of a slice; None if not stated.
        slope, intercept: applied to the stored values.
        samples: 1, or 3 for a colour image.
        is_inverted: MONOCHROME1: small values are meant to be displayed bright.
        unit: of the values of PET, such as BQML (Bq/ml) or GML (SUV); empty if not stated.
        problem: why its values are not intensities, as a phrase; empty if they are.
        traits: name -> text of elements that may distinguish images at one position, such as ``EchoTime``.
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
    unit: str = ""
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
    """The images of one volume. Functions that take the path of an image also take a series.

    Attributes:
        name: unique among the series found together; made of folder names and the series number. A folder name that
            identifies the patient is replaced by an alias, see ``dicom_patient.pseudonymise``.
        title: for messages, which may be stored: number, end of the identifier, relative folder, with the same aliases.
        planes: not empty; sorted along the normal. ``stack_of`` checks whether they fill an even grid.
        notes: sentences about what was left out or split.
        origin: where the files are, to be shown only on screen; None if the name has no alias.
        inverts: MONOCHROME1 images are inverted for display, as ITK and programs based on it do; else stored values are kept.
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
    """A series whose planes fill a grid, with notes: z from plane to plane, y down a column, x along a row."""

    geometry: Geometry
    notes: tuple[str, ...]


def stack_of(series: DicomSeries) -> Stack:
    """The grid that the planes of a series fill.

    The slice distance comes from the positions, never from ``SliceThickness`` or ``SpacingBetweenSlices``, except for a
    single slice. Slices with a constant sideways shift (a tilted gantry) give a sheared grid.

    Returns:
        Stack

    Raises:
        FileError: values that are not intensities.
        GeometryError: no positions; different sizes, spacings or directions; several images at one position; missing or
            unevenly spaced slices.
    """
    _refuse_unusable(series)
    first = grid_plane(series.planes)
    notes = [*series.notes, *_unlike_notes(series), *_display_notes(series), *_unit_notes(series)]
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
    """The plane whose pixel size and directions are used for the volume, with orthogonal directions.

    Some writers round them differently from slice to slice; the ones with the most digits are used.
    """
    first = max(planes, key=lambda plane: sum(len(repr(v)) for v in (*(plane.orientation or ()), *(plane.spacing_mm or ()))))
    pair = np.reshape(first.orientation or (), (2, 3))
    if np.abs(pair @ pair.T - np.eye(2)).max() > 1e-6:
        left, _, right = np.linalg.svd(pair, full_matrices=False)  # the nearest orthogonal pair
        pair = left @ right
    return replace(first, orientation=tuple(float(v) for v in pair.ravel()))


def depths_mm(planes: Sequence[Plane]) -> NDArray[np.float64]:
    """(N,) positions of planes along their common normal."""
    depths: NDArray[np.float64] = np.array([plane.position for plane in planes], float) @ _normal(grid_plane(planes))
    return depths


def repeats(depths: NDArray[np.float64], plane: Plane, usual_mm: float = np.inf) -> NDArray[np.bool_]:
    """(N - 1,) whether an image has the position of the previous one.

    Args:
        depths: (N,) mm, ascending.
        plane: one of the images.
        usual_mm: a known distance between slices.
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
    """Notes about slices that differ by rounding; GeometryError if they differ by more."""
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


def _unit_notes(series: DicomSeries) -> list[str]:
    units = sorted({plane.unit for plane in series.planes} & NO_UPTAKE)
    return (
        [f"The values are {units[0]}, no standardised uptake (SUV) as most networks for PET are trained on."] if units else []
    )


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
    """A note about slices shifted sideways, or None."""
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
    """The file, and the frame if needed, for messages."""
    return f"{plane.called}[{plane.frame}]" if plane.frame else plane.called
