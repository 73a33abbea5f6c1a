"""Out-of-memory errors with a remedy: before the training run if it is certain not to fit, else when it happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from autoseg.errors import TrainingError
from autoseg.room import is_want_of_memory, memory_limit, out_of_memory
from planners.cost import count_elements
from planners.plan import NetworkSpec

__all__ = ["refuse_too_large", "told_when_short_of_memory"]

REMEDY = (
    "Train with --set batch_size=1, or on a CPU with a smaller --set cpu_width, take another network, or plan smaller "
    "patches (autoseg plan_and_preprocess --memory-gb X, or patch_size in the plan file)"
)


def refuse_too_large(
    spec: NetworkSpec, patch: Sequence[int], batch_size: int, device: torch.device, *, bf16: bool = True
) -> None:
    """Raise TrainingError if the feature maps that a batch keeps for its gradients alone exceed the memory.

    The limit is the total memory of the device, so a batch that passes may still be too large.

    Args:
        spec: NetworkSpec.
        patch: (z, y, x) voxels.
        batch_size: patches at once.
        device: torch.device.
        bf16: whether feature maps may be kept in two bytes per number.
    """
    there = _bytes_of(device)
    least = count_elements(spec, patch) * batch_size * (2 if bf16 else 4)
    if there is not None and least > there:
        size = " x ".join(map(str, patch))
        raise TrainingError(
            f"{spec.name} on patches of {size}, {batch_size} at once, needs at least {least / 2**30:.1f} GiB; "
            f"{device} has {there / 2**30:.1f}.\n{REMEDY}"
        )


def _bytes_of(device: torch.device) -> int | None:
    """Memory of a device in bytes; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_limit()


@contextmanager
def told_when_short_of_memory() -> Iterator[None]:
    """Turn every kind of out-of-memory error into a TrainingError with a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not is_want_of_memory(fault):
            raise
        raise TrainingError(f"{out_of_memory(fault)}\n{REMEDY}") from fault
