"""Predictions with adaptive windows, against those with all of them."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.inference.adaptive import Reading, Stage, grid_of, predict_adaptively, try_doubts
from autoseg.inference.sliding_window import Tiling, predict_logits, window_weights
from autoseg.inference.windows import Doubt

EVERYTHING = Doubt(math.inf, math.inf, 0.25)
NOTHING = Doubt(0.0, math.inf, 0.0)  # but for borders
PLAIN = Reading(has_regions=False)


def adaptive(
    network: torch.nn.Module, data: np.ndarray, doubt: Doubt, reading: Reading = PLAIN, **tiling: object
) -> Stage[np.ndarray]:
    return predict_adaptively([network], data, Tiling(**tiling), doubt, reading)[0]  # type: ignore[arg-type]


class Edgy(torch.nn.Module):
    """Two logits that hang on the image and on where in the window a voxel lies, and so differ between windows."""

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength, self.seen = strength, Counter[float]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.update(x[:, 0].flatten(1).double().mean(dim=1).tolist())
        where = torch.arange(x[0, 0].numel(), dtype=torch.float32).reshape(x.shape[2:]) / x[0, 0].numel()
        one = x[:, :1] + self.strength * where
        return torch.cat([torch.zeros_like(one), one], dim=1)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    data = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    data.setflags(write=False)
    return data


@pytest.mark.thorough
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 22)] * 3),
    patch=st.tuples(*[st.integers(1, 12)] * 3),
    step=st.sampled_from([0.5, 0.75, 1.0]),
    mirror_axes=st.sampled_from([(), (2,), (0, 1, 2)]),
    batch=st.integers(1, 9),
    has_regions=st.booleans(),
)
def test_doubt_everywhere_gives_the_logits_of_all_windows(
    shape: tuple[int, ...],
    patch: tuple[int, ...],
    step: float,
    mirror_axes: tuple[int, ...],
    batch: int,
    has_regions: bool,
) -> None:
    data, tiling = noise((1, *shape)), Tiling(patch, step, mirror_axes, batch)
    network = Edgy()
    expected, _ = predict_logits([network], data, tiling)
    once = Counter(network.seen)
    network.seen.clear()
    stage, _ = predict_adaptively([network], data, tiling, EVERYTHING, Reading(has_regions))
    np.testing.assert_allclose(stage.result, expected, atol=1e-5)
    assert (stage.result.argmax(axis=0) == expected.argmax(axis=0)).mean() > 0.999
    assert stage.computed <= stage.of == once.total()
    assert network.seen == once or stage.computed < stage.of  # tiles of one voxel value are not computed again


def test_no_tile_is_computed_twice() -> None:
    data = noise((1, 30, 30, 30))
    for doubt in (NOTHING, Doubt(0.5, 1.0, 0.125), EVERYTHING):
        network = Edgy()
        stage = adaptive(network, data, doubt, patch_size=(10, 10, 10), mirror_axes=(1,), batch=3)
        assert network.seen.total() == stage.computed
        views = Counter(round(mean, 9) for mean in network.seen)
        assert max(views.values()) <= 2  # a window and its mirror image have the same mean


def test_a_blank_volume_takes_one_tile() -> None:
    network = Edgy()
    network.strength = 0.0
    data = np.full((1, 50, 60, 40), -3.0, np.float32)
    stage = adaptive(network, data, Doubt(1.0, 4.0, 0.25), patch_size=(20, 20, 20), mirror_axes=(0,))
    assert (stage.computed, network.seen.total()) == (1, 1)
    np.testing.assert_allclose(stage.result[1], -3.0, atol=1e-6)


def test_sure_background_takes_the_first_pass_alone() -> None:
    network = Edgy()
    data = noise((1, 50, 60, 40)) - 20
    stage = adaptive(network, data, Doubt(1.0, 10.0, 0.25), patch_size=(20, 20, 20), mirror_axes=(0, 2))
    grid = grid_of((50, 60, 40), Tiling((20, 20, 20)))
    assert stage.computed == network.seen.total() == grid.first_pass().sum() < stage.of / 8


def test_even_air_around_a_body_changes_nothing() -> None:
    data = np.full((1, 48, 48, 48), -4.0, np.float32)
    data[:, 20:44, 20:44, 20:44] = noise((1, 24, 24, 24))
    network, tiling = Edgy(), Tiling((12, 12, 12), mirror_axes=(2,))
    expected, _ = predict_logits([network], data, tiling)
    seen = network.seen.total()
    network.seen.clear()
    stage, _ = predict_adaptively([network], data, tiling, EVERYTHING, PLAIN)
    np.testing.assert_allclose(stage.result, expected, atol=1e-5)
    assert network.seen.total() == stage.computed < 0.6 * seen


def test_a_voxel_has_the_weighted_mean_of_the_tiles_that_were_computed() -> None:
    shape, patch = (30, 30, 30), (10, 10, 10)
    data = noise((1, *shape)) - 8
    data[:, 12:16, 8:13, 20:22] = 4
    network, tiling = Edgy(4.0), Tiling(patch, mirror_axes=(0,))
    doubt = Doubt(1.0, 20.0, 0.0)
    stage, _ = predict_adaptively([network], data, tiling, doubt, PLAIN)
    grid = grid_of(shape, tiling)
    places = [tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True)) for corner in itertools.product(*grid.starts)]
    shares = [window_weights(n, p, s) for n, p, s in zip(shape, patch, grid.starts, strict=True)]
    weights = [z[:, None, None] * y[:, None] * x for z, y, x in itertools.product(*shares)]

    def blend(tiles: list[tuple[int, bool]]) -> np.ndarray:
        total, weight = np.zeros(shape), np.zeros(shape)
        for window, mirrored in tiles:
            image = torch.tensor(data[(slice(None), *places[window])][None])
            logits = network(image.flip(2)).flip(2) if mirrored else network(image)
            total[places[window]] += weights[window] * logits[0, 1].numpy()
            weight[places[window]] += weights[window]
        return total / weight

    first = [(int(window), False) for window in np.flatnonzero(grid.first_pass())]
    inside = blend(first) > 0
    assert inside.sum() >= 4 * 5 * 2
    border = torch.zeros(shape, dtype=torch.bool)  # found the slow way, from the first pass alone
    for axis in range(3):
        a, b = (np.take(inside, range(i, 29 + i), axis) for i in (0, 1))
        for i in (0, 1):
            border.narrow(axis, i, 29).logical_or_(torch.from_numpy(a != b))
    border |= torch.from_numpy(np.abs(blend(first)) < 1.0)
    refined = np.flatnonzero(grid.to_refine(border, 0.0))
    tiles = sorted({*first, *((int(window), mirrored) for window in refined for mirrored in (False, True))})
    assert stage.computed == len(tiles) < stage.of / 4
    np.testing.assert_allclose(stage.result[1], blend(tiles), atol=1e-4)


@pytest.mark.thorough
def test_stages_are_what_each_doubt_makes_alone() -> None:
    data, tiling = noise((1, 40, 40, 40)) - 3, Tiling((12, 12, 12), mirror_axes=(1,))
    ladder = [NOTHING, Doubt(0.5, 4.0, 0.0), Doubt(1.0, 3.0, 0.125), Doubt(2.0, 2.0, 0.25)]
    network = Edgy()
    stages = try_doubts([network], data, tiling, ladder, PLAIN, np.copy)
    assert network.seen.total() == stages[-1].computed == stages[-1].of
    for doubt, stage in zip(ladder, stages[:-1], strict=True):
        alone, _ = predict_adaptively([network], data, tiling, doubt, PLAIN)
        assert alone.computed == stage.computed
        np.testing.assert_allclose(alone.result, stage.result, atol=1e-5)
    assert stages[0].computed < stages[2].computed
    np.testing.assert_allclose(stages[-1].result, predict_logits([network], data, tiling)[0], atol=1e-5)


def test_folds_are_decided_together() -> None:
    class Shifted(Edgy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + 16)

    data, tiling = noise((1, 40, 40, 40)) - 8, Tiling((12, 12, 12))
    stage, _ = predict_adaptively([Edgy(), Shifted()], data, tiling, Doubt(1.0, 100.0, 0.0), PLAIN)
    assert stage.computed == stage.of  # each is sure, and of the opposite


def test_slices_of_2d_networks_are_refined_one_by_one() -> None:
    data = noise((1, 4, 64, 64)) - 20
    data[:, 2, 30:34, 30:34] = 20
    network = Edgy()
    stage = adaptive(network, data, Doubt(1.0, 50.0, 0.125), patch_size=(1, 16, 16))
    expected, _ = predict_logits([network], data, Tiling((1, 16, 16)))
    np.testing.assert_array_equal(stage.result.argmax(axis=0), expected.argmax(axis=0))
    assert stage.computed == 4 * 4 * 4 + 5 < stage.of / 2  # of the 3 x 3 windows around it, four are of the first pass


def test_short_memory_begins_again_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Edgy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                raise torch.cuda.OutOfMemoryError("too large")
            return super().forward(x)

    data = noise((1, 30, 30, 30))
    stage, notes = predict_adaptively([Short()], data, Tiling((10, 10, 10), batch=4), EVERYTHING, PLAIN)
    assert len(notes) == 1
    np.testing.assert_allclose(stage.result, predict_logits([Edgy()], data, Tiling((10, 10, 10)))[0], atol=1e-5)
