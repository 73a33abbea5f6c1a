"""Surfaces, measurements and cubic voxels: of a prediction while its scores are in memory, or of any tool's label maps.

Of a label map the *marker* ``CASE.json`` says what its outputs depend on and lists them with digests, as that of a prediction
does: what is verifiably done is skipped, what is ours is made anew, and what others wrote or changed stays as it is.
"""

import csv
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.atomic import replacing
from autoseg.data.labels import read_labels
from autoseg.engines import map_cases
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.files import (
    digest_on_disk,
    ending_of,
    is_dicom,
    read_label_volume,
    segment_names,
    stem_of,
    write_label_volume,
)
from autoseg.imaging.mesh import COORDINATES, SURFACE_FORMATS, file_names, write_mesh, write_scene
from autoseg.imaging.raw import digest_of
from autoseg.inference.cohort import Exporter, remove_outputs
from autoseg.pipeline.evaluation import references_in
from autoseg.pipeline.quiet import mute, silent
from autoseg.pipeline.surface_scores import SCENE, SIDECAR
from autoseg.reconstruct.confidence import entropies
from autoseg.reconstruct.measure import as_json, csv_rows, measure_structures
from autoseg.reconstruct.surface import Smoothing, isotropic_labels, surfaces_from_labels, surfaces_from_scores
from autoseg.room import check_writable
from autoseg.workspace import read_json, write_json
from planners.records import to_json

__all__ = ["Reconstructed", "reconstruct", "reconstruction_exporter", "surface_settings", "write_measurements"]

logger = logging.getLogger(__name__)

MADE_BY = "autoseg reconstruct"
SCORES = {"from": "scores, zero of the logit less the largest other", "iterations": 10}
LABELS = {"from": "label map, shape-based interpolation, around the volume of the voxels", "iterations": 20}
DERIVED = "derived: labels on cubic voxels by their shapes"
TABLE = "measurements.csv"
FOREIGN = "exists and was not made by this command. Move it away, choose another folder, or ask for a fresh start"


@dataclass(frozen=True)
class Reconstructed:
    """What was made of a folder of label maps: ``structures`` are counted over the maps that were done or skipped, and
    ``failures`` are sentences about files that could not be worked on."""

    folder: Path
    done: int
    skipped: int
    structures: int
    failures: tuple[str, ...]
    seconds: float

    def summary(self):
        counts = f"{self.done} label maps reconstructed, {self.skipped} were done already, {len(self.failures)} failed"
        failed = (f"failed: {failure}" for failure in self.failures)
        return "\n".join([f"{counts}; {self.structures} structures, {self.seconds:.1f} s", *failed, f"results: {self.folder}"])


