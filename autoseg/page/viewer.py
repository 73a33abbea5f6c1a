"""The 3D panel: an installed viewer, and volumes and surfaces small enough for the HTML report.

The viewer is NiiVue, read from the Python package ``ipyniivue`` when the report is written. Without that package there is no
panel. The data are compressed and in base64, and decoded only when the panel is opened, so the report opens at once.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import logging
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, blamed_on
from autoseg.imaging.files import write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import meshes_in_scene
from autoseg.imaging.surface_formats import SURFACE_FORMATS
from autoseg.imaging.volume import LabelVolume
from autoseg.page.markup import colour_of
from autoseg.page.scene import Scene
from autoseg.records import read_surface_manifest

if TYPE_CHECKING:
    import trimesh

__all__ = ["find_viewer", "pack_case", "pack_scene", "pack_surfaces", "packed"]

logger = logging.getLogger(__name__)

LONGEST = 160  # voxels along an axis; larger volumes are subsampled
MOST_FACES, MOST_OF_CASE = 20_000, 200_000  # triangles of a surface, and of a case's surfaces together; more are decimated
FINENESS = (1.0, 0.7, 0.5, 0.35, 0.25)  # factors on these limits, tried in turn until a case fits


def find_viewer() -> bytes | None:
    """The viewer's JavaScript module, or None if it is not installed."""
    spec = importlib.util.find_spec("ipyniivue")
    path = Path(spec.origin).parent / "static" / "widget.js" if spec and spec.origin else None
    return path.read_bytes() if path and path.is_file() else None


def packed(data: bytes, compress: bool = True) -> str:
    """Bytes as text: base64, of the gzip unless ``compress`` is False."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0) if compress else data).decode()


Surface = tuple[str, str, str]  # structure, colour as '#rrggbb', mesh in base64


def pack_case(
    scene: Scene, folder: Path | None, labels: LabelSchema, most: float
) -> tuple[dict[str, str], list[Surface], bool]:
    """``pack_scene`` and ``pack_surfaces``, as fine as ``most`` characters allow.

    Returns:
        (volumes, surfaces, whether they were made coarser). At the lowest ``FINENESS`` they may exceed ``most``.
    """
    for fineness in FINENESS:
        volumes, surfaces = pack_scene(scene, labels, fineness), pack_surfaces(folder, labels, fineness)
        if sum(map(len, volumes.values())) + sum(len(block) for *_, block in surfaces) <= most:
            break
    return volumes, surfaces, fineness < 1


def pack_scene(scene: Scene, labels: LabelSchema, fineness: float = 1.0) -> dict[str, str]:
    """{name: NIfTI in base64} of 'scan', ``scene.called`` and 'reference', as far as they exist.

    In masks, structure i has the value i + 1.
    """
    steps = [-(-n // int(LONGEST * fineness)) for n in scene.geometry.shape]
    affine = scene.geometry.affine
    affine[:3, :3] *= steps
    thin = tuple(slice(None, None, step) for step in steps)
    volumes = {"scan": scene.scan}
    for name, data in ((scene.called, scene.predicted), ("reference", scene.reference)):
        volumes[name] = None if data is None else _numbered(data[thin], labels)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in volumes.items():
            if data is not None:
                data = data[thin] if name == "scan" else data
                path = Path(folder) / f"{name}.nii.gz"
                write_label_volume(LabelVolume(data, Geometry.from_affine(data.shape, affine)), path)
                found[name] = packed(path.read_bytes(), compress=False)
    return found


def _numbered(values: np.ndarray, labels: LabelSchema) -> np.ndarray:
    """Label values to structure numbers from 1, else 0; where regions overlap, the later one, as when they are painted."""
    number_of = {value: number for number, group in enumerate(labels.values, 1) for value in group}
    found, place = np.unique(values, return_inverse=True)
    numbers = np.array([number_of.get(value, 0) for value in found.tolist()], np.uint16)
    return np.asarray(numbers[place.reshape(values.shape)])


def pack_surfaces(folder: Path | None, labels: LabelSchema, fineness: float = 1.0) -> list[Surface]:
    """[(structure, '#rrggbb', MZ3 mesh in base64, RAS)] of the meshes in a folder.

    Empty without trimesh, or if a file cannot be read (a warning says so). ``surfaces.json`` names the structures and the
    coordinate system of the files, by default LPS. If a structure has several files, one is read; ``scene.glb`` is read if
    there are no others.
    """
    if folder is None or importlib.util.find_spec("trimesh") is None:
        return []
    try:
        about, meshes = read_surface_manifest(folder), _meshes(folder)
    except AutosegError as fault:  # a report without surfaces is better than none
        logger.warning("surfaces are not shown: %s", fault)
        return []
    names = {Path(file).stem: entry.structure for entry in about.structures for file in entry.files}
    turn = np.array([1, 1, 1] if about.coordinates.upper() == "RAS" else [-1, -1, 1], np.float32)  # a rotation: winding stays
    numbers = {name: number for number, name in enumerate(labels.structures)}
    found = []
    most = int(fineness**2 * min(MOST_FACES, MOST_OF_CASE // max(1, len(meshes))))
    for stem, mesh in meshes.items():
        if len(mesh.faces) > most and importlib.util.find_spec("fast_simplification"):
            mesh = mesh.simplify_quadric_decimation(face_count=most)
        name = names.get(stem, stem)
        number = numbers.get(name, len(numbers))
        block = packed(as_mz3(np.asarray(mesh.vertices, np.float32) * turn, np.asarray(mesh.faces)))
        found.append((name, colour_of(number), block))
    return found


def _meshes(folder: Path) -> dict[str, trimesh.Trimesh]:
    """{file name without ending: trimesh.Trimesh}, in the coordinates of the files."""
    import trimesh  # slow to import, needed where surfaces exist

    endings = [ending for ending in reversed(SURFACE_FORMATS.names()) if ending != "glb"]  # of several files the last is read
    files = {path.stem: path for ending in endings for path in sorted(folder.glob(f"[!.]*.{ending}"))}
    if files:
        shapes = {}
        for stem, path in files.items():
            with blamed_on(path.name, "a surface"):
                shapes[stem] = SURFACE_FORMATS[path.suffix[1:]].read(path, "")
        meshes = {stem: trimesh.Trimesh(*shape, process=False) for stem, shape in shapes.items()}
        for mesh in meshes.values():
            mesh.merge_vertices()  # STL has three vertices for each triangle
        return meshes
    scene = folder / "scene.glb"
    with blamed_on(scene.name, "surfaces"):
        shapes = meshes_in_scene(scene) if scene.is_file() else {}
    return {name: trimesh.Trimesh(points, faces, process=False) for name, (points, faces) in shapes.items()}


def as_mz3(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    """A mesh in the MZ3 format of Surf Ice, little-endian.

    Header: magic 0x5A4D, 16 bits for the parts that follow (1 faces, 2 vertices), numbers of faces and vertices, bytes to
    skip. Then (n, 3) int32 vertex indices of the faces and (m, 3) float32 vertex positions.
    """
    header = struct.pack("<HHIII", 0x5A4D, 3, len(faces), len(vertices), 0)
    return header + faces.astype("<i4").tobytes() + vertices.astype("<f4").tobytes()
