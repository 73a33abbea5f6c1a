"""``CASE.json``: what was made of one case, of which files, and how."""

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
        case: its name.
        source: name of the label map, in older versions its path; '' for a prediction.
        identity: all that the files depend on, as JSON.
        state: ``writing`` or ``done``.
        outputs: digest of each file by its path within the folder; None for one that was only planned.
        labels: the label values of each structure, one or several.
        seconds: by step, such as ``infer``.
        notes: sentences for people.
        warnings: sentences on why a prediction deserves a look.
        unlike: in what the scan is unlike those that the model learned from; None where the model does not say.
        device, precision: that the networks worked on and in.
        measurements: a dictionary for each structure: ``structure``, its name, and what was measured of it.
        borders: a dictionary for each pair of structures that touch, where surfaces were made: their names ``first`` and
            ``second``, and gap and overlap of their surfaces.
        more: what else was said, by the name of the output that it is about.
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
        """Inter-fold Dice of each structure, {} where it was not measured."""
        found = {str(one.get("structure")): one.get("fold_agreement") for one in self.measurements}
        return found if any(dice is not None for dice in found.values()) else {}

    @property
    def inputs(self) -> dict[str, str]:
        """Digest of each file that the case was made from, by its name."""
        about = self.identity if isinstance(self.identity, dict) else {}
        files = about.get("inputs") or [about.get("input")]
        return {str(one.get("file")): str(one.get("digest")) for one in files if isinstance(one, dict)}


def read_case(path: Path) -> CaseRecord | None:
    """The record in a ``CASE.json``; None where there is no such file, or it is none of ours."""
    try:
        return read_record(CaseRecord, path, strict=False) if path.is_file() else None
    except AutosegError:
        return None
