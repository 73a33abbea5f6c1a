from dataclasses import replace

import pytest

from autoseg.errors import TrainingError
from autoseg.training.recipe import (
    RECIPES,
    PatchStage,
    Recipe,
    changed,
    ema_decay,
    is_augmentation_free,
    learning_rate_factor,
    momentum_for,
    patch_stage,
)
from autoseg.training.settle import is_mirrored
from planners.records import digest, from_json, to_json

RECIPE = Recipe(constant_until=0.5)
DIGESTS = {"autoseg": "a962f99009b57c38", "parity": "94d8dc8db1cfe5bd"}


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
        (Recipe(augmentation_free_epochs=1), 100, 0.99),
        (Recipe(constant_until=0.4), 5, 0.4),
        (Recipe(augmentation_free_epochs=0), 5, None),
        (RECIPES["parity"], 5, None),
    ],
)
def test_the_final_phase_is_free_of_augmentation_and_not_learned_by_heart(recipe, epochs, begins):
    free = [is_augmentation_free(recipe, i / 1000, epochs * (1 - i / 1000)) for i in range(1000)]
    assert free == sorted(free)
    assert sum(free) == pytest.approx(0 if begins is None else 1000 - 1000 * begins, abs=1)


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
    recipe = Recipe(patch_curriculum=(PatchStage(0.2, 0.6, 4), PatchStage(0.4, 0.8, 2)))
    sizes = [patch_stage(recipe, f, (40, 56, 40), (8, 8, 8)) for f in (0.1, 0.3, 0.5)]
    assert sizes == [((24, 32, 24), 4), ((32, 48, 32), 2), ((40, 56, 40), 1)]
    assert patch_stage(recipe, 0.1, (1, 64, 8), (1, 32, 8)) == ((1, 32, 8), 4)


def test_a_wrong_setting_names_the_known_ones():
    with pytest.raises(TrainingError, match="unknown setting 'lr'.*muon_learning_rate"):
        changed(RECIPE, {"lr": 1})
    with pytest.raises(TrainingError, match="unknown setting 'learnin_rate' .did you mean 'learning_rate'"):
        changed(RECIPE, {"learnin_rate": 1})
    with pytest.raises(TrainingError, match="expected float, found 'fast'"):
        changed(RECIPE, {"learning_rate": "fast"})
    assert changed(RECIPE, {"learning_rate": 0.1}).learning_rate == 0.1


RENAMED = {
    "kernel_rate": ("muon_learning_rate", 0.1),
    "hold": ("constant_until", 0.25),
    "patch_stages": ("patch_curriculum", [{"until": 0.5, "scale": 0.5, "batch_factor": 2}]),
    "plain_epochs": ("augmentation_free_epochs", 3.0),
    "checks": ("validations", 4),
    "check_cases": ("validation_patches", 2),
}


@pytest.mark.parametrize("old", RENAMED)
def test_a_renamed_setting_is_known_by_both_names_and_stored_under_the_old_one(old: str) -> None:
    new, value = RENAMED[old]
    recipe = changed(Recipe(), {new: value})
    assert recipe == changed(Recipe(), {old: value}) != Recipe()
    assert to_json(recipe)[old] == value
    assert new not in to_json(recipe)
    assert from_json(Recipe, to_json(recipe)) == recipe
    for name in (old, new):
        with pytest.raises(TrainingError, match=f"recipe.{name}.*expected .*The settings of a recipe are: .*{new}"):
            changed(Recipe(), {name: "many"})
    with pytest.raises(TrainingError, match=f"'{old}' and '{new}' are the same setting"):
        changed(Recipe(), {old: value, new: value})


def test_recipes_keep_the_digests_that_they_had_before_settings_were_renamed() -> None:
    spelt_out = {"autoseg": {"patch_curriculum": (PatchStage(0.7, 0.8, 1),), "validations": 25}, "parity": {}}
    assert {name: digest(replace(recipe, **spelt_out[name])) for name, recipe in RECIPES.items()} == DIGESTS
