"""The U-Nets: nnU-Net's sizes, refusals with a way out, and the details of their blocks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoseg.errors import AutosegError, ModelError, PlanError
from autoseg.networks import build_network, check_patch
from autoseg.networks.blocks import InstanceNorm, ResidualBlock, initialise
from planners.plan import NetworkSpec
from tests.helpers.networks import small_unet

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "planner_golden.json"
SPEC = small_unet(4, 8, blocks=2)


def golden_specs():
    """One NetworkSpec and parameter count (millions) for each distinct network in the golden file."""
    if not GOLDEN.exists():
        return []
    golden = json.loads(GOLDEN.read_text())
    found = {}
    for key, expected in golden["expected"].items():
        dataset, planner, _ = key.split("|")
        stages = len(expected["feat"])
        plain = planner == "ExperimentPlanner"
        spec = NetworkSpec(
            name="unet" if plain else "residual_unet",
            in_channels=golden["inputs"][dataset]["channels"],
            out_channels=golden["inputs"][dataset]["labels_with_background"],
            features=tuple(expected["feat"]),
            strides=tuple((1, *s)[-3:] for s in expected["strides"]),
            kernels=tuple((1, *k)[-3:] for k in expected["kernels"]),
            encoder_blocks=(2,) * stages if plain else ((1, 3, 4) + (6,) * stages)[:stages],
            decoder_blocks=((2,) if plain else (1,)) * (stages - 1),
        )
        found[spec] = (key, expected["Mparams"])
    return [pytest.param(spec, count, id=key) for spec, (key, count) in found.items()]


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden plans lie outside the repository")
@pytest.mark.parametrize(("spec", "millions"), golden_specs())
def test_parameters_are_as_many_as_nnunets(spec, millions):
    with torch.device("meta"):
        network = build_network(spec)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.0051)


def test_coarser_logits_have_the_stage_strides():
    spec = replace(
        SPEC,
        features=(4, 4, 4, 4),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
        kernels=((1, 3, 3),) + ((3, 3, 3),) * 3,
        encoder_blocks=(1,) * 4,
        decoder_blocks=(1,) * 3,
    )
    scales = build_network(spec)(torch.randn(1, 1, 8, 16, 16), every_scale=True)
    assert [tuple(scale.shape[2:]) for scale in scales] == [(8, 16, 16), (8, 8, 8), (4, 4, 4)]


def test_a_patch_that_does_not_fit_is_refused_with_the_nearest_that_does():
    with pytest.raises(PlanError, match=r"\(2, 2, 2\).*\(5, 8, 8\).*Use \(6, 8, 8\)"):
        check_patch(SPEC, (5, 8, 8))
    check_patch(SPEC, (6, 8, 8))
    halved = replace(SPEC, strides=((1, 1, 1), (8, 8, 8)))
    with pytest.raises(PlanError, match=r"Use \(8, 16, 24\)"):
        check_patch(halved, (3, 19, 20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": ((3, 3, 3), (2, 3, 3))}, "odd kernel"),
        ({"kernels": ((3, 3, 3), (3, 3))}, "three positive entries"),
        ({"strides": ((2, 2, 2), (2, 2, 2))}, r"strides\[0\]"),
        ({"input_mean": (0.0, 1.0)}, "input_mean for each of 1 channels"),
        ({"input_std": (0.0,)}, "positive input_std"),
    ],
)
def test_impossible_numbers_are_refused(change, message):
    with pytest.raises(PlanError, match=message):
        build_network(replace(SPEC, **change))


def test_a_stage_without_features_is_no_spec():
    with pytest.raises(ValueError, match="features must be from 1"):
        replace(SPEC, features=(4, 0))


def test_an_unknown_network_names_the_known_ones():
    with pytest.raises(AutosegError, match="Did you mean 'unet'"):
        build_network(replace(SPEC, name="unett"))


def test_another_number_of_channels_is_refused():
    with pytest.raises(ModelError, match="1 channels"):
        build_network(SPEC)(torch.zeros(1, 3, 8, 8, 8))


def test_instance_normalisation_gives_mean_zero_and_deviation_one():
    x = 3 + 5 * torch.randn(2, 4, 6, 6, 6)
    y = InstanceNorm(4)(x)
    torch.testing.assert_close(y.mean((2, 3, 4)), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((2, 3, 4), correction=0), torch.ones(2, 4), atol=1e-3, rtol=0)


def test_one_voxel_passes_instance_normalisation():
    x = torch.randn(2, 4, 1, 1, 1)
    torch.testing.assert_close(InstanceNorm(4).train()(x), x)


def test_a_fresh_residual_block_is_its_shortcut():
    block = initialise(ResidualBlock(4, 4, (3, 3, 3), (2, 2, 2)))
    x = torch.randn(1, 4, 8, 8, 8)
    mean = torch.nn.functional.avg_pool3d(x, 2)
    torch.testing.assert_close(block(x), torch.nn.functional.leaky_relu(mean, 0.01))


def test_weights_do_not_depend_on_the_patch():
    network = build_network(SPEC)
    for edge in (2, 8, 14):
        assert network(torch.randn(1, 1, edge, edge, edge)).shape[2:] == (edge,) * 3
