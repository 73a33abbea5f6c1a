import pytest

from autoseg.errors import TrainingError
from autoseg.training.recipe import (
    RECIPES,
    PatchStage,
    Recipe,
    changed,
    ema_decay,
    is_plain,
    learning_rate_factor,
    momentum_for,
    patch_stage,
)
from autoseg.training.settle import is_mirrored

RECIPE = Recipe(hold=0.5)


def test_the_rate_rises_stays_and_falls_to_the_end():
    rates = [learning_rate_factor(RECIPE, f / 1000) for f in range(1000)]
    peak = rates.index(1.0)
    assert rates[0] < 0.1
    assert rates[:peak] == sorted(rates[:peak])
    assert all(r == 1 for r in rates[peak:500])
    assert rates[500:] == sorted(rates[500:], reverse=True)
    assert rates[-1] < 0.01
    assert learning_rate_factor(RECIPE, 1.0) is None


def test_an_early_fall_ends_in_proportion():
    assert learning_rate_factor(RECIPE, 0.42, cooldown=0.4) < 1
    assert learning_rate_factor(RECIPE, 0.79, cooldown=0.4) > 0
    assert learning_rate_factor(RECIPE, 0.8, cooldown=0.4) is None


def test_parity_is_the_polynomial_decay():
    for fraction in (0.0, 0.3, 0.9):
        assert learning_rate_factor(RECIPES["parity"], fraction) == pytest.approx((1 - fraction) ** 0.9)


@pytest.mark.parametrize(
    ("recipe", "epochs", "begins"),
    [
        (Recipe(), 5, 0.7),
        (Recipe(), 100, 0.88),  # twelve of a hundred
        (Recipe(plain_epochs=1), 100, 0.99),
        (Recipe(hold=0.4), 5, 0.4),
        (Recipe(plain_epochs=0), 5, None),
        (RECIPES["parity"], 5, None),
    ],
)
def test_the_end_is_plain_but_not_learned_by_heart(recipe, epochs, begins):
    plain = [is_plain(recipe, i / 1000, epochs * (1 - i / 1000)) for i in range(1000)]
    assert plain == sorted(plain)
    assert sum(plain) == pytest.approx(0 if begins is None else 1000 - 1000 * begins, abs=1)


@pytest.mark.parametrize(
    ("recipe", "epochs", "device", "mirrors"),
    [
        (Recipe(), 20, "cpu", False),
        (Recipe(), 20, "cuda", False),
        (Recipe(), 80, "cpu", True),
        (Recipe(), 80, "cuda", True),
        (Recipe(), None, "cpu", False),
        (Recipe(), None, "mps", True),
        (Recipe(mirror=True), None, "cpu", True),
        (Recipe(mirror=False), 80, "cuda", False),
        (RECIPES["parity"], 20, "cpu", True),
    ],
)
def test_long_trainings_are_mirrored(recipe, epochs, device, mirrors):
    assert is_mirrored(recipe, epochs, device) is mirrors


def test_momentum_fits_the_length():
    assert momentum_for(RECIPE, 4000) == pytest.approx(0.95)
    assert momentum_for(RECIPE, 100_000) == 0.98
    assert momentum_for(RECIPE, 10) == 0.9
    assert momentum_for(RECIPES["parity"], 10) == 0.99


def test_the_average_begins_short_and_gets_long():
    assert ema_decay(10_000, 0) == pytest.approx(0.1)
    assert ema_decay(100_000, 90_000) == 0.999


def test_patches_grow_and_stay_divisible():
    recipe = Recipe(patch_stages=(PatchStage(0.2, 0.6, 4), PatchStage(0.4, 0.8, 2)))
    sizes = [patch_stage(recipe, f, (40, 56, 40), (8, 8, 8)) for f in (0.1, 0.3, 0.5)]
    assert sizes == [((24, 32, 24), 4), ((32, 48, 32), 2), ((40, 56, 40), 1)]
    assert patch_stage(recipe, 0.1, (1, 64, 8), (1, 32, 8)) == ((1, 32, 8), 4)


def test_a_wrong_setting_names_the_known_ones():
    with pytest.raises(TrainingError, match="unknown field 'lr'.*learning_rate"):
        changed(RECIPE, {"lr": 1})
    with pytest.raises(TrainingError, match="expected float, found 'fast'"):
        changed(RECIPE, {"learning_rate": "fast"})
    assert changed(RECIPE, {"learning_rate": 0.1}).learning_rate == 0.1
