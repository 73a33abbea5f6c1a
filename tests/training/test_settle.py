"""What will really be trained: width and batch on a CPU, mirroring, restoration, and what is said about each."""

from dataclasses import replace
from math import prod

import pytest

from autoseg.errors import TrainingError
from autoseg.networks import build_network
from autoseg.training.length import Length
from autoseg.training.recipe import RECIPES, PatchStage, Recipe, changed
from autoseg.training.settle import CPU_CURRICULUM, is_mirrored, settle, width_fraction
from planners import ChannelStats, Fingerprint, get_planner
from planners.records import from_json, to_json

VOXELS = 213 * prod((36, 50, 35))
LONG = Length(steps=10_000)


@pytest.fixture(scope="module")
def plan():
    """Of 260 small scans of 1 mm."""
    fingerprint = Fingerprint(
        dataset="phantom",
        cases=tuple(f"case_{i:03d}" for i in range(260)),
        shapes=((36, 50, 35),) * 260,
        spacings_mm=((1.0, 1.0, 1.0),) * 260,
        channels=(ChannelStats("MRI", 100.0, 99.0, 20.0, 0.0, 300.0, 10.0, 210.0),),
        structures=("Anterior", "Posterior"),
        n_labels=3,
    )
    return get_planner("fullres_3d").plan(fingerprint)


def decided(training, what):
    (found,) = (decision for decision in training.decisions if decision.what == what)
    return found


def test_on_a_cpu_the_network_has_half_the_plans_width_and_nothing_else_of_the_plan_changes(plan):
    training = settle(plan, RECIPES["autoseg"], LONG, "cpu", VOXELS)
    assert plan.network.features == (32, 64, 128, 256)
    assert training.plan.network.features == (16, 32, 64, 128)
    assert replace(training.plan, network=plan.network) == plan
    assert "16, 32, 64, 128" in decided(training, "width").chosen
    assert settle(plan, RECIPES["autoseg"], LONG, "cpu", VOXELS, "unet").plan.network.features == (16, 32, 64, 128)


def test_elsewhere_or_where_it_is_asked_for_the_plans_network_is_trained(plan):
    recipe = RECIPES["autoseg"]
    for asked, device in ((recipe, "cuda"), (replace(recipe, cpu_width=1.0), "cpu"), (RECIPES["parity"], "cpu")):
        training = settle(plan, asked, LONG, device, VOXELS)
        assert training.plan == plan
        assert all(decision.what != "width" for decision in training.decisions)
    given = plan.network.scaled(0.75)
    assert settle(plan, recipe, LONG, "cpu", VOXELS, given).plan.network == given
    assert (width_fraction(recipe, "cpu"), width_fraction(recipe, "cuda")) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("settings", "device", "batch"),
    [({}, "cpu", 2), ({}, "cuda", 8), ({"cpu_batch_size": None}, "cpu", 8), ({"batch_size": 5}, "cpu", 5)],
)
def test_a_batch_has_the_recipes_number_or_the_plans_and_few_on_a_cpu(plan, settings, device, batch):
    assert plan.batch_size == 8
    training = settle(plan, changed(Recipe(), settings), LONG, device, VOXELS)
    assert (training.batch_size, training.recipe.batch_size) == (batch, batch)
    told = decided(training, "batch")
    assert (told.chosen, told.numbers) == (f"batches of {batch}", "planned: 8")


