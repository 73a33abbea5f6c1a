"""``CASE.json``: the results for one case, the input files, and the method."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.data.unlike import Unlike
from autoseg.errors import AutosegError
from autoseg.workspace import read_record
from planners.records import OPTIONAL, REST

__all__ = ["CaseRecord", "read_case"]


@dataclass(frozen=True)
class CaseRecord:
    """A case that was predicted, or a label map that was reconstructed.

    Attributes:
        made_by: the command, such as ``autoseg predict``.
        case: name of the case.
        source: name of the label map, in older versions its path; '' for a prediction.
        identity: everything that the files depend on, as JSON.
        state: ``writing`` or ``done``.
        outputs: digest of each file by its path within the folder; None for a file that was planned but not written.
        labels: the label values of each structure, one or several.
        seconds: by step, such as ``infer``.
        notes: sentences for the reader.
        warnings: sentences on why a prediction should be reviewed.
        unlike: how the scan differs from the training scans of the model; None if the model does not record them.
        device, precision: device and number format of the networks.
        measurements: a dictionary for each structure: its name as ``structure``, and its measurements.
        borders: a dictionary for each pair of structures that touch, if surfaces were made: their names ``first`` and
            ``second``, and gap and overlap of their surfaces.
        more: additional entries, by the name of their output.
    """

    made_by: str = field(default="", metadata=OPTIONAL)
    case: str = field(default="", metadata=OPTIONAL)
    source: str = field(default="", metadata=OPTIONAL)
    identity: Any = field(default=None, metadata=OPTIONAL)
    state: str = field(default="", metadata=OPTIONAL)
    outputs: dict[str, str | None] = field(default_factory=dict, metadata=OPTIONAL)
    labels: dict[str, int | tuple[int, ...]] = field(default_factory=dict, metadata=OPTIONAL)
    seconds: dict[str, float] = field(default_factory=dict, metadata=OPTIONAL)
    notes: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    warnings: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    unlike: tuple[Unlike, ...] | None = field(default=None, metadata=OPTIONAL)
    device: str = field(default="", metadata=OPTIONAL)
    precision: str = field(default="", metadata=OPTIONAL)
    measurements: tuple[dict[str, Any], ...] = field(default=(), metadata=OPTIONAL)
    borders: tuple[dict[str, Any], ...] = field(default=(), metadata=OPTIONAL)
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)

    @property
    def is_done(self) -> bool:
        return self.state == "done"

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """``labels`` with a tuple of values for each structure."""
        return {name: values if isinstance(values, tuple) else (values,) for name, values in self.labels.items()}

    @property
    def agreement(self) -> dict[str, float | None]:
        """Inter-fold Dice of each structure; {} if it was not measured."""
        found = {str(one.get("structure")): one.get("fold_agreement") for one in self.measurements}
        return found if any(dice is not None for dice in found.values()) else {}

    @property
    def inputs(self) -> dict[str, str]:
        """Digest of each file that the case was made from, by its name."""
        about = self.identity if isinstance(self.identity, dict) else {}
        files = about.get("inputs") or [about.get("input")]
        return {str(one.get("file")): str(one.get("digest")) for one in files if isinstance(one, dict)}


def read_case(path: Path) -> CaseRecord | None:
    """The record in a ``CASE.json``; None if the file does not exist or autoseg did not write it."""
    try:
        return read_record(CaseRecord, path, strict=False) if path.is_file() else None
    except AutosegError:
        return None
