"""Smooth closed surfaces of structures, from class scores or from label maps.

A surface is the zero level of a *field*, which is positive inside. From scores, the field of class k is its logit minus the
largest other logit, so the position of the border between voxels comes from the scores, not from rounded labels. A label map
has only signs. There the field is the occupancy blurred by a voxel or, if slices are far apart, the signed distance to the
border (shape-based interpolation, Raya and Udupa 1990), blurred within slices. No voxel changes sides. Pieces that are one
voxel thick along some axis leave nothing to interpolate there: their field is the occupancy, blurred less.

Cubic splines resample the field to nearly cubic voxels, of half the size for small structures. Marching cubes (Lewiner) finds
the triangles, and Taubin's filter, which does not shrink, smooths them. Then the surface moves along its normals, by a
fraction of a voxel, until it encloses the right volume: that of the unsmoothed surface for scores, that of the voxels for
label maps. A structure that the border of the image cuts is closed at the outer faces of its voxels.

Mean errors of volume and area in percent, over 40 positions and rotations of the grid, for slices of 1, 3 and 5 mm
(``benchmarks/surfaces.py``):

- Scores that increase with the distance from the surface: -0.1 and -0.1 for a ball of radius 20 mm, within 0.4 and 0.3 for
  6 mm. If they level off within less than the slice spacing, thick slices form terraces: at 5 mm, areas are up to 3 too large.
- Scores that are the fraction of each voxel inside: -0.2 to -0.4 and -0.1 to 1.3 at 20 mm. At 6 mm, volumes are off by -1.2,
  -1.9 and -3.0, areas by -0.2 to 0.3: voxels at the surface of a small round structure are less than half inside.
- Label maps: the volume is that of the voxels. Counting voxels has random errors but no bias: their standard deviation is 0.1,
  0.1 and 0.8 at 20 mm, 0.7, 3.2 and 2.4 at 6 mm, and the worst is 6. For that volume, the area is 0.3 to 0.7 too large at
  20 mm, 0.7 to 1.4 at 6 mm. Simpson's rule over the areas of slices, with ends rounded by the curvature, reduces the random
  errors to a third for ellipsoids, but was no better than counting for real organs with every third or fifth slice kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import scipy  # its parts are imported where they are first used
from scipy import ndimage

from autoseg.engines import map_cases, values_of
from autoseg.errors import AutosegError
from autoseg.imaging.crop import Box, crop, hull, nonzero_box, value_boxes
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import SurfaceMesh
from autoseg.imaging.resample import resample_image
from autoseg.imaging.values import count_values
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.lazy_logits import Logits, slabs_along_z

__all__ = ["Box", "Smoothing", "isotropic_labels", "label_boxes", "mask_in", "surfaces_from_labels", "surfaces_from_scores"]

COARSE = 1.5  # an axis is interpolated if its spacing / the finest spacing is above this
FAR = 2.0  # the same ratio, above which label maps need distances: outlines shift more than the width of a blurred edge
SMALL = 24  # voxels; thinner structures are contoured at half the voxel size, where triangles cut off less of a curve
MOST_VOXELS = 1 << 27  # of an interpolated field; 512 MiB
MARGIN = 3  # voxels around a structure, for the splines
BLUR, BLUR_FAR = 1.0, 1.5  # voxels: sigma for the occupancy and, within slices, for distances
KEPT, KEPT_THIN = 0.1, 0.5  # fraction of its value that every voxel keeps when blurred, so no voxel changes sides
THIN_FIRST = 1e4  # voxels; more than any distance
STEPS, NEAR = 20, 1e-4  # most steps along the normals; relative error of the volume at which they end
SAID = 0.05  # relative difference from the volume of the voxels above which a surface gets a note
IN_SCORES, IN_LABELS = 10, 20  # iterations of Taubin's filter on surfaces from them
PASS, STOP = 0.5, -0.53  # Taubin 1995: weights of the two steps
NOT_DECIMATED = "with fewer it would no longer be closed, or its number of holes would change"

Key = TypeVar("Key")


@dataclass(frozen=True)
class Smoothing:
    """How surfaces are finished: ``iterations`` of Taubin's filter; the fraction of triangles to ``decimate``, in [0, 1)."""

    iterations: int
    decimate: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.decimate < 1:
            raise AutosegError(
                f"decimate: expected the fraction of triangles to remove, from 0 to below 1, found {self.decimate}"
            )


