"""DICOM results beside the labels, for scans that came as DICOM."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import __version__
from autoseg.data.dataset import Case
from autoseg.errors import AutosegError
from autoseg.imaging.dicom_results import DICOM_RESULTS
from autoseg.imaging.dicom_series import DicomSeries
from autoseg.imaging.mesh import file_names
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written

__all__ = ["DicomResult", "refuse_other_scans"]

EACH = "_each"  # suffix of a kind with one object for each structure
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomResult:
    """``CASE_KIND.dcm`` for a ``kind`` that is a key of ``DICOM_RESULTS``. The record has ``KIND_notes`` if header values of
    the images had to be left empty.

    Attributes:
        kind: kind of the object.
        each: one object for each structure, ``CASE_KIND/STRUCTURE.dcm``. SimpleITK reads the grid only of such objects.
    """

    kind: str
    each: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}{EACH if self.each else ''}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (f"_{self.kind}" if self.each else f"_{self.kind}.dcm",)

    @property
    def identity(self) -> dict[str, Any]:
        return {"export": {self.name: {}}}

    def check(self, model: ModelFacts) -> None:
        """AutosegError if the optional packages are missing."""
        self._writer()

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        refuse_other_scans([self.name], [case])
        model, groups = found.model, found.model.labels.groups
        objects = {folder / f"{case.id}{self.suffixes[0]}": groups}
        if self.each:
            names = zip(groups, file_names(groups), strict=True)
            objects = {folder / f"{case.id}_{self.kind}" / f"{file}.dcm": {name: groups[name]} for name, file in names}
        write, by, notes = self._writer(), f"{Path(model.name).name} {model.digest}", dict[str, None]()
        for path, structures in objects.items():
            said = write(path, case.images[0], found.labels, structures=structures, model=by, version=__version__)
            notes |= dict.fromkeys(said or ())
        for note in notes:
            logger.warning("%s, %s: %s", case.id, self.name, note)
        return Written(tuple(objects), {f"{self.name}_notes": tuple(notes)} if notes else {})

    def _writer(self) -> Callable[..., Any]:
        try:
            return DICOM_RESULTS[self.kind]
        except ImportError as error:
            raise AutosegError(f"{error.name} is not installed, and DICOM needs it: pip install {error.name}") from error


def refuse_other_scans(kinds: Iterable[str], cases: Iterable[Case]) -> None:
    """AutosegError if DICOM results are requested and a scan is not DICOM, because they refer to DICOM images."""
    wanted = [kind for kind in kinds if kind.removesuffix(EACH) in DICOM_RESULTS]
    others = [case.id for case in cases if not isinstance(case.images[0], DicomSeries)] if wanted else []
    if others:
        raise AutosegError(
            f"--write {','.join(wanted)}: such results refer to the DICOM images of a scan, and {others[0]} did not come as "
            "DICOM. Give the folder of its series as input, or leave --write out"
        )
