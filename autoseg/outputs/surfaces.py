"""Surfaces of structures: ``CASE_surfaces/STRUCTURE.stl`` and the like, ``scene.glb``, and ``surfaces.json`` about them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.data.dataset import Case
from autoseg.data.findings import pattern_of
from autoseg.errors import AutosegError
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.mesh import COORDINATES, SURFACE_FORMATS, SurfaceMesh, file_names, write_mesh, write_scene
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written
from autoseg.names import first_of
from autoseg.options import SurfaceOptions
from autoseg.reconstruct.shared import ITERATIONS
from autoseg.reconstruct.surface import IN_LABELS, IN_SCORES
from autoseg.records.surfaces import MANIFEST, SCENE, SurfaceEntry, SurfaceManifest, read_surface_manifest
from autoseg.workspace import write_json

__all__ = [
    "FROM_LABELS",
    "FROM_SCORES",
    "SHARED",
    "Surfaces",
    "check_surfaces",
    "surface_files",
    "tell_notes",
    "write_surfaces",
]

logger = logging.getLogger(__name__)

NAMED = 3  # surfaces in a warning about many

FROM_SCORES = {"from": "scores, zero of the logit less the largest other", "iterations": IN_SCORES}
FROM_LABELS = {"from": "label map, shape-based interpolation, around the volume of the voxels", "iterations": IN_LABELS}
SHARED = {"from": "label map, a surface net that neighbours share, around the volume of the voxels", "iterations": ITERATIONS}


@dataclass(frozen=True)
class Surfaces:
    """The surfaces of each case: from the logits if they give the final labels, else from the labels. Surfaces with shared
    borders are always made from the labels."""

    surfaces: SurfaceOptions
    name = "surfaces"
    suffixes = ("_surfaces",)

    @property
    def identity(self) -> dict[str, Any]:
        return {}  # it is part of the identity of the measurements, which are always made

    def check(self, model: ModelFacts) -> None:
        """Every model's labels have surfaces."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        method = SHARED if self.surfaces.shared else FROM_SCORES if found.from_logits else FROM_LABELS
        meshes = found.surfaces(self.surfaces)
        home = folder / f"{case.id}_surfaces"
        return Written(tuple(write_surfaces(meshes, home, self.surfaces, found.model.labels.structures, method)))


def check_surfaces(options: SurfaceOptions) -> SurfaceOptions:
    """The options with the formats in lower case; AutosegError for an unknown format."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in options.formats))
    for name in names:
        SURFACE_FORMATS[name]  # an unknown name raises an error that lists the known ones
    if options.coordinates not in COORDINATES:
        raise AutosegError(f"coordinates of surfaces: expected {' or '.join(COORDINATES)}, found {options.coordinates!r}")
    return replace(options, formats=names)


def write_surfaces(
    meshes: Sequence[SurfaceMesh | None],
    folder: Path,
    options: SurfaceOptions,
    structures: Sequence[str],
    method: dict[str, Any],
) -> list[Path]:
    """Write the surfaces of a case: one file per structure and format, ``scene.glb``, and ``surfaces.json`` about them.

    Args:
        meshes: one for each of ``structures``; None for a structure without voxels.
        options: checked options.
        method: how the surfaces were made, as JSON.

    Returns:
        The paths of the files.
    """
    coordinates, formats = options.coordinates, options.formats
    files: list[Path] = []
    about: list[SurfaceEntry] = []
    named = zip(structures, meshes, file_names(structures), structure_colours(structures), strict=True)
    for structure, mesh, name, colour in named:
        paths = []
        if mesh:
            paths = [folder / f"{name}.{ending}" for ending in formats if ending != "glb"]
            for path in paths:
                write_mesh(mesh, path, coordinates=coordinates, colour=colour)
        vertices, faces = (len(mesh.vertices_mm), len(mesh.faces)) if mesh else (None, None)
        note = mesh.note if mesh else "no voxels"
        about.append(SurfaceEntry(structure, tuple(path.name for path in paths), colour, vertices, faces, note))
        files += paths
    if "glb" in formats and any(meshes):
        files.append(folder / SCENE)
        write_scene(meshes, files[-1], coordinates=coordinates)
    manifest = SurfaceManifest(tuple(formats), options.decimate, coordinates.upper(), "mm", method, tuple(about))
    write_json(folder / MANIFEST, manifest)
    return [*files, folder / MANIFEST]


def tell_notes(folder: Path, cases: Iterable[str]) -> None:
    """Warn of the notes on the surfaces of these cases: one warning for all notes that differ only in numbers."""
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case in cases:
        for one in read_surface_manifest(folder / f"{case}_surfaces").structures:
            if one.note and one.vertices is not None:
                kinds[pattern_of(one.note, ())].append((f"{case}, {one.structure}", one.note))
    for (first, note), *others in kinds.values():
        names = first_of((name for name, _ in others), NAMED, between="; ")
        also = f". The same, with its own numbers, of {names}; measurements.csv has all" if others else ""
        logger.warning("surface of %s: %s%s", first, note, also)


def surface_files(folder: Path, structures: Sequence[str], formats: Sequence[str]) -> list[Path]:
    """Every file that ``write_surfaces`` may write."""
    single = [ending for ending in formats if ending != "glb"]
    names = [f"{name}.{ending}" for name in file_names(structures) for ending in single]
    return [folder / name for name in (*names, SCENE, MANIFEST)] if formats else []