@pytest.mark.parametrize(
    ("device", "length", "mirrored"),  # 75 batches of 2, or 18 of 8, hold all voxels once
    [
        ("cpu", Length(steps=3000), False),
        ("cpu", Length(steps=4500), True),
        ("cuda", Length(steps=900), False),
        ("cuda", Length(steps=1300), True),
        ("cpu", Length(seconds=1200), False),
        ("cuda", Length(seconds=20), True),
    ],
)
def test_a_training_is_mirrored_where_it_reads_the_data_more_than_fifty_times(plan, device, length, mirrored):
    training = settle(plan, RECIPES["autoseg"], length, device, VOXELS)
    settled = replace(training.plan, network=plan.network)
    assert replace(settled, mirror_axes=plan.mirror_axes, decisions=plan.decisions) == plan
    assert settled.mirror_axes == (plan.mirror_axes if mirrored else ())
    (decision,) = (d for d in settled.decisions if d.what == "mirroring")  # in the plan that goes into the model
    assert (decision.chosen, len(settled.decisions)) == ("z, x" if mirrored else "none", len(plan.decisions))
    # a checkpoint of 0.1 is known by these words
    words = "for a short training, which learns faster so, or because the recipe says so"
    assert mirrored or (decision.rule, decision.numbers) == (words, "planned: z, x")
    assert ("not mirrored" in decided(training, "mirroring").chosen) is not mirrored
    assert plan.mirror_axes == (0, 2)
    if training.epochs is not None:
        assert is_mirrored(RECIPES["autoseg"], training.epochs, device) is mirrored


def test_a_plan_without_axes_to_mirror_stays_as_it_is_in_silence(plan):
    told = replace(plan, mirror_axes=())
    training = settle(told, RECIPES["autoseg"], Length(seconds=60), "cpu", 0)
    assert replace(training.plan, network=plan.network) == told
    assert "mirroring" not in [decision.what for decision in training.decisions]


def test_a_network_restores_images_only_where_the_plan_scales_them_to_one(plan):
    recipe = replace(Recipe(), restoration_weight=0.1)
    training = settle(plan, recipe, LONG, "cpu", VOXELS)
    assert (training.plan.network.restoration, training.recipe.restoration_weight) == (True, 0.1)
    zscored = replace(plan, normalization=tuple(replace(how, scheme="zscore") for how in plan.normalization))
    training = settle(zscored, recipe, LONG, "cpu", VOXELS)
    assert (training.plan.network.restoration, training.recipe.restoration_weight) == (False, 0.0)
    assert "is not restored" in decided(training, "restoration").chosen
    assert not settle(plan, Recipe(), LONG, "cpu", VOXELS).plan.network.restoration


def test_patches_are_told_stage_by_stage_in_voxels(plan):
    recipe = replace(Recipe(batch_size=3), patch_curriculum=(PatchStage(0.4, 0.5, 2), PatchStage(0.7, 0.8, 1)))
    stages = settle(plan, recipe, LONG, "cuda", VOXELS).patches
    assert [(stage.until, stage.batch_size) for stage in stages] == [(0.4, 6), (0.7, 3), (1.0, 3)]
    assert stages[-1].patch_size == plan.patch_size
    assert prod(stages[0].patch_size) < prod(stages[1].patch_size) < prod(stages[2].patch_size)


def test_patches_grow_in_more_steps_on_a_cpu_and_are_told(plan):
    training = settle(plan, RECIPES["autoseg"], LONG, "cpu", VOXELS)
    sizes = [stage.patch_size for stage in training.patches]
    assert training.recipe.patch_curriculum == CPU_CURRICULUM
    assert sizes == sorted(set(sizes), key=prod)
    assert sizes[-1] == plan.patch_size
    assert " x ".join(map(str, sizes[0])) in decided(training, "patches").chosen


@pytest.mark.parametrize("settings", [{"patch_curriculum": [], "validations": 25}, {"patch_stages": [], "checks": 25}])
def test_patches_and_validations_that_are_asked_for_stay_on_a_cpu(plan, settings):
    training = settle(plan, changed(RECIPES["autoseg"], settings), Length(steps=100), "cpu", VOXELS)
    assert (training.recipe.patch_curriculum, training.recipe.validations) == ((), 25)
    assert not {"patches", "validations"} & {decision.what for decision in training.decisions}


