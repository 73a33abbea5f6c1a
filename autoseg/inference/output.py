"""What an output of a prediction has to offer, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from autoseg.data.dataset import Case
from autoseg.inference.inferred import Inferred, ModelFacts

__all__ = ["Output", "Written"]


@dataclass(frozen=True)
class Written:
    """What an output wrote for a case: the ``files``, and a ``record`` added to ``CASE.json``."""

    files: tuple[Path, ...]
    record: dict[str, Any] = field(default_factory=dict)


class Output(Protocol):
    """One kind of result; a frozen value, so that it is pickled with the step.

    Attributes:
        name: key in the registry ``OUTPUTS``.
        suffixes: its files, or folders of files, are named CASE + suffix in the output folder.
        identity: JSON that its files depend on, merged with that of the other outputs; if it changes, the case is repeated.
            Empty if the files depend only on the model and the inference options.
    """

    @property
    def name(self) -> str: ...

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    @property
    def identity(self) -> dict[str, Any]: ...

    def check(self, model: ModelFacts) -> None:
        """Raise AutosegError, before the first case, if the model cannot give such a result."""

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        """Write the files of a case, in a thread. An exception becomes the failure of the case."""
