"""Cross-validate configurations, choose the best, and write one model."""

from __future__ import annotations

from os import PathLike

from autoseg.methods.model import tell_methods
from autoseg.options import Runtime, StudyOptions
from autoseg.pipeline.reporting import try_report
from autoseg.studies.study import Studied, run_study
from autoseg.workspace import Workspace

__all__ = ["Studied", "study"]


def study(
    dataset: str | PathLike[str], workspace: Workspace, options: StudyOptions | None = None, runtime: Runtime | None = None
) -> Studied:
    """Cross-validate configurations, choose the best, and write one model. The same call continues.

    Args:
        dataset: as in ``verify``. Planning and preparation are done first if necessary.
        workspace: for the runs, the model, and the study's tables and HTML report.
        options: which configurations, and how they are trained.
        runtime: where and how to run; ``fresh`` trains and decides everything again.

    Returns:
        Studied. It names configurations that failed; the study continues with the others.

    Raises:
        AutosegError: the call or the data set is wrong, or a study of this name has other settings. Nothing was trained.
            TrainingError: no configuration could be trained.
    """
    runtime = runtime or Runtime()
    studied = run_study(dataset, workspace, options or StudyOptions(), runtime)
    try_report(studied.folder, runtime=Runtime(workers=runtime.workers, fresh=runtime.fresh))
    tell_methods(studied.model)
    return studied
