"""Verify, measure, plan, prepare: from a raw folder to prepared cases for training."""

from __future__ import annotations

from os import PathLike

from autoseg.data.dataset import read_dataset
from autoseg.options import PlanOptions, Runtime
from autoseg.preprocess.planned import Planned, plan_and_prepare
from autoseg.workspace import Workspace

__all__ = ["Planned", "plan_and_preprocess"]


def plan_and_preprocess(
    dataset: str | PathLike[str], workspace: Workspace, options: PlanOptions | None = None, runtime: Runtime | None = None
) -> Planned:
    """Verify, measure, plan and prepare a data set. Finished steps are not repeated.

    Args:
        dataset: as in ``verify``.
        workspace: for the plans and the prepared cases.
        options: how to plan; a dry run writes nothing.
        runtime: where and how to run; ``fresh`` repeats everything and replaces plans, also edited ones (which are kept as
            NAME.json.old1 and so on).

    Raises:
        DatasetError: the data set has errors (all of them in the message). PlanError: a planner or preset that does not exist.
    """
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    return plan_and_prepare(spec, workspace, options or PlanOptions(), runtime or Runtime())
