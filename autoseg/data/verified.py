"""A data set after verification: the scans of its cases and the findings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.data.check import Finding, check_dataset
from autoseg.data.dataset import DatasetSpec
from autoseg.data.findings import findings_table
from autoseg.data.scan import CaseScan, scan_dataset
from autoseg.errors import AutosegError, DatasetError
from autoseg.options import Runtime
from autoseg.workspace import Workspace, read_json, write_json
from planners.records import RecordError, from_json

__all__ = ["Verified", "known_scans", "look_through", "store_scans"]


@dataclass(frozen=True)
class Verified:
    """A verified data set: the scan of every case, and all findings."""

    dataset: DatasetSpec
    scans: tuple[CaseScan, ...]
    findings: tuple[Finding, ...]

    def refuse_errors(self) -> None:
        """Raise DatasetError with all findings that are errors, if there are any."""
        errors = [finding for finding in self.findings if finding.severity == "error"]
        if errors:
            table = findings_table(errors)
            raise DatasetError(f"{self.dataset.folder} has {len(errors)} errors; nothing was written\n{table}")


def look_through(spec: DatasetSpec, workspace: Workspace, runtime: Runtime) -> Verified:
    """The scans and findings of a data set; nothing is written.

    Args:
        workspace: scans of unchanged files are reused from it.
        runtime: where and how; ``fresh`` reads every file again.
    """
    known = () if runtime.fresh else known_scans(workspace.fingerprints(spec.name) / "scan.json")
    on_done = runtime.progress("verify", len(spec.training))
    scans = scan_dataset(spec, workers=runtime.workers, known=known, on_done=on_done)
    return Verified(spec, scans, check_dataset(spec, scans))


def store_scans(verified: Verified, workspace: Workspace) -> None:
    """Write scans and findings to the workspace, for ``look_through`` and the user."""
    folder = workspace.fingerprints(verified.dataset.name)
    write_json(folder / "scan.json", {"cases": verified.scans}, seal=True, dense=True)
    write_json(folder / "findings.json", verified.findings)


def known_scans(path: Path) -> tuple[CaseScan, ...]:
    """The scans in a ``scan.json``, () if it is missing or damaged."""
    if not path.is_file():
        return ()
    try:
        found = read_json(path)
        return tuple(from_json(CaseScan, scan) for scan in (found["cases"] if isinstance(found, dict) else found))
    except (RecordError, AutosegError, KeyError, TypeError):
        return ()  # damaged, or written by a version with other records: scan again
