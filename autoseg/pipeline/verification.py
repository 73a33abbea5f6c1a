"""Read and check every file of a data set once."""

from __future__ import annotations

from os import PathLike

from autoseg.data.dataset import read_dataset
from autoseg.data.verified import Verified, look_through, store_scans
from autoseg.options import Runtime
from autoseg.room import check_writable
from autoseg.workspace import Workspace

__all__ = ["Verified", "verify"]


def verify(dataset: str | PathLike[str], workspace: Workspace, runtime: Runtime | None = None) -> Verified:
    """Read and check every file of a data set once, and store the result in the workspace.

    Args:
        dataset: folder, or a name or number known to the workspace.
        workspace: for the results. Stored results for unchanged files are reused.
        runtime: where and how to run; ``fresh`` reads every file again.

    Raises:
        DatasetError: no such data set, or its dataset.json is wrong. Defects of cases are findings, not errors.
    """
    spec = read_dataset(workspace.dataset_folder(str(dataset)))
    check_writable(workspace.folder)
    workspace.refuse_other_dataset(spec.folder, spec.name)
    verified = look_through(spec, workspace, runtime or Runtime())
    workspace.remember_dataset(spec.folder, spec.name)
    store_scans(verified, workspace)
    return verified
