"""What one step of a training run learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Batch", "Lesson"]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What teaches the restoration of images.

    Attributes:
        degraded: (B, C, z, y, x) images, degraded.
        clean: the same before they were degraded, in [0, 1], NaN beyond the scan.
        slices: (B, 3) how many voxels their slices are thick along (z, y, x).
    """

    degraded: torch.Tensor
    clean: torch.Tensor
    slices: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.degraded, self.clean, self.slices


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one step.

    Attributes:
        images: (B, C, Z, Y, X) float32.
        codes: (B, Z, Y, X) int16 label codes.
        lesson: in the steps that teach restoration.
        unlabelled: (B, structures) bool, those that nobody annotated in the case of a sample; None where no case lacks any.
    """

    images: torch.Tensor
    codes: torch.Tensor
    lesson: Lesson | None = None
    unlabelled: torch.Tensor | None = None

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them, always in the same order."""
        lacking = () if self.unlabelled is None else (self.unlabelled,)
        return self.images, self.codes, *lacking, *(self.lesson.tensors if self.lesson else ())

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with every tensor changed."""
        images, codes, *others = map(change, self.tensors)
        lacking = None if self.unlabelled is None else others.pop(0)
        return Batch(images, codes, Lesson(*others) if others else None, lacking)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; the caller does not wait for the copies."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))
