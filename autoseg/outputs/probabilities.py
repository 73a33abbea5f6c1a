"""Probabilities: ``CASE_probabilities.npz`` with the array ``probabilities``, (K, Z, Y, X) float16, no pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.atomic import replacing
from autoseg.data.dataset import Case
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written

__all__ = ["Probabilities"]

SUFFIX = "_probabilities.npz"


@dataclass(frozen=True)
class Probabilities:
    """The probability of every structure in every voxel, on the grid of the scan."""

    name = "probabilities"
    suffixes = (SUFFIX,)

    @property
    def identity(self) -> dict[str, Any]:
        return {"probabilities": True}

    def check(self, model: ModelFacts) -> None:
        """Every model has probabilities."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        path = folder / f"{case.id}{SUFFIX}"
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez_compressed(file, probabilities=found.probabilities())
        return Written((path,))
