"""The whole road on made-up scans."""

import time
from dataclasses import dataclass
from pathlib import Path

from autoseg.options import PredictOptions, Runtime, SurfaceOptions
from autoseg.phantoms import write_phantoms
from autoseg.pipeline.prediction import Predicted, predict
from autoseg.pipeline.prepare import plan_and_preprocess
from autoseg.pipeline.quiet import mute, silent
from autoseg.pipeline.training import train
from autoseg.workspace import Workspace

__all__ = ["Demo", "demo"]


@dataclass(frozen=True)
class Demo:
    """Where the demo's files lie, and how well it did on scans it had not seen."""

    folder: Path
    predicted: Predicted
    seconds: float

    @property
    def failures(self):
        return self.predicted.failures

    def summary(self):
        return (
            f"{self.predicted.report.table()}\n\n"
            f"scans and labels   {self.folder / 'Dataset900_Phantoms'}\n"
            f"plan, run, model   {self.folder / 'workspace'}\n"
            f"masks and metrics  {self.predicted.folder}\n"
            f"surfaces           {self.predicted.folder / 'CASE_surfaces'} (STL; GLB opens in any 3D viewer)\n"
            f"measurements       {self.predicted.folder / 'measurements.csv'}\n"
            f"page to look at    {self.predicted.folder / 'report.html'}\n"
            f"{self.seconds:.0f} s in all"
        )


def demo(folder, *, seconds=120.0, device="auto", fresh=False, say=mute, progress=silent):
    """Made-up scans, planned, trained and predicted; the way a user's own data would go.

    Args:
        folder: for everything it makes; an unfinished demo there is continued.
        seconds: length of the training.
        fresh: train anew, whatever is there.

    Returns:
        Demo
    """
    begun = time.monotonic()
    folder = Path(folder).absolute()
    raw, workspace = folder / "Dataset900_Phantoms", Workspace(folder / "workspace")
    if not (raw / "dataset.json").is_file():
        say("drawing 30 phantoms of an abdomen")
        write_phantoms(raw)
    planned = plan_and_preprocess(raw, workspace, say=say, progress=progress)
    say(planned.summary())
    trained = train(raw, "0", workspace, seconds=seconds, device=device, fresh=fresh, say=say, progress=progress)
    predicted = predict(
        raw / "imagesTs",
        folder / "predictions",
        trained[0].model,
        PredictOptions(surfaces=SurfaceOptions(("stl", "glb")), reference=str(raw / "labelsTs")),
        Runtime(device=device, progress=progress),
    )
    return Demo(folder, predicted, time.monotonic() - begun)
