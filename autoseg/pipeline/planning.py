"""Verify, measure, plan, prepare: from a raw folder to cases that a network can be trained on."""

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
    """Verify, measure, plan and prepare a data set; what is done already is not repeated.

    Args:
        dataset: as in ``verify``.
        workspace: for the plans and the prepared cases.
        options: how to plan; a dry run writes nothing.
        runtime: where and how; ``fresh`` does everything again, in place of plans that were edited too (they stay as
            NAME.json.old1 and so on).

    Raises:
        DatasetError: the data set has errors (all of them in the message). PlanError: a planner or preset that does not exist.
    """
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    return plan_and_prepare(spec, workspace, options or PlanOptions(), runtime or Runtime())
