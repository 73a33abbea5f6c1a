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
from autoseg.inference.cohort import Written
from autoseg.inference.inferred import Inferred, ModelFacts

__all__ = ["DicomResult", "refuse_other_scans"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomResult:
    """``CASE_KIND.dcm`` of a ``name`` that is a key of ``DICOM_RESULTS``; ``KIND_notes`` in the record where values of the
    images' headers had to be left empty."""

    name: str

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (f"_{self.name}.dcm",)

    @property
    def identity(self) -> dict[str, Any]:
        return {"export": {self.name: {}}}

    def check(self, model: ModelFacts) -> None:
        """AutosegError where the optional packages are missing."""
        self._writer()

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        refuse_other_scans([self.name], [case])
        path, series, model = folder / f"{case.id}_{self.name}.dcm", case.images[0], found.model
        notes = self._writer()(
            path,
            series,
            found.labels,
            structures=dict(zip(model.labels.structures, model.labels.values, strict=True)),
            model=f"{Path(model.name).name} {model.digest}",
            version=__version__,
        )
        for note in notes or ():
            logger.warning("%s, %s: %s", case.id, self.name, note)
        return Written((path,), {f"{self.name}_notes": notes} if notes else {})

    def _writer(self) -> Callable[..., Any]:
        try:
            return DICOM_RESULTS[self.name]
        except ImportError as error:
            raise AutosegError(f"{error.name} is not installed, and DICOM needs it: pip install autoseg[dicom]") from error


def refuse_other_scans(kinds: Iterable[str], cases: Iterable[Case]) -> None:
    """AutosegError where results that refer to DICOM images are asked for, and a scan did not come as DICOM."""
    wanted = [kind for kind in kinds if kind in DICOM_RESULTS]
    others = [case.id for case in cases if not isinstance(case.images[0], DicomSeries)] if wanted else []
    if others:
        raise AutosegError(
            f"--write {','.join(wanted)}: such results refer to the DICOM images of a scan, and {others[0]} did not come as "
            "DICOM. Give the folder of its series as input, or leave --write out"
        )
