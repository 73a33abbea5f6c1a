"""Which windows of a volume are computed if not all are.

The *grid* consists of all overlapping windows. The *first pass* is the smallest set of them that covers the volume, side by
side; along each axis they overlap where the last one would end outside. Each voxel belongs to the *cell* of the window with the
nearest centre; if windows overlap by half, cells are the middle halves of windows.

A voxel is in *doubt* after the first pass if the margin of its decision is small, if it is at a border between decisions, if
two windows decide differently, or if the margin jumps at a *seam*, where one window ends and the next begins. A window is
*refined*, in all mirrored views, if there is doubt in its cell or within ``halo`` of it. So at window borders, where
predictions are least reliable, results are kept only if the windows agree, are confident and show no border.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from autoseg.names import counted

__all__ = ["LARGEST_DIFFERENCE", "AdaptiveWindows", "Doubt", "Votes", "WindowGrid", "decide", "strictest"]

LARGEST_DIFFERENCE = 0.0005  # of Dice; below it, a model proposes adaptive windows by itself
_NOBODY = -1  # code of a voxel that no window has decided


@dataclass(frozen=True)
class Doubt:
    """Where the first pass is not trusted.

    Attributes:
        margin: smallest trusted difference between the winning logit and the next; for regions, between a logit and 0.
        jump: largest trusted difference between the margins on both sides of a seam.
        halo: distance from its cell at which doubt still causes a window to be computed, as a fraction of the window, >= 0.
    """

    margin: float
    jump: float
    halo: float

    def __post_init__(self) -> None:
        if min(self.margin, self.jump, self.halo) < 0:
            raise ValueError(f"margin, jump and halo must be 0 or more, found {self}")


@dataclass(frozen=True)
class AdaptiveWindows:
    """The Doubt calibrated for a model, and its effect compared with all windows.

    Attributes:
        doubt: what to trust.
        step: tile step of the calibration.
        cases: number of cases in the calibration.
        computed, of: computed tiles (windows, in each view) of these cases, and all their tiles.
        difference: {structure: 1 minus the Dice of both masks, mean over the cases}; without structures absent in all cases.
    """

    doubt: Doubt
    step: float
    cases: int
    computed: int
    of: int
    difference: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        largest = max(self.difference.values(), default=None)
        told = "no structure found" if largest is None else f"largest difference of a structure {largest:.5f} of Dice"
        return f"{self.computed} of {self.of} tiles on {counted(self.cases, 'case')}, {told}"

    def summary(self, structures: Sequence[str]) -> str:
        """A readable summary with the difference of each structure."""
        rows = [f"  {name}: {value:.5f}" for name, value in self.difference.items()]
        unseen = [name for name in structures if name not in self.difference]
        told = [f"in none of these scans, so nothing is known about them: {', '.join(unseen)}"] if unseen else []
        default = "by default" if self.is_trusted(structures) else "only with autoseg predict --windows adaptive"
        return "\n".join([str(self), *rows, *told, f"used {default}"])

    def is_trusted(self, structures: Iterable[str]) -> bool:
        """Whether each structure was found, and differed by less than ``LARGEST_DIFFERENCE``."""
        return all(self.difference.get(name, 1.0) < LARGEST_DIFFERENCE for name in structures)


def strictest(found: Sequence[AdaptiveWindows]) -> AdaptiveWindows:
    """What several folds all trust. Counts are added; differences are the largest ones."""
    doubts = [one.doubt for one in found]
    names = [name for name in found[0].difference if all(name in one.difference for one in found)]
    return AdaptiveWindows(
        Doubt(max(d.margin for d in doubts), min(d.jump for d in doubts), max(d.halo for d in doubts)),
        step=found[0].step,
        cases=sum(one.cases for one in found),
        computed=sum(one.computed for one in found),
        of=sum(one.of for one in found),
        difference={name: max(one.difference[name] for one in found) for name in names},
    )


@dataclass(frozen=True)
class WindowGrid:
    """Overlapping windows that cover a volume.

    Attributes:
        shape: (z, y, x) voxels of the volume; no edge is shorter than the window's.
        patch: (z, y, x) voxels of a window.
        starts: for each axis, the first voxels of the windows, ascending. Windows are numbered with the last axis fastest.
    """

    shape: tuple[int, ...]
    patch: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Windows along each axis."""
        return tuple(len(starts) for starts in self.starts)

    def first_pass(self) -> np.ndarray:
        """Bool for each window, (z, y, x): the smallest set that covers every voxel, with the first and last per axis."""
        chosen = [np.isin(np.arange(n), self._taken(axis)) for axis, n in enumerate(self.size)]
        return np.asarray(np.einsum("i,j,k->ijk", *chosen))

    def _taken(self, axis: int) -> list[int]:
        """Numbers of the first-pass windows along an axis, each as far from the previous one as possible without a gap."""
        starts, taken = self.starts[axis], [0]
        while taken[-1] < len(starts) - 1:
            reached = starts[taken[-1]] + self.patch[axis]
            taken.append(max(i for i, start in enumerate(starts) if start <= reached))
        return taken

    def seams(self, axis: int) -> list[int]:
        """The voxels before which a first-pass window begins or ends, except at the border of the volume."""
        firsts = [self.starts[axis][i] for i in self._taken(axis)]
        found = {*firsts, *(start + self.patch[axis] for start in firsts)}
        return sorted(found - {0, self.shape[axis]})

    def reaches(self, axis: int, halo: float) -> list[tuple[int, int]]:
        """(first voxel, end) of the cell of each window along an axis, including the halo, limited to the window."""
        starts, edge = self.starts[axis], self.patch[axis]
        between = [-(-(a + b + edge - 1) // 2) for a, b in itertools.pairwise(starts)]
        cells = itertools.pairwise([0, *between, self.shape[axis]])
        more = round(halo * edge)
        pairs = zip(cells, starts, strict=True)
        return [(max(start, first - more), min(start + edge, end + more)) for (first, end), start in pairs]

    def to_refine(self, doubt: torch.Tensor, halo: float) -> np.ndarray:
        """Bool for each window, (z, y, x): whether there is doubt in its cell or halo.

        Args:
            doubt: (z, y, x) bool.
        """
        for axis in range(3):
            parts = [doubt.narrow(axis, first, end - first).any(dim=axis) for first, end in self.reaches(axis, halo)]
            doubt = torch.stack(parts, dim=axis)
        found: np.ndarray = doubt.cpu().numpy()
        return found


@dataclass(frozen=True, eq=False)
class Votes:
    """The decisions of windows at each voxel.

    Attributes:
        codes: (z, y, x) int16, see ``decide``; -1 where no window was computed.
        margins: (z, y, x) float16: smallest margin of the windows computed there; 0 where two decide differently.
    """

    codes: torch.Tensor
    margins: torch.Tensor

    @classmethod
    def empty(cls, shape: Sequence[int], device: torch.device | str = "cpu") -> Votes:
        """The votes of a volume before any window."""
        codes = torch.full(tuple(shape), _NOBODY, dtype=torch.int16, device=device)
        return cls(codes, torch.full(tuple(shape), torch.inf, dtype=torch.float16, device=device))

    def add_(self, place: tuple[slice, ...], codes: torch.Tensor, margins: torch.Tensor) -> None:
        """Add the decisions of a window at its ``place``."""
        known, least = self.codes[place], self.margins[place]
        margins = torch.minimum(least, margins.to(least.dtype))
        margins[(known != codes) & (known != _NOBODY)] = 0
        least.copy_(margins)
        known.copy_(codes)

    def doubt(self, grid: WindowGrid, doubt: Doubt) -> torch.Tensor:
        """(z, y, x) bool: where a first pass is not trusted. For 2D windows, slices do not count as neighbours."""
        found = self.margins < doubt.margin
        for axis in (axis for axis in range(3) if grid.patch[axis] > 1):
            n = grid.shape[axis] - 1
            differ = self.codes.narrow(axis, 1, n) != self.codes.narrow(axis, 0, n)
            for first in (0, 1):
                found.narrow(axis, first, n).logical_or_(differ)
            for seam in grid.seams(axis):
                before, behind = (self.margins.narrow(axis, at, 1).float() for at in (seam - 1, seam))
                jumps = (before - behind).abs() > doubt.jump
                for at in (seam - 1, seam):
                    found.narrow(axis, at, 1).logical_or_(jumps)
        return found


def decide(heads: Iterable[torch.Tensor], *, has_regions: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, margins) of logits, one head at a time.

    Args:
        heads: (z, y, x) logits of each head; without regions the first is background.
        has_regions: heads are regions, each decided separately.

    Returns:
        (z, y, x) int16: the winning head, or a number that is equal for equal sets of regions; and float32: how much the
        winning logit is above the next (infinite if there is no other); for regions, the smallest distance of a logit to 0.
    """
    codes, best, second = None, torch.empty(0), torch.empty(0)
    for number, logit in enumerate(heads):
        logit = logit.float()
        if codes is None:
            codes = torch.zeros(logit.shape, dtype=torch.int16, device=logit.device)
            best, second = torch.full_like(logit, -torch.inf), torch.full_like(logit, torch.inf if has_regions else -torch.inf)
        if has_regions:
            codes = (codes * 31 + (logit > 0)) & 0x7FFF  # a hash; exact for a few regions, never negative
            second = torch.minimum(second, logit.abs())
        else:
            codes.masked_fill_(logit > best, number)
            second = torch.maximum(second, torch.minimum(best, logit))
            best = torch.maximum(best, logit)
    assert codes is not None, "a network has at least one head"
    return codes, second if has_regions else best - second
