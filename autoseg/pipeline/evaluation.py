"""Score a folder of predictions, of any tool."""

from pathlib import Path

import numpy as np

from autoseg.data.labels import LabelSchema, read_labels
from autoseg.errors import AutosegError, DatasetError
from autoseg.evaluation import evaluate_folder, write_report
from autoseg.imaging.files import ending_of, read_label_volume
from autoseg.pipeline.quiet import silent
from autoseg.workspace import read_json

__all__ = ["evaluate"]


def evaluate(
    reference, predicted, target, *, labels=None, schema=None, ending=None, tolerance_mm=None, workers=None, progress=silent
):
    """Score a folder of predictions, of any tool, and write the report.

    Args:
        reference, predicted: folders with files of the same names.
        target: folder for metrics.csv, metrics.json, metrics.md and summary.json.
        labels: path of a dataset.json; None for one beside the folders, else every value found in the references.
        schema: LabelSchema, instead of ``labels``.
        ending: file ending; None for that of the references.
        tolerance_mm: of the surface Dice.

    Returns:
        Report
    """
    for folder in (reference, predicted):
        if not Path(folder).is_dir():
            raise AutosegError(f"{folder}: there is no such folder")
    if ending is None:
        files = [path for path in sorted(Path(reference).iterdir()) if path.is_file() and _has_known_ending(path)]
        if not files:
            raise AutosegError(f"{reference}: no label files in it")
        ending = ending_of(files[0])
    if schema is None:
        schema = _schema_for(reference, predicted, labels, ending)
    report = evaluate_folder(
        reference, predicted, schema, ending=ending, tolerance_mm=tolerance_mm, workers=workers, on_done=progress("evaluate", 0)
    )
    write_report(report, target)
    return report


def _has_known_ending(path):
    try:
        return bool(ending_of(path))
    except AutosegError:
        return False


def _schema_for(reference, predicted, labels, ending):
    """The labels from a dataset.json, else one structure per value found in the references."""
    places = [Path(labels)] if labels else [Path(p) / "dataset.json" for p in (predicted, reference, Path(reference).parent)]
    for path in places:
        if path.is_file():
            description = read_json(path)
            if not isinstance(description.get("labels"), dict):
                raise DatasetError(f"{path}: no labels in it; expected a dataset.json")
            return read_labels(description["labels"], description.get("regions_class_order"))
    if labels:
        raise AutosegError(f"{labels}: there is no such file")
    found = set()
    for path in sorted(Path(reference).glob(f"*{ending}")):
        found |= {int(value) for value in np.unique(read_label_volume(path).data)}
    values = sorted(found - {0})
    if not values:
        raise DatasetError(f"{reference}: every reference is empty")
    return LabelSchema(
        structures=tuple(f"label {value}" for value in values),
        values=tuple((value,) for value in values),
        has_regions=False,
        paint_values=tuple(values),
    )