def test_elsewhere_patches_and_validations_are_those_of_earlier_versions(plan):
    training = settle(plan, RECIPES["autoseg"], Length(steps=100), "cuda", VOXELS)
    spelt_out = replace(RECIPES["autoseg"], patch_curriculum=(PatchStage(0.7, 0.8, 1),), validations=25)
    assert training == settle(plan, spelt_out, Length(steps=100), "cuda", VOXELS)


@pytest.mark.parametrize(
    ("length", "most"),
    [(Length(steps=1), 1), (Length(steps=500), 12), (LONG, 25), (Length(seconds=20), 1), (Length(seconds=1200), 25)],
)
def test_validations_take_little_of_a_training_on_a_cpu(plan, length, most):
    recipe = settle(plan, RECIPES["autoseg"], length, "cpu", VOXELS).recipe
    assert recipe.validations == max(most, 4) or 4 < recipe.validations <= most
    if length.steps == 500:
        assert recipe.validations * recipe.validation_patches < 0.05 * 3 * recipe.batch_size * 500


@pytest.mark.parametrize(("bf16", "precision"), [(None, "probe"), (True, "bfloat16"), (False, "float32")])
def test_the_precision_is_the_recipes_or_tried_at_the_start(plan, bf16, precision):
    assert settle(plan, Recipe(bf16=bf16), LONG, "cpu", VOXELS).precision == precision


def test_a_settled_training_is_a_record_that_can_be_explained(plan):
    training = settle(plan, RECIPES["autoseg"], Length(steps=30), "cpu", VOXELS, "unet")
    assert from_json(type(training), to_json(training)) == training
    text = training.explain()
    for part in ("network unet", "30 steps", "batches of 2", "not mirrored", "because"):
        assert part in text
    assert "because" not in training.explain(decisions=False)


@pytest.mark.parametrize("factor", [0.1, 0.25, 0.5, 0.75, 1.5, 2])
def test_a_scaled_network_keeps_the_size_of_its_heads_and_can_be_built(plan, factor):
    scaled = plan.network.scaled(factor)
    assert all(width % 8 == 0 for width in scaled.features)
    build_network(scaled)
    for before, after in zip(plan.network.attention, scaled.attention, strict=True):
        if factor >= 0.5:
            sizes = [n.features[e.stage] / e.heads for n, e in ((plan.network, before), (scaled, after))]
            assert 0.5 <= sizes[1] / sizes[0] <= 2
    assert plan.network.scaled(1) == plan.network


def test_several_devices_take_a_batch_each_and_longer_steps_or_divide_one(plan):
    recipe = replace(RECIPES["autoseg"], batch_size=4)
    alone, four = settle(plan, recipe, LONG, "cpu", VOXELS), settle(plan, recipe, LONG, "cpu", VOXELS, devices=4)
    assert four.recipe == replace(
        alone.recipe,
        learning_rate=2 * recipe.learning_rate,
        muon_learning_rate=2 * recipe.muon_learning_rate,
        restoration_rate=2 * recipe.restoration_rate,
    )
    assert (four.batches_at_once, four.epochs) == (4, 4 * alone.epochs)
    assert "16 in a step; learning rates times 2" in decided(four, "devices").chosen
    linear = settle(plan, replace(recipe, devices_exponent=1.0), LONG, "cpu", VOXELS, devices=4)
    assert linear.recipe.learning_rate == 4 * recipe.learning_rate
    divided = settle(plan, replace(recipe, divide_batch=True), LONG, "cpu", VOXELS, devices=4)
    assert divided.recipe == replace(alone.recipe, divide_batch=True)
    assert (divided.batches_at_once, divided.epochs) == (1, alone.epochs)
    assert "4 devices divide each batch of 4" in decided(divided, "devices").chosen
    with pytest.raises(TrainingError, match="a batch of 4 cannot be divided over 5 devices"):
        settle(plan, replace(recipe, divide_batch=True), LONG, "cpu", VOXELS, devices=5)
