"""Voxels for calibration: ``CASE_calibration.npz`` with logits and codes of some voxels in and around the structures of a case.

They are drawn on the network's grid, also the grid of prepared cases, from a box around all structures in the reference
or the prediction. Elsewhere predictions are certain, and voxels from there would only make the error look small.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.atomic import replacing
from autoseg.data.dataset import Case
from autoseg.data.labels import LabelSchema
from autoseg.errors import FileError
from autoseg.evaluation.calibration import Samples
from autoseg.imaging.files import read_label_volume
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written
from autoseg.preprocess.store import open_case
from autoseg.reconstruct.confidence import votes_of

__all__ = ["CalibrationSamples", "read_samples"]

SUFFIX = "_calibration.npz"
MOST_VOXELS, MOST_NUMBERS = 20_000, 400_000  # per case
AROUND = 5  # voxels


@dataclass(frozen=True)
class CalibrationSamples:
    """Draws some voxels of each case.

    ``prepared`` is the folder of the prepared cases; None to draw on the scan's grid, from the label map of the case.
    """

    prepared: Path | None
    name = "calibration"
    suffixes = (SUFFIX,)

    @property
    def identity(self) -> dict[str, Any]:
        return {}

    def check(self, model: ModelFacts) -> None:
        """Every model has logits."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        codes, logits = self._codes(case, found), found.answer.logits
        if codes.shape != logits.shape[1:]:
            raise FileError(
                f"case {case.id!r}: prepared as {codes.shape} voxels, predicted as {logits.shape[1:]}. Prepare it again"
            )
        guess = votes_of(logits, has_regions=found.model.labels.has_regions)
        inside = (codes > 0) | ((guess > 0).any(axis=0) if guess.ndim == 4 else guess > 0)
        counted = np.zeros(codes.shape, bool)
        if inside.any():
            box = tuple(slice(max(0, int(i.min()) - AROUND), int(i.max()) + AROUND + 1) for i in np.nonzero(inside))
            counted[box] = codes[box] >= 0
        voxels = np.flatnonzero(counted & (not case.unlabelled))  # with unlabelled structures, background is not known
        most = min(MOST_VOXELS, MOST_NUMBERS // len(logits))
        if len(voxels) > most:
            rng = np.random.default_rng(zlib.crc32(case.id.encode()))
            voxels = np.sort(rng.choice(voxels, most, replace=False))
        drawn = np.asarray(logits.reshape(len(logits), -1)[:, voxels], np.float32).T
        path = folder / f"{case.id}{SUFFIX}"
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez_compressed(file, logits=drawn, codes=codes.ravel()[voxels].astype(np.int16))
        return Written((path,))

    def _codes(self, case: Case, found: Inferred) -> np.ndarray:
        if self.prepared is not None:
            return open_case(self.prepared / case.id).codes[:]
        if case.label is None:
            raise FileError(f"case {case.id!r}: no label map to calibrate by. Leave the case out")
        return found.model.labels.encode(read_label_volume(case.label, onto=found.prepared.native).data)


def read_samples(folder: Path, case: str, labels: LabelSchema) -> Samples:
    """Read the voxels drawn from a case.

    Raises:
        FileError: no such file, or it is of another model.
    """
    path = folder / f"{case}{SUFFIX}"
    try:
        with np.load(path, allow_pickle=False) as stored:
            logits, codes = stored["logits"], stored["codes"]
    except (OSError, ValueError, KeyError) as fault:
        raise FileError(
            f"{path}: no voxels to calibrate by: {fault}. Give the training command again, which repeats no step"
        ) from fault
    if logits.ndim != 2 or logits.shape != (len(codes), labels.n_heads):
        raise FileError(f"{path}: expected {labels.n_heads} logits a voxel, found {logits.shape}. Repeat it with --fresh")
    members = labels.structure_codes if labels.has_regions else [(code,) for code in range(labels.n_heads)]
    truth = np.stack([np.isin(codes, group) for group in members], axis=1)
    return Samples(logits, truth, labels.has_regions)
