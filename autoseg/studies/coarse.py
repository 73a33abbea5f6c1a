"""The coarse stage of a cascade, for the training of the fine one: what it says of each training case that it did not see.

All its folds are trained, each ends with its validation cases predicted, and these predictions together are the coarse labels
of all cases: so the fine stage learns from labels as they will be for new scans. They lie in the folder of the fine stage's
run, on its grid, and are made anew where the predictions change.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.data.dataset import Case
from autoseg.data.labels import LabelSchema
from autoseg.engines import LocalEngine, reason_of
from autoseg.errors import TrainingError
from autoseg.imaging.files import read_label_volume, read_volume
from autoseg.imaging.pictures import label_ending
from autoseg.imaging.raw import digest_of, read_bytes
from autoseg.options import Runtime
from autoseg.preprocess.case import coarse_codes
from autoseg.preprocess.coarse import made_from, store_coarse
from planners.plan import Plan
from planners.records import digest

__all__ = ["FOLDER", "BringCoarse", "bring_coarse", "predictions_of"]

logger = logging.getLogger(__name__)

FOLDER = "coarse"  # in that of a run


@dataclass(frozen=True)
class BringCoarse:
    """The step that brings what a coarse stage said of a case to the grid of the fine one; its items are cases.

    Attributes:
        folder: where it is stored.
        plan: of the fine stage.
        labels: of both.
        predictions: case -> the label map that the coarse stage predicted.
    """

    folder: Path
    plan: Plan
    labels: LabelSchema
    predictions: Mapping[str, Path]

    def setup(self) -> BringCoarse:
        return self

    def run(self, case: Case) -> None:
        path = self.predictions[case.id]
        plan = self.plan
        grid = [plan.axis_order, plan.spacing_mm, plan.orientation, plan.resampling, plan.patch_size[0] == 1]
        source = digest([digest_of(read_bytes(path)), self.labels, grid])
        if made_from(self.folder, case.id) == source:
            return
        volume = read_volume(case.images)
        said = read_label_volume(path, onto=volume.geometry)
        store_coarse(self.folder, case.id, coarse_codes(self.labels.encode(said.data), volume, plan), source)


def predictions_of(folders: Mapping[str, Path], validation: Mapping[str, tuple[str, ...]], ending: str) -> dict[str, Path]:
    """{case: label map} of the validation cases of all folds.

    Args:
        folders: fold -> its folder.
        validation: fold -> its validation cases.
        ending: of the data set's files.
    """
    return {
        case: folders[fold] / "validation" / f"{case}{label_ending(ending)}"
        for fold, cases in validation.items()
        for case in cases
    }


def bring_coarse(step: BringCoarse, cases: Mapping[str, Case], runtime: Runtime) -> Path:
    """Coarse labels of all cases, in the folder of the step, which is returned.

    Raises:
        TrainingError: a case that no fold of the coarse stage validated, or that it could not predict.
    """
    if lacking := sorted(set(cases) - set(step.predictions)):
        raise TrainingError(
            f"no fold of the coarse stage has {', '.join(lacking[:4])} as validation cases, so there are no coarse labels of "
            "these to train on. Give folds in which each case is validated once"
        )
    engine, on_done = LocalEngine(runtime.workers), runtime.progress("coarse labels", len(cases))
    outcomes = engine.map(step, list(cases.values()), name=lambda case: case.id, on_done=on_done)
    failures = [f"{outcome.name}: {reason_of(outcome.error)}" for outcome in outcomes if outcome.error is not None]
    if failures:
        raise TrainingError("the coarse stage has no labels of some cases:\n  " + "\n  ".join(failures))
    return step.folder
