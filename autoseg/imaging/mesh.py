"""Surfaces in the patient, and their files.

In memory, vertices are RAS+ millimetres, as everywhere here. In files they are LPS by default, as in DICOM, ITK and 3D Slicer:
x and y change sign, which is a half turn, so the winding stays. Every file states ``SPACE=LPS``, which 3D Slicer reads: in the
STL header, a comment of PLY and OBJ, field data of VTP, ``extras`` of GLB. glTF uses metres with y up, and so do the vertices
of a GLB, since some programs ignore the transforms of its nodes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from autoseg.atomic import replacing
from autoseg.errors import AutosegError
from autoseg.imaging.colours import Colour, structure_colours
from autoseg.imaging.surface_formats import SURFACE_FORMATS, SurfaceFormat
from autoseg.names import as_file_name

__all__ = [
    "COORDINATES",
    "SURFACE_FORMATS",
    "SurfaceFormat",
    "SurfaceMesh",
    "file_names",
    "read_mesh",
    "meshes_in_scene",
    "write_mesh",
    "write_scene",
]

COORDINATES = ("lps", "ras")
_HALF_TURN = np.array([-1.0, -1.0, 1.0])  # between RAS and LPS
_GLTF = 1e-3 * np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # LPS mm to metres, head up


@dataclass(frozen=True, eq=False)
class SurfaceMesh:
    """Triangles around a structure.

    Attributes:
        vertices_mm: (V, 3) float64, RAS+.
        faces: (F, 3) int32; counter-clockwise seen from outside.
        structure: name of the structure.
        note: a sentence about any deviation from what was requested.
    """

    vertices_mm: np.ndarray
    faces: np.ndarray
    structure: str
    note: str = ""

    @cached_property
    def _normals_mm2(self) -> np.ndarray:
        """(F, 3) outward normals; their length is twice the area of the triangle."""
        a, b, c = (self.vertices_mm[self.faces[:, corner]] for corner in range(3))
        return np.cross(b - a, c - a)

    @cached_property
    def _shape(self) -> Any:
        """The mesh for trimesh, centred: far from the origin precision would be lost."""
        return _trimesh(self.vertices_mm - self.vertices_mm.mean(axis=0), self.faces)

    @property
    def area_mm2(self) -> float:
        return float(self._shape.area)

    @property
    def volume_mm3(self) -> float:
        """Enclosed volume; negative if the winding is wrong."""
        return float(self._shape.volume)

    @property
    def is_watertight(self) -> bool:
        """Whether each edge belongs to two triangles that traverse it in opposite directions."""
        return bool(self._shape.is_watertight and self._shape.is_winding_consistent)

    @property
    def euler_number(self) -> int:
        """Vertices - edges + faces: 2 for a ball, 2 more for each further piece, 2 less for each handle."""
        return int(self._shape.euler_number)

    def moved_outward(self, distance_mm: float) -> SurfaceMesh:
        """Every vertex moved along its normal, the mean of the normals of its triangles."""
        normals = np.zeros_like(self.vertices_mm)
        for corner in range(3):
            for axis in range(3):
                normals[:, axis] += np.bincount(self.faces[:, corner], self._normals_mm2[:, axis], len(normals))
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        return replace(self, vertices_mm=self.vertices_mm + distance_mm * normals / np.maximum(lengths, 1e-12))

    def vertices_in(self, coordinates: str) -> np.ndarray:
        """(V, 3) vertices in ``"lps"`` or ``"ras"`` millimetres."""
        if coordinates not in COORDINATES:
            raise AutosegError(f"coordinates of surfaces: expected {' or '.join(COORDINATES)}, found {coordinates!r}")
        return self.vertices_mm * (_HALF_TURN if coordinates == "lps" else 1.0)


def file_names(structures: Iterable[str]) -> list[str]:
    """A unique file name without ending for each structure: letters, digits, dots, dashes and underscores."""
    names: list[str] = []
    taken: set[str] = set()  # in lower case: some file systems ignore it
    for number, structure in enumerate(structures, 1):
        name = as_file_name(structure, "structure")
        while name.lower() in taken:
            name = f"{name}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def write_mesh(mesh: SurfaceMesh, path: str | Path, *, coordinates: str = "lps", colour: Colour = (200, 200, 200)) -> None:
    """Write one surface; the ending of ``path`` selects the format. The file is complete or absent.

    Args:
        coordinates: of the file, ``"lps"`` or ``"ras"``.
        colour: (r, g, b) in 0 to 255, for PLY and OBJ.
    """
    content = SURFACE_FORMATS[Path(path).suffix[1:].lower()].write(mesh, coordinates, colour)
    with replacing(path) as draft:
        draft.write_bytes(content)


def read_mesh(path: Path, structure: str, *, coordinates: str, name: str = "") -> SurfaceMesh:
    """A SurfaceMesh from a file of ``write_mesh`` or ``write_scene``. Triangles from an STL share no corners.

    Args:
        coordinates: of the file, ``"lps"`` or ``"ras"``.
        name: name of the surface within a GLB.
    """
    vertices, faces = SURFACE_FORMATS[path.suffix[1:].lower()].read(path, name)
    turn = _HALF_TURN if coordinates == "lps" else 1.0
    return SurfaceMesh(np.asarray(vertices, float) * turn, np.asarray(faces, np.int32), structure)


def write_scene(meshes: Sequence[SurfaceMesh | None], path: str | Path, *, coordinates: str = "lps") -> None:
    """Write surfaces as one GLB with a colour and a name for each.

    None stands for an absent structure, so that the others keep their colours.
    """
    there = [(mesh, colour) for mesh, colour in zip(meshes, structure_colours(meshes), strict=True) if mesh is not None]
    content = _scene([mesh for mesh, _ in there], [colour for _, colour in there], coordinates).export(file_type="glb")
    with replacing(path) as draft:
        draft.write_bytes(content)


def meshes_in_scene(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: (vertices (V, 3), faces (F, 3))} of a GLB of ``write_scene``, in mm and in its stated coordinates."""
    import trimesh

    scene = trimesh.load_scene(path, process=False)
    turn = _HALF_TURN if scene.metadata.get("SPACE") == "RAS" else 1.0
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]  # in earlier files, the transform converts millimetres to metres
        shape = scene.geometry[name]
        in_metres = trimesh.transform_points(shape.vertices, matrix)
        found[str(name)] = in_metres @ np.linalg.inv(_GLTF).T * turn, np.asarray(shape.faces)
    return found


