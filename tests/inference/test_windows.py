"""The windows of a volume: which come first, where those leave doubt, and which are computed then."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.inference.adaptive import grid_of
from autoseg.inference.sliding_window import Tiling
from autoseg.inference.windows import AdaptiveWindows, Doubt, Votes, WindowGrid, decide, strictest

SURE = Doubt(margin=1.0, jump=4.0, halo=0.0)
grids = st.builds(
    lambda shape, patch, step: grid_of(shape, Tiling(patch, step)),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.sampled_from([0.25, 0.5, 0.75, 1.0]),
)


def places(grid: WindowGrid, chosen: np.ndarray) -> list[tuple[slice, ...]]:
    corners = list(itertools.product(*grid.starts))
    return [
        tuple(slice(start, start + edge) for start, edge in zip(corners[i], grid.patch, strict=True))
        for i in np.flatnonzero(chosen)
    ]


def sure_votes(grid: WindowGrid) -> Votes:
    """Background everywhere, by a margin of 10."""
    return Votes(torch.zeros(grid.shape, dtype=torch.int16), torch.full(grid.shape, 10.0, dtype=torch.float16))


@pytest.mark.thorough
@settings(max_examples=60, deadline=None)
@given(grid=grids)
def test_the_first_pass_covers_every_voxel_with_windows_of_the_grid(grid: WindowGrid) -> None:
    first = grid.first_pass()
    covered = np.zeros(grid.shape, bool)
    for place in places(grid, first):
        covered[place] = True
    assert first.shape == grid.size
    assert covered.all()


def test_a_first_pass_has_windows_side_by_side() -> None:
    grid = grid_of((300, 300, 300), Tiling((40, 56, 40)))
    assert np.prod(grid.size) == 1960
    assert grid.first_pass().sum() == 8 * 6 * 8
    assert grid.seams(0) == [40, 80, 120, 160, 200, 240, 260, 280]  # the last one overlaps the one before by half


def test_every_slice_is_seen_by_windows_of_depth_one() -> None:
    first = grid_of((5, 60, 60), Tiling((1, 20, 20))).first_pass()
    assert first.any(axis=(1, 2)).all()
    assert first.sum() == 5 * 3 * 3


@settings(max_examples=60, deadline=None)
@given(grid=grids)
def test_each_voxel_lies_in_the_cell_of_one_window(grid: WindowGrid) -> None:
    for axis in range(3):
        cells = grid.reaches(axis, 0.0)
        assert [voxel for first, end in cells for voxel in range(first, end)] == list(range(grid.shape[axis]))
        for (first, end), start in zip(grid.reaches(axis, 0.25), grid.starts[axis], strict=True):
            assert start <= first < end <= start + grid.patch[axis]  # a window decides nothing beyond itself


@settings(max_examples=40, deadline=None)
@given(grid=grids, data=st.data())
def test_a_voxel_in_doubt_is_in_the_cell_of_a_refined_window(grid: WindowGrid, data: Any) -> None:
    voxel = tuple(data.draw(st.integers(0, n - 1)) for n in grid.shape)
    doubt = torch.zeros(grid.shape, dtype=torch.bool)
    doubt[voxel] = True
    chosen = grid.to_refine(doubt, 0.0)
    assert chosen.sum() == 1
    centres = [np.array(starts) + (edge - 1) / 2 for starts, edge in zip(grid.starts, grid.patch, strict=True)]
    away = [np.abs(axis - at) for axis, at in zip(centres, voxel, strict=True)]
    window = [int(i) for i in np.argwhere(chosen)[0]]
    assert all(axis[i] == axis.min() for axis, i in zip(away, window, strict=True))
    assert (grid.to_refine(doubt, 0.25) >= chosen).all()


def test_all_windows_of_a_voxel_in_doubt_are_refined_with_the_largest_halo() -> None:
    grid = grid_of((60, 60, 60), Tiling((20, 20, 20)))
    doubt = torch.zeros(grid.shape, dtype=torch.bool)
    doubt[29, 34, 35] = True
    holds = np.array([all(p.start <= v < p.stop for p, v in zip(place, (29, 34, 35), strict=True)) for place in all_of(grid)])
    assert (grid.to_refine(doubt, 0.25).ravel() == holds).all()
    assert holds.sum() == 8


def all_of(grid: WindowGrid) -> list[tuple[slice, ...]]:
    return places(grid, np.ones(grid.size, bool))


def test_sure_background_leaves_no_doubt() -> None:
    grid = grid_of((60, 60, 60), Tiling((20, 20, 20)))
    assert not sure_votes(grid).doubt(grid, SURE).any()


def test_a_small_margin_a_border_and_a_jump_at_a_seam_leave_doubt() -> None:
    grid = grid_of((60, 60, 60), Tiling((20, 20, 20)))
    votes = sure_votes(grid)
    votes.margins[5, 5, 5] = 0.5
    assert votes.doubt(grid, SURE).nonzero().tolist() == [[5, 5, 5]]
    votes = sure_votes(grid)
    votes.codes[30, 30, 30] = 1
    assert votes.doubt(grid, SURE).sum() == 7  # itself and its neighbours
    votes = sure_votes(grid)
    votes.margins[:20, :20, :20] = 5.0
    assert not votes.doubt(grid, SURE)[:19, :19, :19].any()
    assert votes.doubt(grid, SURE)[19, :20, :20].all()  # the window ends there
    assert votes.doubt(grid, SURE)[20, :20, :20].all()  # and the next one begins
    votes = sure_votes(grid)
    votes.margins[:10] = 5.0
    assert not votes.doubt(grid, SURE).any()  # within a window, margins may change as they like


def test_windows_that_decide_differently_leave_doubt() -> None:
    grid = grid_of((10, 10, 30), Tiling((10, 10, 20)))
    votes = Votes.empty(grid.shape)
    one, sure = torch.zeros(10, 10, 20, dtype=torch.int16), torch.full((10, 10, 20), 10.0)
    votes.add_((slice(0, 10), slice(0, 10), slice(0, 20)), one, sure)
    other = one.clone()
    other[3, 4, 5] = 1
    votes.add_((slice(0, 10), slice(0, 10), slice(10, 30)), other, sure)
    assert votes.margins[3, 4, 15] == 0
    assert (votes.margins == 0).sum() == 1
    assert votes.doubt(grid, SURE)[3, 4, 15]


def test_a_structure_at_a_seam_is_refined() -> None:
    grid = grid_of((60, 60, 60), Tiling((20, 20, 20)))
    votes = sure_votes(grid)
    votes.codes[28:32, 18:22, 38:42] = 1  # across the seams at 20 and 40 of two axes
    refined = grid.to_refine(votes.doubt(grid, SURE), 0.0)
    assert not grid.first_pass()[2, 1, 3]
    assert refined[2, 1, 3]  # starts at 20, 10 and 30: the structure is in its middle
    assert refined.sum() == 1


@pytest.mark.parametrize("has_regions", [False, True])
def test_margins_are_the_distance_to_another_decision(has_regions: bool) -> None:
    logits = torch.tensor(np.random.default_rng(0).normal(size=(5, 4, 3, 6)), dtype=torch.float32)
    codes, margins = decide(iter(logits), has_regions=has_regions)
    if has_regions:
        expected = logits.abs().amin(dim=0)
        patterns = {tuple(bits) for bits in (logits > 0).flatten(1).T.tolist()}
        assert len(patterns) == len(set(codes.flatten().tolist()))
    else:
        top = logits.topk(2, dim=0)
        expected = top.values[0] - top.values[1]
        assert torch.equal(codes.long(), top.indices[0])
    torch.testing.assert_close(margins, expected)


def test_the_only_head_is_decided_without_doubt() -> None:
    codes, margins = decide([torch.zeros(2, 2, 2)], has_regions=False)
    assert not codes.any()
    assert torch.isinf(margins).all()


def test_several_folds_believe_what_each_of_them_does() -> None:
    one = AdaptiveWindows(Doubt(1, 8, 0.0), 0.5, 2, 10, 100, {"a": 0.0001, "b": 0.0004})
    other = AdaptiveWindows(Doubt(2, 4, 0.125), 0.5, 3, 30, 100, {"a": 0.0002})
    both = strictest([one, other])
    assert both == AdaptiveWindows(Doubt(2, 4, 0.125), 0.5, 5, 40, 200, {"a": 0.0002})
    assert one.is_trusted(["a", "b"])
    assert not both.is_trusted(["a", "b"])  # nobody knows about b
    assert not AdaptiveWindows(Doubt(1, 8, 0), 0.5, 1, 1, 1, {"a": 0.0005}).is_trusted(["a"])


def test_impossible_doubt_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Doubt(-1.0, 1.0, 0.0)