def surfaces_from_scores(
    logits: Logits,
    geometry: Geometry,
    structures: Sequence[str],
    *,
    has_regions: bool = False,
    decimate: float = 0.0,
    workers: int | None = None,
) -> list[SurfaceMesh | None]:
    """The surface of every structure, from the logits of a network.

    Args:
        logits: (K, z, y, x) float on ``geometry``, an array or LazyLogits; without regions head 0 is background.
        structures: their names, in the order of the heads.
        has_regions: each head is a region of its own, inside where its logit is above 0.
        decimate: see Smoothing.
        workers: threads.

    Returns:
        list of SurfaceMesh, None for a structure without voxels (nowhere the largest logit; for regions, nowhere above 0).
    """
    smoothing = Smoothing(IN_SCORES, decimate)
    first = 0 if has_regions else 1
    fields = _Regions(logits) if has_regions else _Winners(logits)

    def surface(number: int) -> SurfaceMesh | None:
        box = fields.box(number + first)
        if box is None:
            return None
        lower, upper = _widened(box, logits.shape[1:])
        field = np.pad(fields.margin(number + first, lower, upper).astype(np.float32, copy=False), 1, mode="edge")
        grid = geometry.cropped([a - 1 for a in lower], field.shape)
        return surface_of_fields([field], grid, _finer(grid, SMALL), structures[number], smoothing)

    return values_of(map_cases(surface, range(len(structures)), workers=workers))


def surfaces_from_labels(
    labels: LabelVolume,
    groups: Mapping[str, Sequence[int]],
    *,
    decimate: float = 0.0,
    workers: int | None = None,
) -> list[SurfaceMesh | None]:
    """The surface of every structure of a label map, from any tool.

    Args:
        labels: LabelVolume, of any orientation and spacing; one slice gives a slab as thick as the slice.
        groups: {structure: label values that belong to it}.
        decimate: see Smoothing.
        workers: threads.

    Returns:
        list of SurfaceMesh, None for a structure without voxels.
    """
    smoothing = Smoothing(IN_LABELS, decimate)
    parts = label_boxes(labels.data, groups)

    def surface(structure: str) -> SurfaceMesh | None:
        box = parts[structure]
        if box is None:
            return None
        mask, lower = mask_in(labels.data, groups[structure], box, MARGIN)
        grid = labels.geometry.cropped(lower, mask.shape)
        volume = np.count_nonzero(mask) * abs(np.linalg.det(grid.affine))
        fields = [field for field, _ in fields_of_mask(mask, grid.spacing_mm)]
        return surface_of_fields(fields, grid, _finer(grid), structure, smoothing, volume_mm3=volume)

    return values_of(map_cases(surface, groups, workers=workers))


