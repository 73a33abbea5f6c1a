"""Size and shape of each structure, and how certain the network was of it.

Volumes come from voxels, areas from the mesh: voxel faces overestimate the area by about half, and the volume of a smoothed
mesh may differ from that of the voxels. Points are in LPS millimetres, as in DICOM; field names say so.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
import scipy  # its parts are imported where they are first used
from scipy import ndimage

from autoseg.digits import rounded
from autoseg.engines import map_cases, values_of
from autoseg.imaging.mesh import SurfaceMesh
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.surface import Box, label_boxes, mask_in

__all__ = ["Measurement", "as_json", "csv_rows", "measure_structures"]

_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Measurement:
    """One structure of one case; a number that is undefined is None.

    Attributes:
        voxels, volume_mm3, volume_ml: from the label map.
        components: connected components; voxels are connected over faces, edges and corners.
        centroid_lps_mm, box_lower_lps_mm, box_upper_lps_mm: (x, y, z); the box encloses the outer faces of the voxels.
        touches_border: whether a voxel lies at the border of the image, so that the structure may continue beyond it. An axis
            of one voxel has no border. None if the structure touches the border of a file that stores only part of the image.
        surface_area_mm2, mesh_volume_mm3: of the surface, if one was made.
        mesh_volume_difference_percent: (mesh volume - voxel volume) / voxel volume.
        longest_diameter_mm: largest distance between two points of the surface.
        sphericity: area of a ball of the mesh's volume / area of the mesh; 1 for a ball, otherwise less.
        watertight, euler_number: of the surface; the Euler number is 2 for each closed piece without handles.
        entropy, border_entropy: mean entropy of the network's probabilities in the structure, and within a voxel of its
            border, on the network's grid; 0 is certain, 1 is a guess.
        fold_agreement: inter-fold Dice, the mean over pairs of folds, on the network's grid; 1 is full agreement.
        note: remarks, such as why numbers are undefined.
    """

    structure: str
    voxels: int
    volume_mm3: float
    volume_ml: float
    components: int
    centroid_lps_mm: tuple[float, float, float] | None = None
    box_lower_lps_mm: tuple[float, float, float] | None = None
    box_upper_lps_mm: tuple[float, float, float] | None = None
    touches_border: bool | None = None
    surface_area_mm2: float | None = None
    mesh_volume_mm3: float | None = None
    mesh_volume_difference_percent: float | None = None
    longest_diameter_mm: float | None = None
    sphericity: float | None = None
    watertight: bool | None = None
    euler_number: int | None = None
    entropy: float | None = None
    border_entropy: float | None = None
    fold_agreement: float | None = None
    note: str = ""


def measure_structures(
    labels: LabelVolume,
    groups: Mapping[str, Sequence[int]],
    *,
    meshes: Sequence[SurfaceMesh | None] | None = None,
    entropies: Sequence[tuple[float | None, float | None]] | None = None,
    agreements: Sequence[float | None] | None = None,
    remark: str = "",
    workers: int | None = None,
) -> tuple[Measurement, ...]:
    """Measure every structure of a label map.

    Args:
        labels: LabelVolume.
        groups: {structure: label values that belong to it}.
        meshes: their surfaces in the same order, None for a structure without one; None if no surfaces were made.
        entropies: (in the structure, at its border) for each, as from ``confidence.entropies``.
        agreements: number or None for each, as from ``confidence.agreement``.
        remark: added to the notes of all.
        workers: threads.

    Returns:
        tuple of Measurement, in the order of ``groups``.
    """
    boxes = label_boxes(labels.data, groups)
    meshes = [None] * len(groups) if meshes is None else meshes
    entropies = [(None, None)] * len(groups) if entropies is None else entropies
    agreements = [None] * len(groups) if agreements is None else agreements
    remarks = [remark] if remark else []

    def measure(
        job: tuple[tuple[str, Sequence[int]], SurfaceMesh | None, tuple[float | None, float | None], float | None],
    ) -> Measurement:
        (structure, values), mesh, (inside, border), agreed = job
        box = boxes[structure]
        if box is None:
            note = "; ".join(["no voxels", *remarks])
            return Measurement(structure, 0, 0.0, 0.0, 0, fold_agreement=agreed, note=note)
        numbers = {**_of_mask(labels, values, box), **(_of_mesh(mesh) if mesh else {})}
        if mesh:
            numbers["mesh_volume_difference_percent"] = 100 * (numbers["mesh_volume_mm3"] / numbers["volume_mm3"] - 1)
        notes = ["cut by the border of the image"] if numbers["touches_border"] else []
        if 1 in labels.data.shape:
            notes.append("one slice: its thickness is taken from the voxel size")
        notes += [mesh.note] if mesh and mesh.note else []
        note = "; ".join([*notes, *remarks])
        return Measurement(structure, **numbers, entropy=inside, border_entropy=border, fold_agreement=agreed, note=note)

    jobs = zip(groups.items(), meshes, entropies, agreements, strict=True)
    return tuple(values_of(map_cases(measure, jobs, workers=workers)))


def csv_rows(cases: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterator[list[Any]]:
    """Yield the header and rows of a table from {case: measurements as in JSON}; a point takes three columns."""
    names = [field.name for field in fields(Measurement)]
    columns = [[f"{name[:-7]}_{axis}_lps_mm" for axis in "xyz"] if name.endswith("_lps_mm") else [name] for name in names]
    yield ["case", *chain(*columns)]
    for case, measurements in cases.items():
        for one in measurements:
            cells = [
                value if isinstance(value := one.get(name), list | tuple) else [value] * len(columns[i])
                for i, name in enumerate(names)
            ]
            yield [case, *(rounded(cell) if isinstance(cell, float) else cell for cell in chain(*cells))]


def as_json(measurements: Iterable[Measurement]) -> list[dict[str, Any]]:
    """Measurements as a list of dictionaries."""
    return [asdict(one) for one in measurements]


def _of_mask(labels: LabelVolume, values: Sequence[int], box: Box) -> dict[str, Any]:
    mask, lower = mask_in(labels.data, values, box, 0)
    geometry = labels.geometry.cropped(lower, mask.shape)
    voxels = int(np.count_nonzero(mask))
    volume = voxels * abs(float(np.linalg.det(geometry.affine)))
    along = [np.count_nonzero(mask, axis=tuple(b for b in range(3) if b != axis)) for axis in range(3)]
    middle = [float(counts @ np.arange(len(counts)) / voxels) for counts in along]
    z, y = mask.any(axis=2).nonzero()
    lines = mask[z, y]  # every extreme point is an end of a line along x
    ends = [lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)]
    points = geometry.to_world(np.concatenate([np.stack([z, y, x], axis=1) for x in ends])) * _LPS
    half = np.abs(geometry.affine[:3, :3]).sum(axis=1) / 2
    shape = labels.data.shape
    border = any(n > 1 and (a == 0 or b == n) for a, b, n in zip(*box, shape, strict=True))
    return {
        "voxels": voxels,
        "volume_mm3": volume,
        "volume_ml": volume / 1000,
        "components": int(ndimage.label(mask, np.ones((3, 3, 3)))[1]),
        "centroid_lps_mm": _point(geometry.to_world([middle])[0] * _LPS),
        "box_lower_lps_mm": _point(points.min(axis=0) - half),
        "box_upper_lps_mm": _point(points.max(axis=0) + half),
        "touches_border": None if border and labels.is_part else border,
    }


def _of_mesh(mesh: SurfaceMesh) -> dict[str, Any]:
    volume, area = mesh.volume_mm3, mesh.area_mm2
    return {
        "surface_area_mm2": area,
        "mesh_volume_mm3": volume,
        "longest_diameter_mm": _longest_diameter(mesh.vertices_mm),
        "sphericity": float((36 * np.pi * max(volume, 0.0) ** 2) ** (1 / 3) / area),
        "watertight": mesh.is_watertight,
        "euler_number": int(mesh.euler_number),
    }


def _longest_diameter(points: np.ndarray) -> float:
    """The largest distance between two of the points (N, 3), which are vertices of their convex hull."""
    corners = points[scipy.spatial.ConvexHull(points).vertices]
    corners = corners - corners.mean(axis=0)
    squares = (corners**2).sum(axis=1)
    longest = 0.0
    for start in range(0, len(corners), 512):
        part = slice(start, start + 512)
        longest = max(longest, float((squares[part, None] + squares - 2 * corners[part] @ corners.T).max()))
    return longest**0.5


def _point(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
