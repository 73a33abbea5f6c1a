"""Decides before training which folds are trained at the same time, on which devices and with how many cores.

A *lane* is a process that trains some folds, one after the other. So starting and settling happen once per lane. Lanes divide
the cores; a fold gives the same result as alone with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.errors import AutosegError
from planners.cost import count_elements
from planners.plan import Plan

__all__ = ["Lane", "bytes_of_a_fold", "device_names", "how_many_fit", "lanes_of"]

PROCESS_BYTES = 700 * 2**20  # Python and torch alone
COPIES = 3  # factor on the feature maps kept for gradients; covers gradients, weights, batches made in advance and buffers


@dataclass(frozen=True)
class Lane:
    """Folds to train one after the other on a ``device`` (torch name), with ``threads`` threads; None on a GPU."""

    folds: tuple[str, ...]
    device: str
    threads: int | None

    @property
    def name(self) -> str:
        return f"fold{'s' * (len(self.folds) > 1)} {', '.join(self.folds)}"


def device_names(text: str) -> tuple[str, ...]:
    """The devices in a text such as ``cuda:0,cuda:1``.

    Raises:
        AutosegError: a device is missing, named twice, or of another kind. All folds share settings that depend on the kind.
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
        folds: names of all folds.
        devices: devices to train on; each has at least one lane, as long as there are folds.
        at_once: number of lanes on all devices together, if that is more.
        cores: cores of the machine, which lanes on a CPU divide.
        left: folds that are not trained yet; None for all. The threads of a fold do not depend on it.

    Returns:
        Lanes, beginning with the first folds. Their lengths differ by at most one fold.
    """
    count, todo = min(len(folds), max(at_once, len(devices))), folds if left is None else left
    lanes = []
    for number in range(min(count, len(todo))):
        device = devices[number % len(devices)]
        threads = max(1, cores // count) if device == "cpu" else None
        lanes.append(Lane(tuple(todo[number::count]), device, threads))
    return tuple(lanes)


def bytes_of_a_fold(plan: Plan, batch_size: int, *, half: bool) -> int:
    """Approximate memory for training a fold; ``half`` if feature maps have two bytes per number."""
    kept = count_elements(plan.network, plan.patch_size) * batch_size * (2 if half else 4)
    return PROCESS_BYTES + COPIES * kept


def how_many_fit(folds: int, cores: int, free_bytes: int | None, fold_bytes: int) -> int:
    """Number of folds that fit: at most one per core, as memory allows, at least one. ``free_bytes`` is None if unknown."""
    room = folds if free_bytes is None else free_bytes // fold_bytes
    return max(1, min(folds, cores, room))
