"""The step that makes surfaces, measurements and cubic voxels from label maps of any tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.labelmaps import groups_beside
from autoseg.imaging.files import digest_on_disk, ending_of, is_dicom, read_label_volume, segment_names, write_label_volume
from autoseg.imaging.values import count_values
from autoseg.imaging.volume import LabelVolume
from autoseg.ledger import Ledger
from autoseg.options import ReconstructOptions
from autoseg.outputs.surfaces import FROM_LABELS, SHARED, surface_files, write_surfaces
from autoseg.reconstruct.borders import borders_as_json, measure_borders
from autoseg.reconstruct.measure import as_json, measure_structures
from autoseg.reconstruct.shared import shared_surfaces
from autoseg.reconstruct.surface import isotropic_labels, surfaces_from_labels

__all__ = ["MADE_BY", "Reconstruct", "ReconstructedMap"]

MADE_BY = "autoseg reconstruct"
DERIVED = "derived: labels on cubic voxels by their shapes"

Names = Mapping[str | None, tuple[int, ...]]  # structure -> values; key None: values to leave out


@dataclass(frozen=True)
class ReconstructedMap:
    """Whether a label map was already done, and the number of structures found in it."""

    was_done: bool
    structures: int


@dataclass(frozen=True)
class Reconstruct:
    """The step; its items are (case, path of a label map).

    Attributes:
        folder: for the results.
        options: the checked options of what to make.
        names: (structure, values) pairs; None if each map, or a file beside it, names them.
        workers: number of threads for the structures of a map.
        fresh: make everything again, and replace existing files.
    """

    folder: Path
    options: ReconstructOptions
    names: tuple[tuple[str | None, tuple[int, ...]], ...] | None = None
    workers: int | None = None
    fresh: bool = False

    def setup(self) -> Reconstruct:
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """All options, as JSON."""
        return {**self.options.surfaces.identity, "isotropic": self.options.isotropic}

    @property
    def method(self) -> dict[str, Any]:
        """The method of making surfaces, as JSON."""
        return SHARED if self.options.surfaces.shared else FROM_LABELS

    def run(self, item: tuple[str, Path]) -> ReconstructedMap:
        """Make all results of one label map."""
        (case, path), ledger = item, Ledger(self.folder, MADE_BY, self.fresh)
        folder, iso = self.folder / f"{case}_surfaces", self.folder / f"{case}_iso{_ending(path)}"
        names: Names = dict(self.names or ()) or _names_of(path, case)
        identity = {
            "input": {"file": path.name, "digest": digest_on_disk(path)},
            "names": [[name, list(values)] for name, values in names.items()],
            "options": self.settings,
            "method": self.method,
        }
        claim = ledger.claim(case, identity, (folder, iso))
        if claim.done and claim.entry:
            return ReconstructedMap(True, _present(claim.entry.record["measurements"]))
        volume = read_label_volume(path)
        groups = _groups(volume, names)
        planned = surface_files(folder, list(groups), self.options.surfaces.formats)
        planned += [iso] if self.options.isotropic is not None else []
        if not self.fresh:
            ledger.refuse_foreign(p for p in planned if p.relative_to(self.folder).as_posix() not in claim.earlier)
        about: dict[str, Any] = {"case": case, "source": path.name}
        outputs = {file.relative_to(self.folder).as_posix(): None for file in planned}
        ledger.begin(case, identity, {**outputs, **claim.earlier}, about)
        files, record = self._write(volume, groups, folder, iso)
        ledger.finish(case, identity, files, {**about, "labels": groups, **record}, claim.earlier)
        return ReconstructedMap(False, _present(record["measurements"]))

    def _write(
        self, volume: LabelVolume, groups: dict[str, tuple[int, ...]], folder: Path, iso: Path
    ) -> tuple[list[Path], dict[str, Any]]:
        """(files, record) of a label map."""
        how, edge_mm = self.options.surfaces, self.options.isotropic
        files: list[Path] = []
        record: dict[str, Any] = {}
        meshes = None
        if how.formats:
            if how.shared:
                meshes = shared_surfaces(volume, groups, workers=self.workers)
            else:
                meshes = surfaces_from_labels(volume, groups, decimate=how.decimate, workers=self.workers)
            files += write_surfaces(meshes, folder, how, list(groups), self.method)
            record["borders"] = borders_as_json(measure_borders(volume, groups, meshes, workers=self.workers))
        if edge_mm is not None:
            cubic = isotropic_labels(volume, edge_mm or None)
            write_label_volume(cubic, iso, description=DERIVED)
            files.append(iso)
            record["isotropic"] = {"derived": True, "spacing_mm": cubic.geometry.spacing_mm, "interpolated": iso.name}
        measured = measure_structures(volume, groups, meshes=meshes, workers=self.workers)
        return files, {**record, "measurements": as_json(measured)}


def _present(measurements: list[dict[str, Any]]) -> int:
    return sum(one["voxels"] > 0 for one in measurements)


def _ending(path: Path) -> str:
    """File ending for a map made from another: the same ending, or NIfTI's for DICOM."""
    return ".nii.gz" if is_dicom(path) else str(ending_of(path))


def _names_of(path: Path, case: str) -> dict[str | None, tuple[int, ...]]:
    """The names in the record of a prediction, else those in the map itself, else none."""
    told = groups_beside(path, case) or {name: (value,) for name, value in segment_names(path).items()}
    return dict(told.items())


def _groups(volume: LabelVolume, names: Names) -> dict[str, tuple[int, ...]]:
    """The named structures, and one structure for each value of the map without a name."""
    known = {value for values in names.values() for value in values}
    rest = [value for value in count_values(volume.data) if value != 0 and value not in known]
    return {name: values for name, values in names.items() if name is not None} | {f"label {v}": (v,) for v in rest}
