"""The JSON files in a folder ``CASE_surfaces``: ``surfaces.json`` about the meshes, and ``scores.json`` if they were compared
with a reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.records.case import read_case
from autoseg.workspace import read_record, write_json
from planners.records import OPTIONAL, REST

__all__ = [
    "MANIFEST",
    "SCENE",
    "SCORES",
    "SurfaceEntry",
    "SurfaceManifest",
    "SurfaceScores",
    "read_surface_manifest",
    "write_surface_scores",
]

MANIFEST, SCENE, SCORES = "surfaces.json", "scene.glb", "scores.json"


@dataclass(frozen=True)
class SurfaceEntry:
    """A structure: its files, one for each format, and the size of its mesh; neither if it has no voxels.

    Attributes:
        colour: red, green and blue from 0 to 255.
        note: a remark about the mesh, or ''.
    """

    structure: str
    files: tuple[str, ...] = ()
    colour: tuple[int, int, int] | None = field(default=None, metadata=OPTIONAL)
    vertices: int | None = field(default=None, metadata=OPTIONAL)
    faces: int | None = field(default=None, metadata=OPTIONAL)
    note: str = ""


@dataclass(frozen=True)
class SurfaceManifest:
    """The meshes of a case.

    Attributes:
        formats: requested file endings.
        decimate: fraction of the triangles that was removed.
        coordinates: ``LPS`` or ``RAS``, of the points in the files; ``scene.glb`` has those of its format.
        unit: unit of the points.
        method: how the surfaces were made, as JSON.
        structures: in the order of the labels.
    """

    formats: tuple[str, ...] = ()
    decimate: float = 0.0
    coordinates: str = "LPS"
    unit: str = "mm"
    method: dict[str, Any] = field(default_factory=dict)
    structures: tuple[SurfaceEntry, ...] = ()
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class SurfaceScores:
    """The scores of the meshes of a case against those of its reference.

    Attributes:
        made_of: digests of the compared files, by their path in the folder of predictions; the scores are valid only for
            these.
        scores: a dictionary for each structure: its name as ``structure``, and each score, None if it is undefined.
    """

    made_of: dict[str, str | None]
    scores: tuple[dict[str, Any], ...]


def read_surface_manifest(folder: Path) -> SurfaceManifest:
    """``surfaces.json`` of a ``CASE_surfaces``; an empty record if there is none.

    Raises:
        AutosegError: a damaged file.
    """
    path = folder / MANIFEST
    return read_record(SurfaceManifest, path, strict=False) if path.is_file() else SurfaceManifest()


def write_surface_scores(folder: Path, case: str, scores: tuple[dict[str, Any], ...]) -> None:
    """Write the scores of the surfaces of a case in a folder of predictions."""
    record, name = read_case(folder / f"{case}.json"), f"{case}_surfaces"
    outputs = record.outputs if record else {}
    made_of = {path: digest for path, digest in outputs.items() if path.startswith(f"{name}/")}
    write_json(folder / name / SCORES, SurfaceScores(made_of, scores))
