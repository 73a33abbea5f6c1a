"""Compares the surfaces in a folder of predictions with surfaces of the reference label maps.

The surface of a reference is made as in ``autoseg reconstruct``; that of a prediction is read from its file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autoseg.data.labels import LabelSchema
from autoseg.evaluation.meshes import SURFACE_SCORES, score_surfaces
from autoseg.evaluation.report import Report
from autoseg.imaging.mesh import SurfaceMesh, file_names, read_mesh
from autoseg.imaging.volume import LabelVolume
from autoseg.names import folders_of, inside, scrubbed
from autoseg.reconstruct.surface import surfaces_from_labels
from autoseg.records.surfaces import MANIFEST, SCENE, read_surface_manifest, write_surface_scores

__all__ = ["record_surface_scores", "surface_scorer"]

Found = tuple[str, float | None, str]


def surface_scorer(predicted: Path, cases: Iterable[str], labels: LabelSchema) -> SurfaceScorer | None:
    """The scorer of surfaces for ``evaluate_folder``; None if no case has surfaces.

    Args:
        predicted: folder of the predictions, with the folders ``CASE_surfaces``.
        cases: names of the cases.
        labels: LabelSchema.
    """
    folders = {case: folder for case in cases if ((folder := predicted / f"{case}_surfaces") / MANIFEST).is_file()}
    return SurfaceScorer(folders, labels) if folders else None


@dataclass(frozen=True)
class SurfaceScorer:
    """Scores the surfaces of a case: ``scorer(case, reference)`` returns for each structure ((name, value, reason), ...)."""

    folders: dict[str, Path]
    labels: LabelSchema

    def __call__(self, case: str, reference: LabelVolume) -> list[tuple[Found, ...]]:
        labels, folder = self.labels, self.folders.get(case)
        if folder is None:
            return self._undefined("no surfaces were made")
        if labels.ignore is not None and (reference.data == labels.ignore).any():
            return self._undefined("voxels to ignore have no surface")
        try:
            written = _read_surfaces(folder)
        except Exception as fault:  # noqa: BLE001 - readers may raise anything; the scores of the voxels must not be lost
            said = scrubbed(f"{type(fault).__name__}: {fault}", folders_of([folder]))
            return self._undefined(f"its surfaces cannot be read ({said}); make them again")
        pairs = zip(surfaces_from_labels(reference, labels.groups, workers=1), labels.structures, strict=True)
        return [score_surfaces(truth, written.get(structure), case=case) for truth, structure in pairs]

    def _undefined(self, reason: str) -> list[tuple[Found, ...]]:
        return [tuple((name, None, reason) for name in SURFACE_SCORES)] * len(self.labels.structures)


def _read_surfaces(folder: Path) -> dict[str, SurfaceMesh]:
    """The meshes of a ``CASE_surfaces``, each from its first existing file, else from the scene."""
    about, found = read_surface_manifest(folder), {}
    there = [one for one in about.structures if one.faces is not None]
    for one, name in zip(there, file_names([one.structure for one in there]), strict=True):
        files = [inside(folder, file) for file in (*one.files, SCENE)]
        if path := next((file for file in files if file.is_file()), None):
            found[one.structure] = read_mesh(path, one.structure, coordinates=about.coordinates.lower(), name=name)
    return found


def record_surface_scores(folder: Path, report: Report) -> None:
    """Write the surface scores of a report, by structure, beside the surfaces of its cases; nothing if it has none."""
    if not SURFACE_SCORES.keys() <= report.foreground_mean.keys():
        return
    for case, rows in report.by_case.items():
        if (folder / f"{case}_surfaces").is_dir():
            scores = tuple({"structure": row.structure, **{name: row[name] for name in SURFACE_SCORES}} for row in rows)
            write_surface_scores(folder, case, scores)
