import itertools
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.errors import ModelError
from autoseg.inference import sliding_window
from autoseg.inference.sliding_window import Tiling, window_starts, window_weights
from tests.helpers.examples import examples


def predict_logits(networks, data, *, autocast=None, scratch=None, notes=None, **tiling):
    """The logits; sentences are added to ``notes``."""
    logits, told = sliding_window.predict_logits(networks, data, Tiling(**tiling), autocast=autocast, scratch=scratch)
    (notes if notes is not None else []).extend(told)
    return logits


class Identity(torch.nn.Module):
    def forward(self, x):
        return x


class Position(torch.nn.Module):
    """Says for every voxel where in the window it lies, and nothing else."""

    def forward(self, x):
        return torch.arange(x[0, 0].numel(), dtype=torch.float32).reshape(x.shape[2:]).expand(len(x), 1, *x.shape[2:])


class Counting(torch.nn.Module):
    """Identity that keeps the batch sizes it was given."""

    def __init__(self, most=99):
        super().__init__()
        self.batches, self.most = [], most

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("too large")
        return x


class Many(torch.nn.Module):
    """``heads`` multiples of the image."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def forward(self, x):
        return x * torch.arange(1.0, self.heads + 1).reshape(-1, 1, 1, 1)


def random_data(shape):
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    data.setflags(write=False)
    return data


@given(length=st.integers(1, 90), patch=st.integers(1, 40), step=st.sampled_from([0.1, 0.5, 0.75, 1.0]))
def test_windows_cover_the_axis_without_gaps_or_overhang(length, patch, step):
    starts = window_starts(length, patch, step)
    assert starts[0] == 0
    assert list(starts) == sorted(set(starts))
    assert starts[-1] == max(0, length - patch)
    assert all(b - a <= max(1, np.ceil(patch * step)) for a, b in itertools.pairwise(starts))
    weights = window_weights(length, patch, starts)
    total = np.zeros(max(length, patch))
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + patch] += weight
    assert weights.min() > 0
    assert weights.dtype == np.float32
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_number_of_windows_is_that_of_nnunet():
    # ceil((L - P) / (P / 2)) + 1, nnU-Net 2.8
    assert window_starts(100, 40, 0.5) == (0, 20, 40, 60)
    assert len(window_starts(101, 40, 0.5)) == 5
    assert window_starts(64, 64, 0.5) == (0,)


def test_windows_of_depth_one_visit_each_slice_once():
    assert window_starts(7, 1, 0.5) == tuple(range(7))


@pytest.mark.parametrize("step", [0, -1, 1.5])
def test_impossible_steps_are_refused(step):
    with pytest.raises(ValueError, match="step"):
        window_starts(10, 4, step)


def test_weight_is_a_gaussian_of_an_eighth_of_the_window():
    weight = window_weights(200, 40, (0, 160))[0]  # no other window reaches these voxels: all weight one
    assert weight.min() == 1
    both = window_weights(60, 40, (0, 20))
    ratio = both[0][30] / both[1][10]  # voxel 30: 10.5 from the first centre, 9.5 from the second
    assert ratio == pytest.approx(np.exp(-(10.5**2 - 9.5**2) / (2 * 5**2)), rel=1e-4)


@examples(25)
@given(
    shape=st.tuples(*[st.integers(1, 22)] * 3),
    patch=st.tuples(*[st.integers(1, 12)] * 3),
    step=st.sampled_from([0.5, 0.75, 1.0]),
    mirror_axes=st.sampled_from([(), (2,), (0, 1, 2)]),
    batch=st.integers(1, 9),
)
def test_identity_network_returns_the_input(shape, patch, step, mirror_axes, batch):
    data = random_data((2, *shape))
    logits = predict_logits([Identity()], data, patch_size=patch, step=step, mirror_axes=mirror_axes, batch=batch)
    assert logits.dtype == np.float32
    assert logits.shape == data.shape
    np.testing.assert_allclose(logits, data, atol=1e-5)


def test_windows_lie_where_the_slow_way_puts_them():
    shape, patch = (9, 14, 8), (4, 6, 8)
    logits = predict_logits([Position()], random_data((1, *shape)), patch_size=patch, step=0.5)
    position = np.arange(np.prod(patch)).reshape(patch)
    total, weight = np.zeros(shape), np.zeros(shape)
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in patch]
    gaussian = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    for corner in itertools.product(*(window_starts(n, p, 0.5) for n, p in zip(shape, patch, strict=True))):
        place = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        total[place] += gaussian * position
        weight[place] += gaussian
    np.testing.assert_allclose(logits[0], total / weight, rtol=1e-4, atol=1e-3)


def test_mirroring_is_the_mean_over_all_flips():
    logits = predict_logits([Position()], random_data((1, 4, 5, 6)), patch_size=(4, 5, 6), mirror_axes=(0, 1, 2))
    np.testing.assert_allclose(logits, np.full((1, 4, 5, 6), (4 * 5 * 6 - 1) / 2), rtol=1e-5)
    one_axis = predict_logits([Position()], random_data((1, 1, 1, 6)), patch_size=(1, 1, 6), mirror_axes=(2,))
    np.testing.assert_allclose(one_axis, np.full((1, 1, 1, 6), 2.5))


def test_networks_are_averaged():
    class Twice(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    data = random_data((1, 9, 9, 9))
    logits = predict_logits([Identity(), Twice()], data, patch_size=(8, 8, 8))
    np.testing.assert_allclose(logits, 1.5 * data, atol=1e-5)


def test_a_small_volume_is_padded_with_the_channels_own_value_on_both_sides():
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3, 4), keepdim=True).expand(x.shape)

    data = np.ones((2, 2, 4, 4), np.float32)
    logits = predict_logits([Mean()], data, patch_size=(4, 4, 4), pad_value=(0.5, 3.0))
    np.testing.assert_allclose(logits[:, 0, 0, 0], [0.75, 2.0])

    position = predict_logits([Position()], np.ones((1, 2, 1, 1), np.float32), patch_size=(6, 1, 1))
    assert position.ravel().tolist() == [2, 3]


def test_tiles_are_batched_across_windows_and_flips():
    network = Counting()
    predict_logits([network], random_data((1, 12, 8, 8)), patch_size=(8, 8, 8), mirror_axes=(0,), batch=3)
    assert network.batches == [3, 1]


def test_short_memory_is_told_and_changes_nothing():
    notes, data = [], random_data((1, 12, 8, 8))
    network = Counting(most=1)
    logits = predict_logits([network], data, patch_size=(8, 8, 8), batch=4, notes=notes)
    np.testing.assert_allclose(logits, data, atol=1e-5)
    assert len(notes) == 1
    assert "4 tiles" in notes[0]


def test_memory_for_not_even_one_window_is_an_error_with_a_way_out():
    with pytest.raises(ModelError, match="device cpu"):
        predict_logits([Counting(most=0)], random_data((1, 8, 8, 8)), patch_size=(8, 8, 8))


def test_bf16_is_used_when_asked_and_results_come_back_in_float32():
    seen = []

    class Conv(torch.nn.Conv3d):
        def forward(self, x):
            seen.append(super().forward(x).dtype)
            return super().forward(x)

    network = Conv(1, 1, 1)
    for autocast in (None, torch.bfloat16):
        logits = predict_logits([network], random_data((1, 4, 4, 4)), patch_size=(4, 4, 4), autocast=autocast)
        assert logits.dtype == np.float32
    assert seen == [torch.float32, torch.bfloat16]


def test_logits_that_are_too_large_for_memory_are_the_same_to_the_bit(tmp_path, monkeypatch):
    data, how = random_data((1, 14, 5, 9)), {"patch_size": (8, 6, 8), "mirror_axes": (0, 2), "batch": 3}
    networks, folder = [Many(3), Identity(), Many(3)], tmp_path / "new" / "folder"
    expected = predict_logits(networks, data, **how)
    monkeypatch.setattr("autoseg.imaging.scratch.LARGEST_IN_MEMORY", 0)
    found = predict_logits(networks, data, scratch=folder, **how)
    assert type(found) is np.ndarray
    assert found.tobytes() == expected.tobytes()
    assert folder.is_dir()
    assert not list(folder.iterdir())


def test_memory_for_the_volume_does_not_grow_with_the_number_of_structures(tmp_path, monkeypatch):
    data = random_data((1, 40, 40, 40))

    def peak(heads):
        tracemalloc.start()  # sees arrays of numpy, so the whole volume but no window
        predict_logits([Many(heads)], data, patch_size=(8, 40, 40), scratch=tmp_path)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(60) > 10 * peak(2)
    monkeypatch.setattr("autoseg.imaging.scratch.LARGEST_IN_MEMORY", 0)
    assert peak(60) < 1.1 * peak(2)


def test_no_window_s_logits_outlive_it():
    alive, most = weakref.WeakSet(), []

    def network(tiles):
        logits = torch.zeros(1, 3, *tiles.shape[2:])
        most.append(len(alive))
        alive.add(logits)
        return logits

    predict_logits([network], np.zeros((1, 8, 8, 20), np.float32), patch_size=(8, 8, 8), mirror_axes=(0,))
    assert most == [0] * len(most)
    assert len(most) > 4


@pytest.mark.parametrize("patch", [7, 8])
def test_the_peak_of_a_window_can_be_a_voxel(patch):
    weights = window_weights(2 * patch, patch, (0, patch // 2, patch), peak="voxel")
    line = ndimage.gaussian_filter(np.eye(patch)[patch // 2], patch / 8, mode="constant")  # as scipy makes a window's weights
    total = np.zeros(2 * patch)
    for start in (0, patch // 2, patch):
        total[start : start + patch] += line
    expected = np.stack([line / total[start : start + patch] for start in (0, patch // 2, patch)])
    assert weights == pytest.approx(expected, abs=1e-5)


def test_half_sums_round_where_nnunet_does():
    """Slowly, in numpy, with the weights that scipy's filter makes: each sum is rounded to float16 at once."""
    rng = np.random.default_rng(5)
    data = rng.normal(size=(1, 20, 14, 16)).astype(np.float32)
    patch = (12, 8, 16)
    kernel = torch.nn.Conv3d(1, 3, 3, padding=1)
    networks = [kernel, lambda tiles: 3.0 - kernel(tiles)]
    tiling = {"patch_size": patch, "mirror_axes": (0, 2), "peak": "voxel"}
    found = predict_logits(networks, data, half_sums=True, **tiling)
    centre = np.zeros(patch)
    centre[tuple(edge // 2 for edge in patch)] = 1
    weight = ndimage.gaussian_filter(centre, [edge / 8 for edge in patch], mode="constant")
    weight = (weight / weight.max() * 10).astype(np.float16)
    weight[weight == 0] = weight[weight > 0].min()
    total = np.zeros((3, *data.shape[1:]), np.float16)
    for network in networks:
        sums, weights = np.zeros_like(total), np.zeros(data.shape[1:], np.float16)
        for z, y in itertools.product((0, 4, 8), (0, 3, 6)):
            box = np.s_[z : z + 12, y : y + 8, 0:16]
            tile = torch.tensor(data[(slice(None), *box)][None])
            with torch.no_grad():
                flipped = [network(tile.flip(axes)).flip(axes) for axes in ((), (2,), (4,), (2, 4))]
            logits = (sum(flipped) / 4)[0].numpy()
            sums[(slice(None), *box)] += logits * weight
            weights[box] += weight
        total += sums / weights
    expected = (total / 2).astype(np.float32)
    assert found.dtype == np.float32
    assert np.array_equal(found.astype(np.float16), found)
    assert (found == expected).mean() > 0.98  # else the network's own rounding went to another half
    assert np.abs(found - expected).max() < 0.02
    exactly = predict_logits(networks, data, **tiling)
    assert np.abs(found - exactly).max() > 1e-4
    assert np.abs(found - exactly)[:, 6:14, 4:10, 4:12].max() < 0.01  # in the middle, where weights are large