def isotropic_labels(labels: LabelVolume, spacing_mm: float | None = None) -> LabelVolume:
    """Resample a label map to cubic voxels over the same box, with the fields that surfaces are made from.

    Where the field of all labels together is positive, the label with the largest field wins, even if that is negative: labels
    that touch leave no gap between slices. Thin pieces win wherever their own field is positive, or thick neighbours would
    fill them; elsewhere it is minus the distance to them, in the unit of the fields of thick pieces.

    Args:
        labels: LabelVolume.
        spacing_mm: edge of the voxels, rounded so that a whole number of them fits; None for the finest of the input.

    Returns:
        LabelVolume.
    """
    old = labels.geometry
    grid = old.isotropic(spacing_mm)
    shape = grid.shape
    result, best = np.zeros(shape, labels.data.dtype), np.full(shape, -np.inf, np.float32)
    values = tuple(value for value in count_values(labels.data) if value != 0)

    def on_grid(group: Sequence[int], box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(largest field of some values on the cubic grid, within their box; first index of that box; its end)."""
        mask, lower = mask_in(labels.data, group, box, MARGIN)
        source = old.cropped(lower, mask.shape)
        ends = np.stack([grid.to_index(source.to_world([corner]))[0] for corner in ((0, 0, 0), [n - 1 for n in mask.shape])])
        start = np.maximum(0, np.floor(ends[0])).astype(int)
        stop = np.minimum(shape, np.ceil(ends[1]) + 1).astype(int)
        box_grid = grid.cropped(start, stop - start)
        largest = np.full(box_grid.shape, -np.inf, np.float32)
        for field, thin in fields_of_mask(mask, source.spacing_mm):
            found = resample_image(field[None], source, box_grid, _orders(mask.shape))[0]
            if thin is not None and len(group) == 1:  # it competes with other labels
                ratios = np.array(source.spacing_mm) / min(source.spacing_mm)
                distance = ndimage.distance_transform_edt(~thin, sampling=ratios).astype(np.float32)
                away = resample_image(distance[None], source, box_grid, (1, 1, 1))[0]
                found = np.where(found > 0, found + THIN_FIRST, -away)
            np.maximum(largest, found, out=largest)
        return largest, start, stop

    for value, box in label_boxes(labels.data, {value: (value,) for value in values}).items():
        assert box is not None  # every value occurs
        field, start, stop = on_grid((value,), box)
        wins = field > crop(best, start, stop)
        np.copyto(crop(result, start, stop), value, where=wins)
        np.copyto(crop(best, start, stop), field, where=wins)
    inside = best >= THIN_FIRST
    whole = label_boxes(labels.data, {0: values})[0] if values else None
    if whole is not None:
        field, start, stop = on_grid(values, whole)
        crop(inside, start, stop)[:] |= field > 0
    result[~inside] = 0
    return LabelVolume(result, grid)


def label_boxes(data: np.ndarray, groups: Mapping[Key, Sequence[int]]) -> dict[Key, Box | None]:
    """{structure: (lower, upper) of the voxels with one of its values, None if there are none}, in one pass over the labels."""
    found = value_boxes(data)
    return {name: hull([found[value] for value in values if value in found]) for name, values in groups.items()}


def mask_in(data: np.ndarray, values: Sequence[int], box: Box, margin: int) -> tuple[np.ndarray, list[int]]:
    """(mask, lower): voxels with one of the values in a box widened by ``margin`` voxels; False beyond the image.

    ``lower`` is the first index of that box, and may be negative.
    """
    lower, upper = ([a - margin for a in box[0]], [b + margin for b in box[1]])
    mask = np.zeros([b - a for a, b in zip(lower, upper, strict=True)], bool)
    inside = tuple(slice(max(0, a), min(b, n)) for a, b, n in zip(lower, upper, data.shape, strict=True))
    to = tuple(slice(part.start - a, part.stop - a) for part, a in zip(inside, lower, strict=True))
    part = data[inside]
    mask[to] = part == values[0] if len(values) == 1 else np.isin(part, values)
    return mask, lower


def fields_of_mask(mask: np.ndarray, spacing_mm: Sequence[float]) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Smooth float32 fields of the thick and of the thin pieces of a mask (Z, Y, X), each positive in exactly its voxels.

    They have different scales, so the larger one counts only after interpolation.

    Returns:
        (field, None) if there are thick pieces, and (field, mask of these pieces) if there are thin ones.
    """
    ratios = np.array(spacing_mm) / min(spacing_mm)
    thin = _thin_pieces(mask)
    found: list[tuple[np.ndarray, np.ndarray | None]] = []
    if (thick := mask & ~thin).any():
        found.append((_field_of_pieces(thick, ratios, is_thin=False), None))
    if thin.any():
        found.append((_field_of_pieces(thin, ratios, is_thin=True), thin))
    return found


def _field_of_pieces(mask: np.ndarray, ratios: np.ndarray, *, is_thin: bool) -> np.ndarray:
    sigma = BLUR
    if ratios.max() > FAR and not is_thin:
        sigma = BLUR_FAR
        field = ndimage.distance_transform_edt(mask, sampling=ratios).astype(np.float32)
        field -= ndimage.distance_transform_edt(~mask, sampling=ratios)
    else:
        field = mask.astype(np.float32) - 0.5
    blurred = ndimage.gaussian_filter(field, [sigma if ratio <= FAR else 0.0 for ratio in ratios], truncate=2.5, mode="nearest")
    field *= KEPT_THIN if is_thin else KEPT
    return np.where(mask, np.maximum(field, blurred), np.minimum(field, blurred))


def _thin_pieces(mask: np.ndarray) -> np.ndarray:
    """The pieces of a mask, connected over faces, edges and corners, that are thin (see ``_is_thin``)."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    thin = np.zeros_like(mask)
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        if _is_thin(piece := pieces[box] == number):
            thin[box] |= piece
    return thin


def _is_thin(mask: np.ndarray) -> bool:
    """Whether along some axis no two voxels of a mask are neighbours."""
    lines = (np.moveaxis(mask, axis, 0) for axis in range(3))
    return not all((line[1:] & line[:-1]).any() for line in lines)


def surface_of_fields(
    fields: Sequence[np.ndarray],
    geometry: Geometry,
    finer: Geometry,
    structure: str,
    smoothing: Smoothing,
    *,
    volume_mm3: float | None = None,
) -> SurfaceMesh:
    """The surface where the largest of some fields is zero.

    Args:
        fields: (Z, Y, X) float32 on ``geometry``, positive somewhere. Their outermost voxels are padding: only the splines
            use them, and the surface is closed at the outer faces of the voxels inside.
        finer: the grid to contour on; ``geometry`` is used if the structure vanishes there, as a single voxel may.
        structure: name for the mesh.
        smoothing: Smoothing.
        volume_mm3: volume that the surface must enclose; None for that before smoothing.

    Returns:
        SurfaceMesh, closed, wound outward; with a note if its volume differs from that of the voxels by over 5 %.
    """
    from skimage.measure import marching_cubes  # the import takes half a second

    field = np.maximum.reduce(fields)
    grid, values = finer, np.maximum.reduce([_refined(one, geometry, finer) for one in fields])
    if not (values > 0).any():
        grid, values = geometry, field
    values = values - 2e-5 * values.max()  # separates diagonal neighbours: in a tie, adjacent cubes may disagree
    _close(values, grid, geometry)
    points, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
    if np.linalg.det(grid.affine) < 0:
        faces = faces[:, ::-1]
    mesh = SurfaceMesh(grid.to_world(points), np.ascontiguousarray(faces, np.int32), structure)
    target = mesh.volume_mm3 if volume_mm3 is None else volume_mm3
    mesh = replace(mesh, vertices_mm=_taubin(mesh, smoothing.iterations))
    most_mm = 0.5 * min(grid.spacing_mm)
    mesh = _decimated(_enclosing(mesh, target, most_mm), smoothing.decimate, most_mm)
    voxels_mm3 = np.count_nonzero(field[1:-1, 1:-1, 1:-1] > 0) * abs(np.linalg.det(geometry.affine))
    return with_ratio(mesh, voxels_mm3)


def with_ratio(mesh: SurfaceMesh, voxels_mm3: float) -> SurfaceMesh:
    """The mesh, with a note if its volume differs from that of the voxels by over ``SAID``."""
    if abs(mesh.volume_mm3 / voxels_mm3 - 1) <= SAID:
        return mesh
    said = f"the surface encloses {mesh.volume_mm3 / voxels_mm3:.0%} of the volume of the voxels"
    return replace(mesh, note="; ".join(filter(None, [mesh.note, said])))


class _Winners:
    """Fields of exclusive classes: the logit minus the largest of the others."""

    def __init__(self, logits: Logits) -> None:
        self.logits = logits
        self.best, self.second = np.full((2, *logits.shape[1:]), -np.inf, np.float32)
        self.codes = np.zeros(logits.shape[1:], np.int16)
        for part, heads in slabs_along_z(logits):
            best, second, codes = self.best[part], self.second[part], self.codes[part]
            for head, logit in enumerate(heads):
                np.maximum(second, np.minimum(best, logit), out=second)
                np.copyto(codes, head, where=logit > best)
                np.maximum(best, logit, out=best)
        self.boxes = ndimage.find_objects(self.codes, max_label=len(logits) - 1)

    def box(self, head: int) -> Box | None:
        found = self.boxes[head - 1]
        return found and ([part.start for part in found], [part.stop for part in found])

    def margin(self, head: int, lower: Sequence[int], upper: Sequence[int]) -> np.ndarray:
        wins = crop(self.codes, lower, upper) == head
        others = np.where(wins, crop(self.second, lower, upper), crop(self.best, lower, upper))
        return _in_box(self.logits, head, lower, upper) - others


class _Regions:
    """Fields of regions that may overlap: their logits."""

    def __init__(self, logits: Logits) -> None:
        self.logits = logits

    def box(self, head: int) -> Box | None:
        inside = self.logits[head] > 0
        return nonzero_box(inside[None]) if inside.any() else None

    def margin(self, head: int, lower: Sequence[int], upper: Sequence[int]) -> np.ndarray:
        return _in_box(self.logits, head, lower, upper)


def _in_box(logits: Logits, head: int, lower: Sequence[int], upper: Sequence[int]) -> np.ndarray:
    where: tuple[int | slice, ...] = (head, *(slice(a, b) for a, b in zip(lower, upper, strict=True)))
    return logits[where]


def _widened(box: Box, shape: Sequence[int]) -> tuple[list[int], list[int]]:
    """The box with ``MARGIN`` more voxels on each side, within the image."""
    lower, upper = box
    return [max(0, a - MARGIN) for a in lower], [min(n, b + MARGIN) for b, n in zip(upper, shape, strict=True)]


def _close(values: np.ndarray, finer: Geometry, geometry: Geometry) -> None:
    """Make a field zero, in place, at the outer faces of ``geometry`` without its outermost voxels, and negative beyond.

    Where the last sample inside is positive, the field continues in a straight line through zero at the face.
    """
    for axis, (n, n_finer) in enumerate(zip(geometry.shape, finer.shape, strict=True)):
        index = (np.arange(n_finer) + 0.5) * n / n_finer - 0.5
        depth = np.minimum(index - 0.5, n - 1.5 - index)  # voxels of ``geometry`` from the face, positive inside
        within = np.flatnonzero(depth > 0.1 * n / n_finer)
        planes = np.moveaxis(values, axis, 0)
        for last, beyond in ((within[0], range(within[0])), (within[-1], range(within[-1] + 1, n_finer))):
            for i in beyond:
                through_zero = planes[last] * (depth[i] / depth[last])
                planes[i] = np.where(planes[last] > 0, through_zero, np.minimum(planes[last], planes[i]))


def _refined(field: np.ndarray, geometry: Geometry, finer: Geometry) -> np.ndarray:
    """A field on another grid, by cubic splines; between voxels of one sign it keeps that sign, even if splines overshoot."""
    if finer.shape == geometry.shape:
        return field
    values = resample_image(field[None], geometry, finer, _orders(field.shape))[0]
    share = resample_image((field > 0).astype(np.float32)[None], geometry, finer, (1, 1, 1))[0]
    tiny = np.float32(1e-4 * np.abs(values).max())
    np.copyto(values, -tiny, where=(share < 1e-4) & (values > -tiny))
    np.copyto(values, tiny, where=(share > 1 - 1e-4) & (values < tiny))
    return values


def _finer(geometry: Geometry, small: int = 0) -> Geometry:
    """The grid to contour on: cubic up to ``COARSE``, with half the edge for structures thinner than ``small`` voxels."""
    size = np.array(geometry.shape) * geometry.spacing_mm
    edge = min(geometry.spacing_mm)
    coarse = np.array(geometry.spacing_mm) > COARSE * edge
    shape = np.where(coarse, np.ceil(size / edge), geometry.shape)
    if (shape - 2 * MARGIN).min() < small and 8 * shape.prod() <= MOST_VOXELS:
        shape = 2 * shape
    if shape.prod() > MOST_VOXELS:
        shape = np.maximum(1, shape * (MOST_VOXELS / shape.prod()) ** (1 / 3))
    return geometry.resized([int(n) for n in shape])


def _orders(shape: Sequence[int]) -> tuple[int, ...]:
    """Spline order for each axis: cubic with more than 3 voxels, otherwise linear."""
    return tuple(3 if n > 3 else 1 for n in shape)


def _taubin(mesh: SurfaceMesh, iterations: int) -> np.ndarray:
    """Vertices (V, 3) in mm after Taubin's filter: steps towards the mean of the neighbours alternate with longer ones back."""
    n = len(mesh.vertices_mm)
    start, end = (mesh.faces[:, corners].ravel() for corners in ([0, 1, 2], [1, 2, 0]))
    joined = scipy.sparse.csr_matrix((np.ones(len(start), np.float32), (start, end)), (n, n))
    neighbours = np.maximum(np.asarray(joined.sum(axis=1)), 1)
    middle = mesh.vertices_mm.mean(axis=0)
    points = (mesh.vertices_mm - middle).astype(np.float32)  # single precision is fine near the origin
    for step in range(iterations):
        points += (PASS if step % 2 == 0 else STOP) * (joined @ points / neighbours - points)
    return points + middle


def _enclosing(mesh: SurfaceMesh, volume_mm3: float, most_mm: float) -> SurfaceMesh:
    """The mesh moved along its normals until it encloses a volume, in at most ``STEPS`` steps of at most ``most_mm``."""
    for _ in range(STEPS):
        missing = volume_mm3 - mesh.volume_mm3
        if abs(missing) <= NEAR * volume_mm3:
            break
        mesh = mesh.moved_outward(float(np.clip(missing / mesh.area_mm2, -most_mm, most_mm)))
    return mesh


def _decimated(mesh: SurfaceMesh, share: float, most_mm: float) -> SurfaceMesh:
    """Remove a fraction of the triangles where the surface is flat (quadric error), and keep the volume.

    Fewer are removed, with a note, if the surface would not stay closed or its Euler number would change.
    """
    if not share or len(mesh.faces) < 100:
        return mesh
    import fast_simplification

    middle = mesh.vertices_mm.mean(axis=0)
    points = np.ascontiguousarray(mesh.vertices_mm - middle, np.float32)
    for taken in (share, share / 2, share / 4):
        corners, faces = fast_simplification.simplify(points, mesh.faces, target_reduction=taken)
        fewer = SurfaceMesh(corners.astype(np.float64) + middle, faces.astype(np.int32), mesh.structure)
        if fewer.is_watertight and fewer.euler_number == mesh.euler_number:
            break
    else:
        taken, fewer = 0.0, mesh
    note = "" if taken == share else f"{taken:.0%} of the triangles removed, not {share:.0%}: {NOT_DECIMATED}"
    return replace(_enclosing(fewer, mesh.volume_mm3, most_mm), note=note)
