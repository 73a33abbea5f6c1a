"""The batch of one training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Batch", "Lesson"]


@dataclass(frozen=True, eq=False)
class Lesson:
    """Training samples for the restoration of images.

    Attributes:
        degraded: (B, C, z, y, x) images, degraded.
        clean: the same images before degradation, in [0, 1], NaN outside the scan.
        slices: (B, 3) slice thickness along (z, y, x), in voxels.
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
        lesson: restoration samples, in the steps that train restoration.
        unlabelled: (B, structures) bool, the structures not annotated in the case of a sample; None if all are annotated.
    """

    images: torch.Tensor
    codes: torch.Tensor
    lesson: Lesson | None = None
    unlabelled: torch.Tensor | None = None

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All tensors, always in the same order."""
        lacking = () if self.unlabelled is None else (self.unlabelled,)
        return self.images, self.codes, *lacking, *(self.lesson.tensors if self.lesson else ())

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with ``change`` applied to every tensor."""
        images, codes, *others = map(change, self.tensors)
        lacking = None if self.unlabelled is None else others.pop(0)
        return Batch(images, codes, Lesson(*others) if others else None, lacking)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device. The copies are asynchronous."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))