def _scene(meshes: Sequence[SurfaceMesh], paints: Sequence[Colour], coordinates: str) -> Any:
    """A trimesh Scene, in metres with the head up. ``coordinates`` are only stated in it."""
    import trimesh

    scene = trimesh.Scene(base_frame="world", metadata={"SPACE": coordinates.upper()})
    for mesh, name, colour in zip(meshes, file_names([mesh.structure for mesh in meshes]), paints, strict=True):
        shape = _trimesh(mesh.vertices_in("lps") @ _GLTF.T, mesh.faces)
        material = trimesh.visual.material.PBRMaterial(name=name, baseColorFactor=[*colour, 255], roughnessFactor=0.6)
        shape.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(shape, geom_name=name, node_name=name)
    return scene


def _trimesh(vertices: np.ndarray, faces: np.ndarray) -> Any:
    import trimesh  # takes half a second

    return trimesh.Trimesh(vertices, faces, process=False)


def _said(mesh: SurfaceMesh, coordinates: str) -> str:
    name = mesh.structure.encode("ascii", "replace").decode()
    return f"SPACE={coordinates.upper()} unit=mm structure={' '.join(name.split())}"


def _stl(mesh: SurfaceMesh, coordinates: str, colour: Colour) -> bytes:
    content: bytes = _trimesh(mesh.vertices_in(coordinates), mesh.faces).export(file_type="stl")
    return _said(mesh, coordinates).encode()[:80].ljust(80) + content[80:]


