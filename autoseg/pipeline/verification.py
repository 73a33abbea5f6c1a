"""Look through every file of a data set once."""

from __future__ import annotations

from os import PathLike

from autoseg.data.dataset import read_dataset
from autoseg.data.verified import Verified, look_through, store_scans
from autoseg.options import Runtime
from autoseg.room import check_writable
from autoseg.workspace import Workspace

__all__ = ["Verified", "verify"]


def verify(dataset: str | PathLike[str], workspace: Workspace, runtime: Runtime | None = None) -> Verified:
    """Look through every file of a data set once, and store what was found in the workspace.

    Args:
        dataset: folder, or a name or number that the workspace knows.
        workspace: scans of unchanged files are taken from it.
        runtime: where and how; ``fresh`` reads every file again.

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
