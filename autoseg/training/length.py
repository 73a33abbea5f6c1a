"""The length of a training run, in seconds or in steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autoseg.names import counted

__all__ = ["Length"]


class Progress(Protocol):
    """Progress of a training run: ``step`` steps are done, which took ``seconds``."""

    @property
    def step(self) -> int: ...

    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True)
class Length:
    """How long to train: ``seconds`` or ``steps``; the other one is None."""

    seconds: float | None = None
    steps: int | None = None

    def fraction(self, state: Progress) -> float:
        """Fraction of the length that is used up."""
        if self.steps:
            return state.step / self.steps
        assert self.seconds, "a length has steps or seconds"
        return state.seconds / self.seconds

    def __str__(self) -> str:
        return f"{self.seconds / 60:.3g} min" if self.seconds else counted(self.steps or 0, "step")