def _ply(mesh: SurfaceMesh, coordinates: str, colour: Colour) -> bytes:
    shape = _trimesh(mesh.vertices_in(coordinates), mesh.faces)
    shape.visual.vertex_colors = np.tile(np.array([*colour, 255], np.uint8), (len(mesh.vertices_mm), 1))
    content: bytes = shape.export(file_type="ply")
    start, end = content.split(b"\nelement", 1)
    return start + b"\ncomment " + _said(mesh, coordinates).encode() + b"\nelement" + end


def _obj(mesh: SurfaceMesh, coordinates: str, colour: Colour) -> bytes:
    shape = _trimesh(mesh.vertices_in(coordinates), mesh.faces)
    shape.visual.vertex_colors = np.tile(np.array([*colour, 255], np.uint8), (len(mesh.vertices_mm), 1))
    content: str = shape.export(file_type="obj", header=_said(mesh, coordinates))
    return content.encode()


def _vtp(mesh: SurfaceMesh, coordinates: str, colour: Colour) -> bytes:
    """XML PolyData, arrays inline as base64 with their length in bytes (UInt64) before them."""

    def array(kind: str, values: np.ndarray, **attributes: object) -> str:
        content = np.ascontiguousarray(values)
        coded = base64.b64encode(np.uint64(content.nbytes).tobytes() + content.tobytes()).decode()
        more = "".join(f" {key}={quoteattr(str(value))}" for key, value in attributes.items())
        return f'<DataArray type="{kind}" format="binary"{more}>{coded}</DataArray>'

    space = " ".join(str(code) for code in [*coordinates.upper().encode(), 0])
    triples = 3 * np.arange(1, len(mesh.faces) + 1, dtype="<i8")
    return (
        '<?xml version="1.0"?>\n'
        f"<!-- {_said(mesh, coordinates).replace('--', '__')} -->\n"
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64"><PolyData><FieldData>'
        f'<Array type="String" Name="SPACE" NumberOfTuples="1" format="ascii">{space}</Array></FieldData>'
        f'<Piece NumberOfPoints="{len(mesh.vertices_mm)}" NumberOfPolys="{len(mesh.faces)}">'
        f"<Points>{array('Float32', mesh.vertices_in(coordinates).astype('<f4'), Name='Points', NumberOfComponents=3)}</Points>"
        f"<Polys>{array('Int64', mesh.faces.astype('<i8'), Name='connectivity')}"
        f"{array('Int64', triples, Name='offsets')}</Polys></Piece></PolyData></VTKFile>\n"
    ).encode()


def _glb(mesh: SurfaceMesh, coordinates: str, colour: Colour) -> bytes:
    content: bytes = _scene([mesh], [colour], coordinates).export(file_type="glb")
    return content


def _read_by_trimesh(path: Path, name: str) -> tuple[Any, Any]:
    import trimesh

    shape: Any = trimesh.load(path, process=False)
    return shape.vertices, shape.faces


def _read_glb(path: Path, name: str) -> tuple[Any, Any]:
    return meshes_in_scene(path)[name]


def _read_vtp(path: Path, name: str) -> tuple[Any, Any]:
    arrays = dict(re.findall(r'<DataArray [^>]*Name="(\w+)"[^>]*>([^<]*)<', path.read_text("utf-8")))
    points, faces = (base64.b64decode(arrays[array])[8:] for array in ("Points", "connectivity"))
    return np.frombuffer(points, "<f4").reshape(-1, 3), np.frombuffer(faces, "<i8").reshape(-1, 3)


STL, PLY, OBJ = (SurfaceFormat(write, _read_by_trimesh) for write in (_stl, _ply, _obj))
VTP, GLB = SurfaceFormat(_vtp, _read_vtp), SurfaceFormat(_glb, _read_glb)
