"""Score a folder of predictions, of any tool."""

import contextlib
from pathlib import Path

import numpy as np

from autoseg.data.dataset import read_dataset
from autoseg.data.labels import LabelSchema, read_labels
from autoseg.errors import AutosegError, DatasetError
from autoseg.evaluation import evaluate_folder, write_report
from autoseg.evaluation.report_files import refuse_foreign_summary
from autoseg.imaging.files import FORMATS, PICTURES, SEGMENTATION, read_label_volume, segment_names
from autoseg.pipeline.quiet import mute, silent
from autoseg.pipeline.reporting import try_report
from autoseg.pipeline.surface_scores import surface_scorer
from autoseg.workspace import read_json

__all__ = ["all_failures", "evaluate", "references_in"]


def evaluate(
    reference,
    predicted,
    target,
    *,
    labels=None,
    schema=None,
    cases=None,
    ending=None,
    partial=False,
    tolerance_mm=None,
    images=None,
    workers=None,
    say=mute,
    progress=silent,
):
    """Score a folder of predictions and write the report, as tables and as a page.

    Surfaces that lie beside the predictions, as ``autoseg predict --surfaces`` writes them, are scored too.

    Args:
        reference, predicted: folders with files of the same names; their endings may differ.
        target: folder for metrics.csv, metrics.json, metrics.md, summary.json and report.html. A summary.json of another
            program is not overwritten.
        labels: path of a dataset.json; None for one beside the folders, else every value found in the references.
        schema: LabelSchema, instead of ``labels``.
        cases: names to score; None for every reference.
        ending: of the predictions; None for that of most of them.
        partial: leave out references without a prediction, which are failures otherwise.
        tolerance_mm: of the surface Dice.
        images: scans for the page, as for ``report``.

    Returns:
        Report
    """
    reference, predicted = Path(reference), Path(predicted)
    references = references_in(reference)
    if not predicted.is_dir():
        raise AutosegError(f"{predicted}: there is no such folder. Correct the path")
    refuse_foreign_summary(target)
    ending = ending or _ending_of_most(predicted, references)
    if cases is not None:
        references = {case: path for case, path in references.items() if case in cases}
    if partial:
        references = {case: path for case, path in references.items() if (predicted / f"{case}{ending}").is_file()}
    if not references:
        raise AutosegError(
            f"no file of {predicted} has the name of a reference in {reference}; nothing to score. Name both alike"
        )
    schema = schema or _schema(reference, predicted, labels, references)
    report = evaluate_folder(
        references,
        predicted,
        schema,
        ending=ending,
        tolerance_mm=tolerance_mm,
        workers=workers,
        on_done=progress("evaluate", len(references)),
        more=surface_scorer(predicted, references, schema),
    )
    write_report(report, target)
    try_report(target, images=images, reference=reference, predicted=predicted, workers=workers, say=say)
    return report


def references_in(folder):
    """{case: path} of the label files in a folder, of any known ending; where a case has two, that of most files.

    Pictures count only where there are no volumes, of which they may be views. Of a data-set folder: the labels of its cases,
    training and test.

    Raises:
        AutosegError: no such folder, or no label files in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AutosegError(f"{folder}: there is no such folder. Correct the path")
    files = {ending: sorted(folder.glob(f"[!.]*{ending}")) for ending in FORMATS}
    volumes = {ending: paths for ending, paths in files.items() if ending not in PICTURES}
    files = volumes if any(volumes.values()) else files
    found = {path.name[: -len(e)]: path for e in sorted(files, key=lambda e: len(files[e])) for path in files[e]}
    found = found or {path.stem: path for path in sorted(folder.glob(f"[!.]*{SEGMENTATION}"))}
    if not found and (folder / "dataset.json").is_file():
        found = _labels_of(read_dataset(folder))
    if not found:
        raise AutosegError(
            f"{folder}: no label files in it; expected one of {', '.join(FORMATS)}. Give the folder that holds them"
        )
    return found


def _labels_of(dataset):
    return {case.id: case.label for case in (*dataset.training, *dataset.test) if case.label}


def _ending_of_most(predicted, references):
    """The ending that most predictions have; of equals that of the references."""

    def count(ending):
        same = [path.name.endswith(ending) for path in references.values()]
        return sum((predicted / f"{case}{ending}").is_file() for case in references), sum(same)

    return max((*FORMATS, SEGMENTATION), key=count)


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
    values = sorted({value for path in references.values() for value in _values_in(path)} - {0})
    if not values:
        raise DatasetError(f"{reference}: expected references with structures, found none that can be read. Look at the files")
    names = _names_of_segments(references)
    return LabelSchema(
        structures=tuple(names.get(value, f"label {value}") for value in values),
        values=tuple((value,) for value in values),
        has_regions=False,
        paint_values=tuple(values),
    )


def _names_of_segments(references):
    """{value: name} that references tell which are DICOM segmentations."""
    known = {}
    for path in references.values():
        for name, value in segment_names(path).items():
            if known.setdefault(value, name) != name:
                raise DatasetError(
                    f"{path}: expected segment {value} to be {known[value]} as in other references, found {name}. Number the "
                    "segments alike in all of them"
                )
    return known


def _values_in(path):
    """The label values of a map; none of one that cannot be read, which fails when it is scored."""
    with contextlib.suppress(AutosegError):
        return np.unique(read_label_volume(path).data).tolist()
    return ()


def all_failures(done, report):
    """What failed, each case once: a case without a prediction has no score either."""
    messages = {failure.case: f"not scored: {failure.reason}" for failure in (report.failures if report else ())}
    return tuple(f"{case}: {message}" for case, message in (messages | dict(done.failures)).items())
