"""A want of memory, as an error with its remedy: before the training where it is certain, else when it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from autoseg.errors import TrainingError
from autoseg.room import as_size, free_memory, is_want_of_memory, memory_limit
from planners.cost import count_elements
from planners.plan import NetworkSpec

__all__ = ["refuse_too_large", "told_when_short_of_memory"]

REMEDY = (
    "Train with --set batch_size=1, or on a CPU with a smaller --set cpu_width, take another --network, or plan smaller "
    "patches (autoseg plan_and_preprocess --memory-gb X, or patch_size in the plan file)"
)


def refuse_too_large(
    spec: NetworkSpec, patch: Sequence[int], batch_size: int, device: torch.device, *, bf16: bool = True
) -> None:
    """Raise TrainingError where a batch cannot fit, even if nothing but what is kept for its gradients were in memory.

    The memory of the device is taken whole, so what is let through may still be too large.

    Args:
        spec: NetworkSpec.
        patch: (z, y, x) voxels.
        batch_size: patches at once.
        device: torch.device.
        bf16: whether numbers of two bytes may be kept.
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
    """Memory of a device; None where it cannot be asked."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_limit()


@contextmanager
def told_when_short_of_memory() -> Iterator[None]:
    """Whatever kind of error says that memory is short becomes a TrainingError with what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not is_want_of_memory(fault):
            raise
        line, free = (str(fault).splitlines() or ["no more memory"])[0], free_memory()
        there = "" if free is None else f"; the machine has {as_size(free)} free"
        raise TrainingError(f"out of memory: {line}{there}\n{REMEDY}") from fault
