"""Score a folder of predictions, of any tool."""

from pathlib import Path

import numpy as np

from autoseg.data.labels import LabelSchema, read_labels
from autoseg.errors import AutosegError, DatasetError
from autoseg.evaluation import evaluate_folder, write_report
from autoseg.imaging.files import FORMATS, read_label_volume
from autoseg.pipeline.quiet import silent
from autoseg.workspace import read_json

__all__ = ["evaluate"]


def evaluate(
    reference,
    predicted,
    target,
    *,
    labels=None,
    schema=None,
    cases=None,
    partial=False,
    tolerance_mm=None,
    workers=None,
    progress=silent,
):
    """Score a folder of predictions and write the report.

    Args:
        reference, predicted: folders with files of the same names.
        target: folder for metrics.csv, metrics.json, metrics.md and summary.json.
        labels: path of a dataset.json; None for one beside the folders, else every value found in the references.
        schema: LabelSchema, instead of ``labels``.
        cases: names to score; None for every reference.
        partial: leave out references without a prediction, which are failures otherwise.
        tolerance_mm: of the surface Dice.

    Returns:
        Report
    """
    reference, predicted = Path(reference), Path(predicted)
    for folder in (reference, predicted):
        if not folder.is_dir():
            raise AutosegError(f"{folder}: there is no such folder")
    references, ending = _references(reference)
    if cases is not None:
        references = {case: path for case, path in references.items() if case in cases}
    if partial:
        references = {case: path for case, path in references.items() if (predicted / path.name).is_file()}
    if not references:
        raise AutosegError(f"no file of {predicted} has the name of a reference in {reference}; there is nothing to score")
    report = evaluate_folder(
        references,
        predicted,
        schema or _schema(reference, predicted, labels, references),
        ending=ending,
        tolerance_mm=tolerance_mm,
        workers=workers,
        on_done=progress("evaluate", len(references)),
    )
    write_report(report, target)
    return report


def _references(folder):
    """(case -> path, file ending) of the label files in a folder; the ending is that of most of them."""
    files = {ending: sorted(folder.glob(f"[!.]*{ending}")) for ending in FORMATS}
    ending = max(files, key=lambda ending: len(files[ending]))
    if not files[ending]:
        raise AutosegError(f"{folder}: no label files in it; expected one of {', '.join(FORMATS)}")
    return {path.name[: -len(ending)]: path for path in files[ending]}, ending


def _schema(reference, predicted, labels, references):
    """The labels from a dataset.json, else one structure per value found in the references."""
    places = [Path(labels)] if labels else [folder / "dataset.json" for folder in (predicted, reference, reference.parent)]
    for path in places:
        if path.is_file():
            description = read_json(path)
            if not isinstance(description.get("labels"), dict):
                raise DatasetError(f"{path}: no labels in it; expected a dataset.json")
            return read_labels(description["labels"], description.get("regions_class_order"))
    if labels:
        raise AutosegError(f"{labels}: there is no such file")
    values = sorted({int(v) for path in references.values() for v in np.unique(read_label_volume(path).data)} - {0})
    if not values:
        raise DatasetError(f"{reference}: every reference is empty")
    return LabelSchema(
        structures=tuple(f"label {value}" for value in values),
        values=tuple((value,) for value in values),
        has_regions=False,
        paint_values=tuple(values),
    )
