from dataclasses import replace

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.preprocess.normalize import NORMALIZATIONS, normalize
from planners import ChannelNormalization


def scan(rng):
    data = rng.normal(100, 20, (1, 8, 9, 10)).astype(np.float32)
    data[:, :2] = 0
    data.setflags(write=False)
    return data


def how(scheme, **more):
    return ChannelNormalization("x", scheme, **{"lower": 60, "upper": 140, "mean": 100, "std": 20} | more)


@pytest.mark.parametrize("scheme", sorted(NORMALIZATIONS))
def test_every_scheme_is_finite_on_constants_and_leaves_its_input(scheme):
    for value in (0, 7):
        data = np.full((1, 4, 4, 4), value, np.float32)
        data.setflags(write=False)
        result = normalize(data, [how(scheme)])
        assert result.dtype == np.float32
        assert np.isfinite(result).all()


@pytest.mark.parametrize("scheme", ["ct", "robust"])
def test_unit_schemes_fill_zero_to_one(scheme):
    result = normalize(scan(np.random.default_rng(0)), [how(scheme)])
    assert result.min() == 0
    assert result.max() == 1


def test_robust_uses_the_voxels_inside_only():
    data = scan(np.random.default_rng(0))
    low, high = np.percentile(data[data != 0], (0.5, 99.5))
    expected = (np.clip(data, low, high) - low) / (high - low)
    assert np.allclose(normalize(data, [how("robust")]), expected, atol=1e-6)


def test_zscore_has_mean_zero_and_deviation_one_inside_the_mask():
    data = scan(np.random.default_rng(0))
    result = normalize(data, [how("zscore", use_mask=True)])
    inside = data != 0
    assert result[inside].mean() == pytest.approx(0, abs=1e-5)
    assert result[inside].std() == pytest.approx(1, abs=1e-5)
    assert (result[~inside] == 0).all()


def test_ct_zscore_is_the_affine_of_the_clipped_foreground():
    data = scan(np.random.default_rng(0))
    assert np.allclose(normalize(data, [how("ct_zscore")]), (np.clip(data, 60, 140) - 100) / 20, atol=1e-6)


def test_rgb_refuses_what_is_not_rgb():
    with pytest.raises(AutosegError, match="expects values from 0 to 255, found -1 to"):
        normalize(np.full((1, 2, 2, 2), -1, np.float32), [how("rgb")])


def test_masks_with_filled_holes_count_what_they_enclose():
    data = np.zeros((1, 5, 7, 7), np.float32)
    data[0, 1:4, 1:6, 1:6] = np.random.default_rng(0).normal(50, 5, (3, 5, 5))
    data[0, 2, 3, 3] = 0  # a hole
    how = ChannelNormalization("MRI", "zscore", use_mask=True)
    filled = normalize(data, [replace(how, fill_holes=True)])[0]
    body = data[0, 1:4, 1:6, 1:6]
    assert filled[1:4, 1:6, 1:6] == pytest.approx((body - body.mean()) / body.std(), abs=1e-4)
    assert not filled[0].any()
    assert normalize(data, [how])[0, 2, 3, 3] == 0
