"""Which folds are trained at the same time, on which devices and by how many cores: decided from numbers, before any begins.

A *lane* is a process that trains some folds, one after the other. It pays for starting and settling once. Lanes share the
cores, so a fold gives what it gives alone with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.errors import AutosegError
from planners.cost import count_elements
from planners.plan import Plan

__all__ = ["Lane", "bytes_of_a_fold", "device_names", "how_many_fit", "lanes_of"]

PROCESS_BYTES = 700 * 2**20  # of Python and torch alone
COPIES = 3  # of what is kept for gradients, with gradients, weights, batches made ahead and buffers


@dataclass(frozen=True)
class Lane:
    """Folds in a row on a ``device``, as torch names it, with so many ``threads``; None where a GPU computes."""

    folds: tuple[str, ...]
    device: str
    threads: int | None

    @property
    def name(self) -> str:
        return f"fold{'s' * (len(self.folds) > 1)} {', '.join(self.folds)}"


def device_names(text: str) -> tuple[str, ...]:
    """``cuda:0,cuda:1`` as its devices.

    Raises:
        AutosegError: one is missing, named twice, or of another kind: settings hang on the kind, and folds share them.
    """
    names = tuple(name.strip() for name in text.split(","))
    kinds = {name.partition(":")[0] for name in names}
    if not all(names) or len(set(names)) < len(names) or len(kinds) > 1:
        raise AutosegError(f"--device: expected a device, or several of one kind as cuda:0,cuda:1, each once, found {text!r}")
    return names


def lanes_of(
    folds: Sequence[str], devices: Sequence[str], at_once: int, cores: int, left: Sequence[str] | None = None
) -> tuple[Lane, ...]:
    """The lanes of some folds.

    Args:
        folds: their names.
        devices: to train on; each has a lane at least, as long as there are folds.
        at_once: lanes on all devices together, where that is more.
        cores: of the machine, which lanes on a CPU share.
        left: folds that are to be trained yet; None for all. A fold has the same threads whatever is left.

    Returns:
        Lanes that begin with the first folds; none is longer by more than a fold than another.
    """
    count, todo = min(len(folds), max(at_once, len(devices))), folds if left is None else left
    lanes = []
    for number in range(min(count, len(todo))):
        device = devices[number % len(devices)]
        threads = max(1, cores // count) if device == "cpu" else None
        lanes.append(Lane(tuple(todo[number::count]), device, threads))
    return tuple(lanes)


def bytes_of_a_fold(plan: Plan, batch_size: int, *, half: bool) -> int:
    """Memory that the training of a fold takes, roughly; ``half`` where numbers of two bytes are kept."""
    kept = count_elements(plan.network, plan.patch_size) * batch_size * (2 if half else 4)
    return PROCESS_BYTES + COPIES * kept


def how_many_fit(folds: int, cores: int, free_bytes: int | None, fold_bytes: int) -> int:
    """As many folds as there are cores, and as memory has room for; one at least. ``free_bytes`` None: nobody tells."""
    room = folds if free_bytes is None else free_bytes // fold_bytes
    return max(1, min(folds, cores, room))
