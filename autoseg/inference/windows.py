"""Which windows of a volume are computed where not all of them are.

The *grid* is all overlapping windows. The *first pass* is the fewest of them that cover the volume, side by side; along each
axis they overlap where their last one would end beyond it. Each voxel belongs to the *cell* of the window whose centre is
nearest; with windows that overlap by half, cells are the middle halves of windows.

The first pass leaves *doubt* at a voxel where the margin of its decision is small; at a border between decisions; where two
windows decide differently, and at a *seam*, where one window ends and the next begins, where the margin jumps. A window is
*refined*, in all mirrored views, where there is doubt in its cell or within ``halo`` of it. So where windows lie
side by side, and a window knows least, what they say is kept only while they agree, are sure and see no border.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

__all__ = ["LARGEST_DIFFERENCE", "AdaptiveWindows", "Doubt", "Votes", "WindowGrid", "decide", "strictest"]

LARGEST_DIFFERENCE = 0.0005  # of Dice, up to which a model proposes adaptive windows by itself
_NOBODY = -1  # code of a voxel that no window has decided


@dataclass(frozen=True)
class Doubt:
    """Where the first pass is not believed.

    Attributes:
        margin: smallest difference of the winning logit to the next one that is believed; of regions that of a logit to 0.
        jump: largest difference of the margins on both sides of a seam that is believed.
        halo: how far from its cell doubt still makes a window be computed, as a fraction of the window, from 0.
    """

    margin: float
    jump: float
    halo: float

    def __post_init__(self) -> None:
        if min(self.margin, self.jump, self.halo) < 0:
            raise ValueError(f"margin, jump and halo must be 0 or more, found {self}")


@dataclass(frozen=True)
class AdaptiveWindows:
    """The Doubt that was found for a model, and what it changes, compared with all windows.

    Attributes:
        doubt: what to believe.
        step: tile step that it was found for.
        cases: how many it was found on.
        computed, of: tiles (windows, in each view) that were computed of them, and all their tiles.
        difference: {structure: 1 minus the Dice of both masks, mean over the cases}; without those that no case has.
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
        return f"{self.computed} of {self.of} tiles on {self.cases} cases, {told}"

    def summary(self, structures: Sequence[str]) -> str:
        """The same with the difference of each structure, for a person."""
        rows = [f"  {name}: {value:.5f}" for name, value in self.difference.items()]
        unseen = [name for name in structures if name not in self.difference]
        told = [f"in none of these scans, so nothing is known about them: {', '.join(unseen)}"] if unseen else []
        default = "by default" if self.is_trusted(structures) else "only with --windows adaptive"
        return "\n".join([str(self), *rows, *told, f"used {default}"])

    def is_trusted(self, structures: Iterable[str]) -> bool:
        """Whether each structure was found, and differed by less than ``LARGEST_DIFFERENCE``."""
        return all(self.difference.get(name, 1.0) < LARGEST_DIFFERENCE for name in structures)


def strictest(found: Sequence[AdaptiveWindows]) -> AdaptiveWindows:
    """What several folds together believe: what each of them does. Counts are added, the differences are the largest ones."""
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
        shape: (z, y, x) voxels of the volume; no edge is shorter than that of the window.
        patch: (z, y, x) voxels of a window.
        starts: of each axis, the first voxels of the windows, ascending. Windows are numbered with the last axis fastest.
    """

    shape: tuple[int, ...]
    patch: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Windows along each axis."""
        return tuple(len(starts) for starts in self.starts)

    def first_pass(self) -> np.ndarray:
        """Bool for each window, (z, y, x): the fewest that cover every voxel; along each axis with the first and the last."""
        chosen = [np.isin(np.arange(n), self._taken(axis)) for axis, n in enumerate(self.size)]
        return np.asarray(np.einsum("i,j,k->ijk", *chosen))

    def _taken(self, axis: int) -> list[int]:
        """Numbers of the windows of the first pass along an axis, each as far from the one before as leaves no gap."""
        starts, taken = self.starts[axis], [0]
        while taken[-1] < len(starts) - 1:
            reached = starts[taken[-1]] + self.patch[axis]
            taken.append(max(i for i, start in enumerate(starts) if start <= reached))
        return taken

    def seams(self, axis: int) -> list[int]:
        """The voxels before which a window of the first pass begins or ends, none of them at the rim of the volume."""
        firsts = [self.starts[axis][i] for i in self._taken(axis)]
        found = {*firsts, *(start + self.patch[axis] for start in firsts)}
        return sorted(found - {0, self.shape[axis]})

    def reaches(self, axis: int, halo: float) -> list[tuple[int, int]]:
        """(first voxel, end) of the cell of each window along an axis, with the halo around it; never beyond the window."""
        starts, edge = self.starts[axis], self.patch[axis]
        between = [-(-(a + b + edge - 1) // 2) for a, b in itertools.pairwise(starts)]
        cells = itertools.pairwise([0, *between, self.shape[axis]])
        more = round(halo * edge)
        pairs = zip(cells, starts, strict=True)
        return [(max(start, first - more), min(start + edge, end + more)) for (first, end), start in pairs]

    def to_refine(self, doubt: torch.Tensor, halo: float) -> np.ndarray:
        """Bool for each window, (z, y, x): those with doubt in their cell or its halo.

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
    """What windows decided at each voxel.

    Attributes:
        codes: (z, y, x) int16, see ``decide``; -1 where no window has been.
        margins: (z, y, x) float16: the least of the windows that have been there; 0 where two decide differently.
    """

    codes: torch.Tensor
    margins: torch.Tensor

    @classmethod
    def empty(cls, shape: Sequence[int], device: torch.device | str = "cpu") -> Votes:
        """Those of a volume where no window has been."""
        codes = torch.full(tuple(shape), _NOBODY, dtype=torch.int16, device=device)
        return cls(codes, torch.full(tuple(shape), torch.inf, dtype=torch.float16, device=device))

    def add_(self, place: tuple[slice, ...], codes: torch.Tensor, margins: torch.Tensor) -> None:
        """Add what a window decided at its ``place``."""
        known, least = self.codes[place], self.margins[place]
        margins = torch.minimum(least, margins.to(least.dtype))
        margins[(known != codes) & (known != _NOBODY)] = 0
        least.copy_(margins)
        known.copy_(codes)

    def doubt(self, grid: WindowGrid, doubt: Doubt) -> torch.Tensor:
        """(z, y, x) bool: where a first pass is not believed. Slices that windows see alone are no neighbours."""
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
        has_regions: heads are regions, each decided for itself.

    Returns:
        (z, y, x) int16: the winning head, or a number that is the same where the same regions are; and float32: how much the
        winning logit is above the next one (infinite where there is no other), of regions the least distance of a logit to 0.
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
