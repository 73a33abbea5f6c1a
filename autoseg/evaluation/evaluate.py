"""Scoring predicted label maps against references, one case or a folder of them.

Needs the two label maps and what their values mean, and nothing of how the prediction came about: any tool's output can
be scored. A case that cannot be scored is reported as a failure; it neither stops the others nor drops out unseen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from autoseg.engines import map_cases
from autoseg.errors import FileError, GeometryError
from autoseg.evaluation.metrics import METRICS, MaskPair, PairMetric, default_tolerance_mm, explain, image_diagonal_mm
from autoseg.evaluation.overlap import Counts, count_voxels, foreground_share
from autoseg.evaluation.reconstruction import brier, mask_mse
from autoseg.evaluation.report import Failure, summarise
from autoseg.imaging.files import read_label_volume

__all__ = ["CaseMetrics", "evaluate_case", "evaluate_folder"]

AFFINE_TOLERANCE = 1e-3  # mm per voxel, and mm for the position: float32 headers of two tools differ by less


@dataclass(frozen=True)
class CaseMetrics:
    """All metrics of one structure in one case.

    Attributes:
        case, structure: their names.
        values: (name, value, reason) of each metric, in the order of METRICS; then ``mse_mask_fg`` and
            ``foreground_share_fg``, of all structures as one mask, the same in each row of a case; then ``brier`` where the
            prediction has probabilities, and what ``more`` of ``evaluate_folder`` adds. ``value`` is a number or None;
            ``reason`` says why it is None, or why a number stands in for a missing one; '' otherwise.
        counts: voxels in and out of the two masks.
        tolerance_mm: tolerance of the surface Dice.
    """

    case: str
    structure: str
    values: tuple[tuple[str, float | None, str], ...]
    counts: Counts
    tolerance_mm: float

    def __getitem__(self, name):
        """The value of a metric, or None where it is undefined; KeyError for an unknown name."""
        return {metric: value for metric, value, _ in self.values}[name]

    def reason(self, name):
        """Why the value of a metric is undefined or a stand-in; '' otherwise."""
        return {metric: reason for metric, _, reason in self.values}[name]


def evaluate_case(*, reference, predicted, labels, case="", tolerance_mm=None):
    """Every metric of every structure of one case.

    Args:
        reference, predicted: LabelVolumes on one grid.
        labels: LabelSchema. Values it does not declare count as background; voxels that have its ``ignore`` value in
            the reference count nowhere.
        case: name for messages and the report.
        tolerance_mm: of the surface Dice: a number, or a mapping from structure to number; None, or a structure that
            is not in the mapping, for the largest voxel edge, at least 1 mm.

    Returns:
        tuple of CaseMetrics, in the order of ``labels.structures``.

    Raises:
        GeometryError: the grids differ.
    """
    _check_grids(reference.geometry, predicted.geometry, case)
    boxes = [_boxes(volume.data, labels) for volume in (reference, predicted)]
    together = _together(reference.data, predicted.data, labels)
    return tuple(
        _measure(_pair(reference, predicted, labels, number, boxes, tolerance_mm), case, structure, together)
        for number, structure in enumerate(labels.structures)
    )


def evaluate_folder(
    reference, predicted, labels, *, ending=".nii.gz", tolerance_mm=None, workers=None, on_done=None, more=None
):
    """Score a folder of predictions against references; files of one case have one name.

    Args:
        reference: folder with CASE + ending, or a dictionary of case -> path where only these cases are meant.
        predicted: folder with CASE + ending; where there is a CASE_probabilities.npz, as ``autoseg predict`` writes it, too,
            its Brier score is added.
        labels, tolerance_mm: as for ``evaluate_case``.
        workers: threads; None for one per core.
        on_done: called with the Outcome of each case as it ends.
        more: ``more(case, reference)`` gives more (name, value, reason) for each structure, of a case and its LabelVolume.

    Returns:
        Report. A missing or unreadable file, or a wrong grid, is a Failure of its case.

    Raises:
        FileError: a folder is missing, or there is no reference.
    """
    list(METRICS.values())  # one that cannot be imported is told before the work
    predicted = Path(predicted)
    found = _cases_in(predicted, ending)
    if isinstance(reference, dict):
        references, extra = {case: Path(path) for case, path in reference.items()}, []
    else:
        references = {case: Path(reference) / f"{case}{ending}" for case in _cases_in(Path(reference), ending)}
        extra = sorted(set(found) - set(references))
    if not references:
        raise FileError(f"{reference}: expected reference files that end with {ending}, found none")
    pairs = {case: (path, predicted / f"{case}{ending}") for case, path in references.items()}

    chances = {case: path for case in pairs if (path := predicted / f"{case}_probabilities.npz").is_file()}

    def score(case):
        for path, kind in zip(pairs[case], ("reference", "prediction"), strict=True):
            if not path.is_file():
                raise FileError(f"case {case!r}: no {kind}; expected {path}. Add it, or score with --partial what there is")
        guess = read_label_volume(pairs[case][1])
        truth = read_label_volume(pairs[case][0], onto=guess.geometry)
        if truth.geometry.shape != guess.geometry.shape:
            guess = read_label_volume(pairs[case][1], onto=truth.geometry)
        rows = evaluate_case(reference=truth, predicted=guess, labels=labels, case=case, tolerance_mm=tolerance_mm)
        rows = _with_brier(rows, chances.get(case), truth.data, labels) if chances else rows
        added = more(case, truth) if more else [()] * len(rows)
        return tuple(replace(row, values=(*row.values, *values)) for row, values in zip(rows, added, strict=True))

    outcomes = map_cases(score, pairs, workers=workers, on_done=on_done)
    return summarise(
        [row for outcome in outcomes if outcome.error is None for row in outcome.value],
        labels,
        failures=[Failure(outcome.name, str(outcome.error)) for outcome in outcomes if outcome.error is not None],
        files=[(case, str(truth), str(guess)) for case, (truth, guess) in pairs.items()],
        not_scored=extra,
    )


def _check_grids(reference, predicted, case):
    same = reference.shape == predicted.shape
    if not (same and np.allclose(reference.affine, predicted.affine, rtol=0, atol=AFFINE_TOLERANCE)):
        shifted = same and np.allclose(reference.spacing_mm, predicted.spacing_mm, atol=AFFINE_TOLERANCE)
        detail = ", the same voxels at another place or direction" if shifted else ""
        raise GeometryError(
            f"case {case!r}: reference and prediction lie on different grids{detail}\n"
            f"  reference {reference}, first voxel at {_position(reference)} mm\n"
            f"  predicted {predicted}, first voxel at {_position(predicted)} mm\n"
            "Predict onto the grid of the reference, or resample the prediction to it."
        )


def _position(geometry):
    return tuple(round(float(v), 3) for v in geometry.to_world([[0, 0, 0]])[0])


def _boxes(data, labels):
    """The box of each label value, in one pass over the image: value -> slices, or None for a value that is absent."""
    wanted = {value for group in labels.values for value in group}
    boxes = ndimage.find_objects(data, max_label=max(*wanted, 1))
    whole = tuple(slice(0, n) for n in data.shape)
    return {value: boxes[value - 1] if value > 0 else whole for value in wanted}


def _pair(reference, predicted, labels, number, boxes, tolerance_mm):
    """MaskPair of structure ``number``: cut to what either mask fills and one voxel around it."""
    shape, spacing = reference.geometry.shape, reference.geometry.spacing_mm
    parts = [box[value] for box in boxes for value in labels.values[number] if box[value] is not None]
    inside = tuple(
        slice(
            max(0, min((p[axis].start for p in parts), default=0) - 1),
            max((p[axis].stop for p in parts), default=0) + 1,
        )
        for axis in range(3)
    )
    masks = [labels.mask(volume.data[inside], number) for volume in (reference, predicted)]
    ignored, n_voxels = None, reference.data.size
    if labels.ignore is not None:
        everywhere = reference.data == labels.ignore
        ignored, n_voxels = everywhere[inside], n_voxels - int(np.count_nonzero(everywhere))
        masks = [mask & ~ignored for mask in masks]
    chosen = tolerance_mm.get(labels.structures[number]) if isinstance(tolerance_mm, Mapping) else tolerance_mm
    return MaskPair(
        reference=masks[0],
        predicted=masks[1],
        spacing_mm=spacing,
        diagonal_mm=image_diagonal_mm(shape, spacing),
        tolerance_mm=default_tolerance_mm(shape, spacing) if chosen is None else float(chosen),
        n_voxels=n_voxels,
        ignored=ignored,
        lower=tuple(side.start for side in inside),
        image_shape=shape,
    )


def _together(reference, predicted, labels):
    """The values of all structures as one mask."""
    declared = sorted({value for group in labels.values for value in group})
    masks = [np.isin(data, declared) for data in (reference, predicted)]
    if labels.ignore is not None:
        counted = reference != labels.ignore
        masks = [mask[counted] for mask in masks]
    counts = count_voxels(*masks)
    error, share = mask_mse(counts), foreground_share(counts)
    return [("mse_mask_fg", error, "" if error is not None else "both empty"), ("foreground_share_fg", share, "")]


def _with_brier(rows, path, reference, labels):
    """The rows of a case with the Brier score of its probabilities; undefined where ``path`` is None."""
    if path is None:
        return tuple(replace(row, values=(*row.values, ("brier", None, "no probabilities"))) for row in rows)
    with np.load(path, allow_pickle=False) as stored:
        heads = stored["probabilities"]
    if heads.shape != (labels.n_heads, *reference.shape):
        raise FileError(f"{path}: expected an array of {(labels.n_heads, *reference.shape)}, found {heads.shape}")
    ignored = None if labels.ignore is None else reference == labels.ignore
    background = labels.n_heads - len(labels.structures)
    return tuple(
        replace(row, values=(*row.values, ("brier", brier(heads[background + n], labels.mask(reference, n), ignored), "")))
        for n, row in enumerate(rows)
    )


def _measure(pair, case, structure, together):
    values = []
    for name, metric in METRICS.items():
        if isinstance(metric, PairMetric):
            value = metric.measure(pair)
        else:
            value = metric(pair.reference, pair.predicted, pair.spacing_mm)
        values.append((name, value, explain(name, value, pair)))
    return CaseMetrics(case, structure, (*values, *together), pair.counts, pair.tolerance_mm)


def _cases_in(folder, ending):
    """Names of the cases in a folder, sorted."""
    if not folder.is_dir():
        raise FileError(f"{folder}: expected a folder of label maps, found none")
    names = (path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(name[: -len(ending)] for name in names if name.endswith(ending))