def surface_settings(formats, decimate, coordinates):
    """Settings of surfaces, checked, as JSON.

    Args:
        formats: ``"stl,glb"`` or names; empty for no surfaces.
        decimate: share of triangles to take away.
        coordinates: ``"lps"`` or ``"ras"``.
    """
    names = formats.split(",") if isinstance(formats, str) else list(formats or ())
    names = list(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    for name in names:
        SURFACE_FORMATS[name]  # says what there is
    if coordinates not in COORDINATES:
        raise AutosegError(f"coordinates of surfaces: expected {' or '.join(COORDINATES)}, found {coordinates!r}")
    Smoothing(0, decimate)
    return {"formats": names, "decimate": decimate, "coordinates": coordinates}


def reconstruction_exporter(predictor, folder, settings):
    """Exporter that measures every structure of a prediction and writes its surfaces, where formats are asked for.

    ``CASE.json`` gets ``measurements``; surfaces go to the folder ``CASE_surfaces``.

    Args:
        predictor: the Predictor that the cases are predicted with.
        folder: of the predictions.
        settings: of ``surface_settings``.
    """
    labels = predictor.bundle.labels
    one = predictor.fold_agreement and len(predictor.folds) < 2
    remark = "no agreement of folds: a single fold predicted" if one else ""
    groups = dict(zip(labels.structures, labels.values, strict=True))

    def write(case, prediction, prepared, logits):
        meshes, files = None, ()
        if settings["formats"]:
            how = {"has_regions": labels.has_regions, "iterations": SCORES["iterations"], "decimate": settings["decimate"]}
            meshes = surfaces_from_scores(logits, prepared.grid, labels.structures, **how)
            files = _write_surfaces(meshes, folder / f"{case.id}_surfaces", settings, list(groups), SCORES)
        unsure = entropies(logits, has_regions=labels.has_regions)
        sure = {"entropies": unsure, "agreements": prediction.fold_agreement, "remark": remark}
        found = measure_structures(prediction.labels, groups, meshes=meshes, **sure)
        return files, {"measurements": as_json(found)}

    return Exporter("reconstruction", ("_surfaces",) if settings["formats"] else (), write, settings)


def write_measurements(folder, cases, name=TABLE):
    """One table of the measurements that stand in the ``CASE.json`` of these cases."""
    records = {case: read_json(folder / f"{case}.json").get("measurements", ()) for case in cases}
    with replacing(folder / name) as draft, draft.open("w", newline="") as file:
        csv.writer(file).writerows(csv_rows(records))


def reconstruct(
    source,
    target,
    *,
    surfaces=("stl", "glb"),
    decimate=0.0,
    coordinates="lps",
    isotropic=None,
    labels=None,
    workers=None,
    fresh=False,
    say=mute,
    progress=silent,
):
    """Surfaces, measurements and, where asked for, cubic voxels of label maps of any tool.

    Args:
        source: a label map, or a folder of them.
        target: folder for ``CASE_surfaces``, ``CASE.json``, ``CASE_iso`` + ending and ``measurements.csv``. The cubic
            voxels say that they are derived, in the header where there is one and in ``CASE.json``.
        surfaces, decimate, coordinates: as for ``surface_settings``.
        isotropic: edge of cubic voxels in mm, 0 for the finest spacing of each map, None for no such map.
        labels: path of a dataset.json that names the structures; None for one beside the maps, else the ``CASE.json`` of a
            prediction. Values without a name are called ``label N``.
        workers: threads for the structures of a case; cases go one by one.
        fresh: make everything anew, and replace what is in the way.

    Returns:
        Reconstructed; one broken file never stops the others. What an earlier call has made of the same map in the same way
        is skipped.

    Raises:
        AutosegError: wrong call; nothing was written.
    """
    begun, source, target = time.monotonic(), Path(source), Path(target)
    settings = {**surface_settings(surfaces, decimate, coordinates), "isotropic": isotropic}
    cases = _label_maps(source)
    if target.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise AutosegError(f"{target}: holds the label maps. Results need a folder of their own")
    names = _names(source, labels)
    if not fresh:
        _refuse_foreign_table(target / TABLE)
    check_writable(target)
    say(f"{len(cases)} label maps")

    def work(case):
        return _reconstruct_case(case, cases[case], target, settings, names, workers, fresh)

    outcomes = map_cases(work, cases, workers=1, on_done=progress("reconstruct", len(cases)))
    found = {outcome.name: outcome.value for outcome in outcomes if outcome.error is None}
    failures = tuple(f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error is not None)
    if found:
        write_measurements(target, found)
    skipped = sum(was_done for was_done, _ in found.values())
    structures = sum(there for _, there in found.values())
    return Reconstructed(target, len(found) - skipped, skipped, structures, failures, time.monotonic() - begun)


def _is_ours(record):
    return isinstance(record, dict) and record.get("made_by") == MADE_BY


def _reconstruct_case(case, path, target, settings, names, workers, fresh):
    """Everything of one label map; returns (whether it was done already, the number of structures found in it)."""
    marker, folder, iso = target / f"{case}.json", target / f"{case}_surfaces", target / f"{case}_iso{_ending(path)}"
    record = _earlier(marker, (folder, iso), fresh)
    names = names or _names_beside(path, case) or {name: (value,) for name, value in segment_names(path).items()}
    identity = {
        "input": {"file": path.name, "digest": digest_on_disk(path)},
        "names": [[name, list(values)] for name, values in names.items()],
        "options": settings,
        "method": LABELS,
    }
    if not fresh and _is_done(record, identity, target):
        return True, sum(one["voxels"] > 0 for one in record["measurements"])
    volume = read_label_volume(path)
    groups = _groups(volume, names)
    earlier = record.get("outputs", {})
    planned = [*_surface_files(folder, groups, settings["formats"]), *([iso] if settings["isotropic"] is not None else [])]
    planned = {file.relative_to(target).as_posix(): None for file in planned}
    for name in planned:
        if not fresh and name not in earlier and (target / name).exists():
            raise AutosegError(f"{target / name}: {FOREIGN}")
    about = {"made_by": MADE_BY, "case": case, "source": str(path.absolute()), "identity": identity}
    write_json(marker, {**about, "state": "writing", "outputs": planned | earlier})
    made, meshes = [], None
    if settings["formats"]:
        how = {"iterations": LABELS["iterations"], "decimate": settings["decimate"], "workers": workers}
        meshes = surfaces_from_labels(volume, groups, **how)
        made += _write_surfaces(meshes, folder, settings, list(groups), LABELS)
    if settings["isotropic"] is not None:
        cubic = isotropic_labels(volume, settings["isotropic"] or None)
        write_label_volume(cubic, iso, description=DERIVED)
        made.append(iso)
        about["isotropic"] = {"derived": True, "spacing_mm": cubic.geometry.spacing_mm, "interpolated": iso.name}
    measured = as_json(measure_structures(volume, groups, meshes=meshes, workers=workers))
    outputs = {file.relative_to(target).as_posix(): digest_of(file.read_bytes()) for file in made}
    remove_outputs(target, {name: digest for name, digest in earlier.items() if name not in outputs})
    write_json(marker, {**about, "state": "done", "outputs": outputs, "labels": groups, "measurements": measured})
    return False, sum(one["voxels"] > 0 for one in measured)


def _write_surfaces(meshes, folder, settings, structures, method):
    """Write the surfaces of a case: one file per structure and format, ``scene.glb``, and ``surfaces.json`` about them.

    Args:
        meshes: SurfaceMesh or None, one for each of ``structures``.
        settings: of ``surface_settings``.
        method: JSON that tells how the surfaces were made.

    Returns:
        list of the files' paths.
    """
    coordinates, formats = settings["coordinates"], settings["formats"]
    files, about = [], []
    named = zip(structures, meshes, file_names(structures), structure_colours(structures), strict=True)
    for structure, mesh, name, colour in named:
        paths = [folder / f"{name}.{ending}" for ending in formats if ending != "glb"] if mesh else []
        for path in paths:
            write_mesh(mesh, path, coordinates=coordinates, colour=colour)
        size = {"vertices": len(mesh.vertices_mm), "faces": len(mesh.faces)} if mesh else {}
        note = mesh.note if mesh else "no voxels"
        if mesh and note:
            logger.warning("%s, %s: %s", folder.name, structure, note)
        about.append({"structure": structure, "files": [path.name for path in paths], "colour": colour, **size, "note": note})
        files += paths
    if "glb" in formats and any(meshes):
        files.append(folder / SCENE)
        write_scene(meshes, files[-1], coordinates=coordinates)
    how = {"formats": formats, "decimate": settings["decimate"], "coordinates": coordinates.upper(), "unit": "mm"}
    write_json(folder / SIDECAR, {**how, "method": method, "structures": about})
    return [*files, folder / SIDECAR]


def _surface_files(folder, structures, formats):
    """Every file that ``_write_surfaces`` may write."""
    single = [ending for ending in formats if ending != "glb"]
    names = [f"{name}.{ending}" for name in file_names(structures) for ending in single]
    return [folder / name for name in (*names, SCENE, SIDECAR)] if formats else []


def _earlier(marker, places, fresh):
    """What an earlier call wrote into the marker; {} where there was none.

    Raises:
        AutosegError: something lies in the way that no such call made, or that was changed since; not with ``fresh``.
    """
    try:
        record = read_json(marker) if marker.exists() else None
    except AutosegError:
        record = "damaged"
    if fresh:
        return record if _is_ours(record) else {}
    others = [place for place in places if place.exists()] if record is None else [] if _is_ours(record) else [marker]
    if others:
        raise AutosegError(f"{others[0]}: {FOREIGN}")
    record = record or {}
    for name, digest in record.get("outputs", {}).items() if record.get("state") == "done" else ():
        if (path := marker.parent / name).is_file() and digest_of(path.read_bytes()) != digest:
            raise AutosegError(f"{path}: was changed after it had been made. Move it away, or ask for a fresh start")
    return record


def _is_done(record, identity, target):
    """Whether all outputs of an earlier call are there, and would come out the same; that none was changed is known."""
    there = all((target / name).is_file() for name in record.get("outputs", ()))
    return record.get("state") == "done" and record.get("identity") == to_json(identity) and there


def _refuse_foreign_table(path):
    if path.exists() and not path.read_bytes().startswith(b"case,structure,voxels,"):
        raise AutosegError(f"{path}: {FOREIGN}")


def _ending(path):
    """Of a map that is made of another: its own, and NIfTI's for DICOM."""
    return ".nii.gz" if is_dicom(path) else ending_of(path)


def _label_maps(source):
    """{case: path}; cubic versions of other maps, and of their scans, are left out."""
    if source.is_file():
        return {stem_of(source): source}
    found = references_in(source)
    cubic = {f"{case}{suffix}" for case in found for suffix in ("_iso", "_iso_cubic")}
    return {case: path for case, path in found.items() if case not in cubic}


def _names(source, labels):
    """{structure: values} of a dataset.json, or None."""
    folder = source if source.is_dir() else source.parent
    places = [Path(labels)] if labels else [folder / "dataset.json", folder.parent / "dataset.json"]
    for path in places:
        if path.is_file():
            description = read_json(path)
            if not isinstance(description, dict) or not isinstance(description.get("labels"), dict):
                raise DatasetError(f"{path}: no labels in it; expected a dataset.json")
            schema = read_labels(description["labels"], description.get("regions_class_order"))
            ignored = {} if schema.ignore is None else {None: (schema.ignore,)}
            return {**dict(zip(schema.structures, schema.values, strict=True)), **ignored}
    if labels:
        raise AutosegError(f"{labels}: there is no such file")
    return None


def _names_beside(path, case):
    """{structure: values} that a prediction wrote beside its labels; else nothing is named."""
    sidecar = path.parent / f"{case}.json"
    record = read_json(sidecar) if sidecar.is_file() else {}
    named = record.get("labels") if isinstance(record, dict) else None
    return {name: tuple(np.atleast_1d(values).tolist()) for name, values in named.items()} if isinstance(named, dict) else {}


def _groups(volume, names):
    """Named structures, and one for each value of the map that has no name; the name None is of values to leave out."""
    known = {value for values in names.values() for value in values}
    rest = [int(value) for value in np.unique(volume.data) if value != 0 and value not in known]
    return {name: values for name, values in names.items() if name is not None} | {f"label {v}": (v,) for v in rest}
