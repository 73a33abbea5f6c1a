"""What every transform in AUGMENTATIONS, and every preset, promises."""

import numpy as np
import pytest
import torch

from autoseg.training.augment import AUGMENTATIONS, PRESETS, Setting, apply, draw

PATCHES = [(16, 20, 12), (4, 24, 20), (1, 24, 16)]


@pytest.fixture(params=PATCHES, ids=str)
def setting(request):
    return Setting(request.param, centre=(0.4, 0.0), unit=(0.2, 1.0))


def sampled(name, setting, seed=5):
    """Parameters of a transform that does something, and the size of the box it needs."""
    rng = np.random.default_rng(seed)
    parameters = None
    while parameters is None:
        parameters = AUGMENTATIONS[name].sample(rng, setting)
    return parameters, parameters.get("source_size", setting.patch_size)


def phantom(size):
    """Two image channels that equal the codes 0, 1, 4, -1 of boxes, blurred by nothing."""
    codes = torch.zeros(size, dtype=torch.int16)
    z, y, x = size
    codes[: -(-z // 2), y // 4 : y // 2] = 1
    codes[:, y // 2 :, x // 3 : x // 2 + 1] = 4
    codes[:, :, -2:] = -1
    return codes.float().expand(2, *size).clone(), codes


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_seed_gives_the_same_result(name, setting):
    first, size = sampled(name, setting)
    second, _ = sampled(name, setting)
    assert first == second
    image, codes = phantom(size)
    once, again = (AUGMENTATIONS[name].apply(image, codes, **first) for _ in range(2))
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_another_seed_gives_another_result(name, setting):
    if name == "mirror":
        pytest.skip("there are only a few ways to mirror")
    assert sampled(name, setting, 1)[0] != sampled(name, setting, 2)[0]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_and_type_are_kept_and_labels_stay_labels(name, setting):
    parameters, size = sampled(name, setting)
    image, codes = phantom(size)
    moved, moved_codes = AUGMENTATIONS[name].apply(image, codes, **parameters)
    assert moved.shape == (2, *setting.patch_size)
    assert moved_codes.shape == setting.patch_size
    assert moved.dtype == torch.float32
    assert moved_codes.dtype == torch.int16
    assert moved.isfinite().all()
    assert set(moved_codes.unique().tolist()) <= {-1, 0, 1, 4}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_input_stays_untouched(name, setting):
    parameters, size = sampled(name, setting)
    image, codes = phantom(size)
    AUGMENTATIONS[name].apply(image, codes, **parameters)
    before, before_codes = phantom(size)
    assert torch.equal(image, before)
    assert torch.equal(codes, before_codes)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_image_and_labels_move_together(name, setting):
    parameters, size = sampled(name, setting)
    codes = torch.zeros(size, dtype=torch.int16)
    codes[:, size[1] // 4 : size[1] // 2, size[2] // 4 :] = 1
    image = codes.float().expand(2, *size)
    moved, moved_codes = AUGMENTATIONS[name].apply(image, codes, **parameters)
    if torch.equal(moved_codes, codes):  # an intensity transform: bright stays bright
        correlation = np.corrcoef(moved[0].flatten().numpy(), codes.flatten().numpy())[0, 1]
        assert correlation > 0.8
    else:
        # both are the linear weight of the structure; label 1 wins above one half
        certain = (moved[0] - 0.5).abs() > 1e-4
        assert torch.equal((moved[0] > 0.5)[certain], (moved_codes == 1)[certain])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_constant_image_stays_finite(name, setting):
    parameters, size = sampled(name, setting)
    image, codes = AUGMENTATIONS[name].apply(torch.full((2, *size), 0.3), phantom(size)[1], **parameters)
    assert image.isfinite().all()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_turns_the_box_it_asks_for_into_the_patch(name, setting):
    rng = np.random.default_rng(0)
    for _ in range(25):
        drawn = draw(rng, PRESETS[name], setting)
        assert all((source - edge) % 2 == 0 for source, edge in zip(drawn.source_size, setting.patch_size, strict=True))
        image, codes = phantom(drawn.source_size)
        moved, moved_codes = apply(image, codes, drawn)
        assert moved.shape == (2, *setting.patch_size)
        assert moved_codes.shape == setting.patch_size
        assert torch.equal(image, phantom(drawn.source_size)[0])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_repeats_with_its_seed(name, setting):
    first = [draw(np.random.default_rng(seed), PRESETS[name], setting) for seed in range(20)]
    second = [draw(np.random.default_rng(seed), PRESETS[name], setting) for seed in range(20)]
    assert first == second
