"""Every step, from planning to the HTML report, on synthetic scans."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from autoseg.options import PredictOptions, Runtime, SurfaceOptions, TrainingOptions, TrainOptions
from autoseg.phantoms import write_phantoms
from autoseg.pipeline.planning import plan_and_preprocess
from autoseg.pipeline.prediction import Predicted, predict
from autoseg.pipeline.training import train
from autoseg.workspace import Workspace

__all__ = ["Demo", "demo"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Demo:
    """Where the demo's files lie, and how well it did on scans it had not seen."""

    folder: Path
    predicted: Predicted
    seconds: float

    @property
    def failures(self) -> tuple[str, ...]:
        return self.predicted.failures

    def summary(self) -> str:
        report = self.predicted.report
        return (
            f"{report.table() if report else ''}\n\n"
            f"scans and labels   {self.folder / 'Dataset900_Phantoms'}\n"
            f"plan, run, model   {self.folder / 'workspace'}\n"
            f"masks and metrics  {self.predicted.folder}\n"
            f"surfaces           {self.predicted.folder / 'CASE_surfaces'} (STL; GLB opens in any 3D viewer)\n"
            f"measurements       {self.predicted.folder / 'measurements.csv'}\n"
            f"HTML report        {self.predicted.folder / 'report.html'}\n"
            f"{self.seconds:.0f} s in all"
        )


def demo(folder: str | PathLike[str], seconds: float = 120.0, runtime: Runtime | None = None) -> Demo:
    """Made-up scans, planned, trained and predicted; the way a user's own data would go.

    Args:
        folder: for everything it makes; an unfinished demo there is continued.
        seconds: length of the training run.
        runtime: where and how; ``fresh`` trains again, whatever is there.
    """
    begun, folder, runtime = time.monotonic(), Path(folder).absolute(), runtime or Runtime()
    raw, workspace = folder / "Dataset900_Phantoms", Workspace(folder / "workspace")
    if not (raw / "dataset.json").is_file():
        logger.info("drawing 30 phantoms of an abdomen")
        write_phantoms(raw)
    as_found = replace(runtime, fresh=False)  # only the training run is done again
    logger.info("%s", plan_and_preprocess(raw, workspace, runtime=as_found).summary())
    trained = train(raw, "0", workspace, TrainOptions(training=TrainingOptions(seconds=seconds)), runtime)
    options = PredictOptions(surfaces=SurfaceOptions(("stl", "glb")), reference=str(raw / "labelsTs"))
    predicted = predict(raw / "imagesTs", folder / "predictions", trained[0].model, options, as_found)
    return Demo(folder, predicted, time.monotonic() - begun)
