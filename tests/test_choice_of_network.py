"""Networks of another width, the one that a training gets on a CPU, and whether it is mirrored."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from autoseg.networks import build_network
from autoseg.pipeline.training import choose_mirroring, choose_network
from autoseg.training.loop import Length
from autoseg.training.recipe import RECIPES
from planners import ChannelStats, Fingerprint, get_planner

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
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


def test_on_a_cpu_the_network_has_half_the_plans_width_and_nothing_else_changes(plan):
    said, recipe = [], RECIPES["autoseg"]
    chosen = choose_network(plan, None, recipe, CPU, said.append)
    assert plan.network.features == (32, 64, 128, 256)
    assert chosen.network.features == (16, 32, 64, 128)
    assert "16, 32, 64, 128" in said[0]
    assert replace(chosen, network=plan.network) == plan
    assert choose_network(plan, "unet", recipe, CPU).network.features == (16, 32, 64, 128)


def test_elsewhere_or_where_it_is_asked_for_the_plans_network_is_trained(plan):
    recipe = RECIPES["autoseg"]
    assert choose_network(plan, None, recipe, CUDA) == plan
    assert choose_network(plan, None, replace(recipe, cpu_width=1.0), CPU) == plan
    assert choose_network(plan, None, RECIPES["parity"], CPU) == plan
    given = plan.network.scaled(0.75)
    assert choose_network(plan, given, recipe, CPU).network == given


@pytest.mark.parametrize(
    ("device", "length", "mirrored"),  # 75 batches of 2, or 21 of 7, hold all voxels once
    [
        (CPU, Length(steps=3000), False),
        (CPU, Length(steps=4500), True),
        (CUDA, Length(steps=900), False),
        (CUDA, Length(steps=1300), True),
        (CPU, Length(seconds=1200), False),
        (CUDA, Length(seconds=20), True),
    ],
)
def test_a_training_is_mirrored_where_it_reads_the_data_more_than_fifty_times(plan, device, length, mirrored):
    cases, said = [SimpleNamespace(shape=(36, 50, 35))] * 213, []
    chosen = choose_mirroring(plan, RECIPES["autoseg"], length, device, cases, said.append)
    assert replace(chosen, mirror_axes=plan.mirror_axes, decisions=plan.decisions) == plan
    assert chosen.mirror_axes == (plan.mirror_axes if mirrored else ())
    (decision,) = (d for d in chosen.decisions if d.what == "mirroring")
    assert (decision.chosen, len(chosen.decisions)) == ("z, x" if mirrored else "none", len(plan.decisions))
    assert mirrored or decision.numbers == "planned: z, x"
    assert ["not mirrored" in text for text in said] == [True] * (not mirrored)
    assert plan.mirror_axes == (0, 2)


def test_a_plan_without_axes_to_mirror_stays_as_it_is_in_silence(plan):
    told, never = replace(plan, mirror_axes=()), Length(seconds=60)
    assert choose_mirroring(told, RECIPES["autoseg"], never, CPU, [], pytest.fail) == told


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
