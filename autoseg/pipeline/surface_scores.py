"""The surfaces in a folder of predictions against those of the references' label maps.

A surface of the reference is made as ``autoseg reconstruct`` makes it; the prediction's is read from its file.
"""

from autoseg.evaluation.meshes import SURFACE_SCORES, score_surfaces
from autoseg.imaging.mesh import file_names, read_mesh
from autoseg.reconstruct.surface import surfaces_from_labels
from autoseg.workspace import read_json, write_json

__all__ = ["SCENE", "SIDECAR", "record_surface_scores", "surface_scorer"]

SCENE, SIDECAR = "scene.glb", "surfaces.json"  # in a folder CASE_surfaces


def surface_scorer(predicted, cases, labels):
    """What scores the surfaces of a case for ``evaluate_folder``; None where no case has surfaces.

    Args:
        predicted: folder of the predictions, with the folders ``CASE_surfaces``.
        cases: their names.
        labels: LabelSchema.

    Returns:
        ``more(case, reference)``, which gives for each structure ((name, value, reason), ...); None.
    """
    sidecars = {case: path for case in cases if (path := predicted / f"{case}_surfaces" / SIDECAR).is_file()}

    def undefined(reason):
        return [tuple((name, None, reason) for name in SURFACE_SCORES)] * len(labels.structures)

    def more(case, reference):
        if case not in sidecars or (labels.ignore is not None and (reference.data == labels.ignore).any()):
            return undefined("voxels to ignore have no surface" if case in sidecars else "no surfaces were made")
        try:
            written = _read_surfaces(sidecars[case])
        except Exception as fault:  # noqa: BLE001 - readers raise what they like; the scores of the voxels must not be lost
            return undefined(f"its surfaces cannot be read ({type(fault).__name__}: {fault}); make them anew")
        groups = dict(zip(labels.structures, labels.values, strict=True))
        truths = surfaces_from_labels(reference, groups, workers=1)
        pairs = zip(truths, labels.structures, strict=True)
        return [score_surfaces(truth, written.get(structure), case=case) for truth, structure in pairs]

    return more if sidecars else None


def _read_surfaces(sidecar):
    """{structure: SurfaceMesh} of a ``CASE_surfaces``, from the first file of each that is there, else from the scene."""
    about, found = read_json(sidecar), {}
    there = [one for one in about["structures"] if "faces" in one]
    structures = [one["structure"] for one in there]
    for one, structure, name in zip(there, structures, file_names(structures), strict=True):
        files = [sidecar.parent / file for file in (*one["files"], SCENE)]
        if path := next((file for file in files if file.is_file()), None):
            found[structure] = read_mesh(path, structure, coordinates=about["coordinates"].lower(), name=name)
    return found


def record_surface_scores(folder, report):
    """Add the surface scores of a report to the ``CASE.json`` of its cases, as ``surface_scores``, by structure."""
    for case in report.cases:
        rows = [row for row in report.rows if row.case == case]
        scores = [{"structure": row.structure, **{name: row[name] for name in SURFACE_SCORES}} for row in rows]
        path = folder / f"{case}.json"
        write_json(path, {**read_json(path), "surface_scores": scores})
