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
    """

    images: torch.Tensor
    codes: torch.Tensor
    lesson: Lesson | None = None

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them, always in the same order."""
        return self.images, self.codes, *(self.lesson.tensors if self.lesson else ())

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with every tensor changed."""
        images, codes, *lesson = map(change, self.tensors)
        return Batch(images, codes, Lesson(*lesson) if lesson else None)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; the caller does not wait for the copies."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))
