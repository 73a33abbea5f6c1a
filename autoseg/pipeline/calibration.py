"""Find out which windows a model can skip, on scans of the kind that it will segment."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path

from autoseg.data.sources import find_inputs, tell
from autoseg.errors import AutosegError
from autoseg.inference.bundle import load_bundle, store_windows
from autoseg.inference.calibration import MOST_CASES, calibrate
from autoseg.inference.find import find_model
from autoseg.inference.predictor import Predictor
from autoseg.inference.windows import AdaptiveWindows
from autoseg.options import InferenceOptions, Runtime
from autoseg.room import check_writable, keep_memory
from autoseg.workspace import Workspace

__all__ = ["calibrate_model"]

logger = logging.getLogger(__name__)


def calibrate_model(
    model: str | PathLike[str],
    cases: str | PathLike[str],
    workspace: Workspace,
    runtime: Runtime | None = None,
) -> AdaptiveWindows:
    """Find the windows that the ensemble of all folds can skip, and store the result in the model.

    Args:
        model: name or folder.
        cases: scans as for ``predict``, larger than the windows. The first ``MOST_CASES`` are used; labels are not needed.
        workspace: workspace that holds the model.
        runtime: device and progress.

    Raises:
        AutosegError: wrong call, no scan larger than the windows, or an unreadable scan. The model is then unchanged.
    """
    runtime, path = runtime or Runtime(), find_model(model, workspace)
    bundle = load_bundle(path)
    if path.is_file():
        raise AutosegError(f"{path}: is one file, which stays as it is. Import it, and calibrate the model in the workspace")
    if bundle.beside:
        raise AutosegError(
            f"{path}: is an ensemble of two plans, whose windows differ. Calibrate the models that it is made of"
        )
    check_writable(path)
    inputs = find_inputs(Path(cases), channels=bundle.channels, file_ending=bundle.file_ending)
    tell(inputs)
    predictor = Predictor(bundle, InferenceOptions(windows="all"), device=runtime.device)
    if predictor.device.type == "cpu":
        keep_memory()
    scans = (predictor.prepare(case.images).data for case in inputs.cases[:MOST_CASES])
    found = calibrate(predictor, scans)
    if found is None:
        edges = "x".join(map(str, bundle.plan.patch_size))
        raise AutosegError(
            f"{cases}: no scan is larger than the windows of {edges} voxels, so no window can be skipped. Give larger scans"
        )
    store_windows(path, dict.fromkeys(bundle.folds, found))
    return found
