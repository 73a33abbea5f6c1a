"""What every network in NETWORKS promises."""

import inspect
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from autoseg.errors import ModelError, PlanError
from autoseg.networks import NETWORKS, Scores, attention_blocks, build_network, restoration_parameters
from autoseg.networks.devices import prepare_for
from autoseg.training.optimizers import build_optimizers
from autoseg.training.recipe import Recipe
from planners.plan import AttentionStage, NetworkSpec

SPEC = NetworkSpec(
    name="",
    in_channels=2,
    out_channels=3,
    features=(4, 8, 16),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    encoder_blocks=(1, 2, 2),
    decoder_blocks=(2, 1),
    input_mean=(0.5, 10.0),
    input_std=(0.25, 4.0),
    attention=(AttentionStage(1, "slot", 2, 6), AttentionStage(2, "full", 2)),
)
SPEC_2D = replace(SPEC, kernels=((1, 3, 3),) * 3, strides=((1, 1, 1), (1, 2, 2), (1, 2, 2)))
PATCHES = [(8, 16, 16), (6, 12, 20), (2, 4, 28)]
KINDS = {"3d": (SPEC, (4, 8, 12)), "2d": (SPEC_2D, (1, 16, 24))}


@pytest.fixture(params=list(NETWORKS))
def spec(request):
    torch.manual_seed(0)
    return replace(SPEC, name=request.param)


@pytest.fixture(params=KINDS)
def both(spec, request):
    """(spec, patch) in three dimensions and in two."""
    dimensions, patch = KINDS[request.param]
    return replace(dimensions, name=spec.name), patch


@pytest.mark.parametrize("patch", PATCHES)
def test_logits_lie_on_the_grid_of_the_patch(spec, patch):
    network = build_network(spec)
    x = torch.randn(2, 2, *patch)
    assert network(x).shape == (2, 3, *patch)
    assert network(x).dtype == torch.float32


def test_a_network_can_be_built_without_memory(spec):
    """So that a model whose plan asks for more than its weights fill is refused before anything is allocated."""
    state = build_network(spec).state_dict()
    with torch.device("meta"):
        network = build_network(spec)
        assert {name: value.shape for name, value in network.state_dict().items()} == {n: v.shape for n, v in state.items()}
        network.load_state_dict(state, assign=True)


def test_a_patch_that_does_not_fit_is_refused_with_the_nearest_that_does(both):
    spec, (z, y, x) = both
    with pytest.raises(PlanError, match=rf"{re.escape(str(spec.divisor))}.*Use \({z}, {y}, {x}\)"):
        build_network(spec)(torch.zeros(1, 2, z, y - 1, x + 1))


def test_scales_start_with_the_finest_and_get_coarser(spec):
    network = build_network(spec).eval()
    x = torch.randn(1, 2, 8, 16, 16)
    scales = network(x, every_scale=True)
    torch.testing.assert_close(scales[0], network(x))
    voxels = [scale[0, 0].numel() for scale in scales]
    assert voxels == sorted(voxels, reverse=True)
    assert all(scale.shape[:2] == (1, 3) for scale in scales)


@pytest.mark.parametrize("bf16", [False, True])
def test_lazy_logits_are_those_of_the_network(spec, bf16):
    network = build_network(replace(spec, restoration=True)).eval()
    lazy = build_network(replace(spec, restoration=True), lazy_logits=True).eval()
    lazy.load_state_dict(network.state_dict())
    x = torch.rand(2, 2, 8, 16, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        expected = network(x, every_scale=True)
        found, restored = lazy(x, every_scale=True, restore=True)
        finest = lazy(x)
    assert torch.equal(restored, x)
    assert isinstance(finest, Scores) == (
        spec.name not in ("fcn", "deeplabv3", "pspnet")
    )  # their logits are enlarged afterwards
    if isinstance(finest, Scores):
        assert all(isinstance(scores, Scores) for scores in found)
        assert any(finest.weight is parameter for parameter in lazy.parameters())
        assert [scores.shape for scores in found] == [logits.shape for logits in expected]
        parts = [scores.slabs(500) for scores in found]
        assert len(parts[0]) > 1
        found, finest = [torch.cat([part.logits() for part in slabs], dim=2) for slabs in parts], finest.logits()
    near = {"rtol": 2e-2, "atol": 2e-2} if bf16 else {"rtol": 1e-5, "atol": 1e-5}
    for logits, plain in zip((*found, finest), (*expected, expected[0]), strict=True):
        torch.testing.assert_close(logits, plain, **near)


def test_without_deep_supervision_there_is_one_scale(spec):
    network = build_network(replace(spec, deep_supervision=False))
    assert len(network(torch.randn(1, 2, 8, 16, 16), every_scale=True)) == 1


def test_every_parameter_has_a_finite_gradient(both):
    spec, patch = both
    network = build_network(spec)
    with torch.no_grad():
        for parameter in network.parameters():  # a scale that starts at zero would hide what lies before it
            parameter.add_(0.05 * torch.randn_like(parameter))
    scales = network(torch.randn(2, 2, *patch), every_scale=True)
    assert scales[0].shape == (2, 3, *patch)
    sum(scale.square().sum() for scale in scales).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if parameter.ndim > 1:
            assert parameter.grad.abs().max() > 0, name


def test_weights_survive_a_file(both, tmp_path):
    spec, patch = both
    network = build_network(spec)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")  # refuses tensors that share memory
    other = build_network(spec)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = torch.randn(1, 2, *patch)
    torch.testing.assert_close(other.eval()(x), network.eval()(x), rtol=0, atol=0)


def test_the_same_seed_gives_the_same_weights(spec):
    torch.manual_seed(7)
    first = build_network(spec).state_dict()
    torch.manual_seed(7)
    second = build_network(spec).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_input_is_scaled_first_and_stays_untouched(spec):
    network = build_network(spec).eval()
    plain = build_network(replace(spec, input_mean=(), input_std=())).eval()
    constants = {name for name, _ in network.named_buffers()}
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if k not in constants}, strict=False)
    x = torch.randn(1, 2, 8, 16, 16)
    raw = x * torch.tensor(spec.input_std).reshape(1, 2, 1, 1, 1) + torch.tensor(spec.input_mean).reshape(1, 2, 1, 1, 1)
    before = raw.clone()
    torch.testing.assert_close(network(raw), plain(x), rtol=1e-3, atol=1e-4)
    assert torch.equal(raw, before)


def test_autocast_gives_finite_logits(both):
    spec, patch = both
    network = build_network(spec)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(1, 2, *patch)).isfinite().all()


@pytest.mark.skipif(
    "dynamo" not in inspect.signature(torch.onnx.export).parameters,
    reason="torch.export of this version cannot follow an instance norm; the extra onnx asks for torch 2.6",
)
def test_an_exported_graph_gives_the_same_logits_from_its_file(both, tmp_path):
    spec, patch = both
    short = replace(spec, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1))  # exporting takes time for every operation
    network = build_network(short).eval()
    x = torch.randn(1, 2, *patch)
    torch.export.save(torch.export.export(network, (x,)), tmp_path / "network.pt2")
    exported = torch.export.load(tmp_path / "network.pt2").module()
    torch.testing.assert_close(exported(x), network(x))


def test_a_bottleneck_of_one_voxel_trains(spec):
    network = build_network(spec).train()
    logits = network(torch.randn(1, 2, *spec.divisor))
    logits.sum().backward()
    assert logits.isfinite().all()


def test_one_stage_is_enough(spec):
    short = replace(
        spec,
        features=spec.features[:1],
        strides=spec.strides[:1],
        kernels=spec.kernels[:1],
        encoder_blocks=(2,),
        decoder_blocks=(),
        attention=(AttentionStage(0, "slot", 1, 6),),
    )
    network = build_network(short)
    x = torch.randn(1, 2, 3, 5, 7)
    scales = network(x, every_scale=True)
    assert len(scales) >= 1
    assert scales[0].shape == network(x).shape == (1, 3, 3, 5, 7)


def test_the_restoration_head_changes_no_other_weight(spec):
    torch.manual_seed(3)
    plain = build_network(spec)
    after_plain = torch.rand(1)
    torch.manual_seed(3)
    network = build_network(replace(spec, restoration=True))
    assert torch.equal(torch.rand(1), after_plain)
    both = network.state_dict()
    assert all(torch.equal(tensor, both[name]) for name, tensor in plain.state_dict().items())
    assert set(both) - set(plain.state_dict()) == {
        *(f"restoration.scaling.{p}" for p in ("mean", "std")),
        *(f"restoration.{n}.{p}" for n in ("down", "up", "mix", "correct") for p in ("weight", "bias")),
        *(f"restoration.body.{i}.{n}.{p}" for i in range(4) for n in ("first", "second") for p in ("weight", "bias")),
    }
    x = torch.rand(1, 2, 8, 16, 16)
    logits, _ = network.eval()(x, restore=True)
    torch.testing.assert_close(logits, plain.eval()(x), rtol=0, atol=0)


def test_a_fresh_restoration_is_the_input_and_a_trained_one_stays_in_range(spec):
    network = build_network(replace(spec, restoration=True)).eval()
    x = torch.rand(2, 2, 8, 16, 16)
    scales, restored = network(x, every_scale=True, restore=True)
    assert len(scales) == len(network(x, every_scale=True))
    assert torch.equal(restored, x)
    torch.nn.init.normal_(network.restoration.correct.weight)
    _, changed = network(x, restore=True)
    assert changed.shape == x.shape
    assert 0 <= changed.min() < changed.max() <= 1
    assert not torch.equal(changed, x)


def test_restoration_teaches_the_features_unless_it_is_detached(spec):
    x = torch.rand(2, 2, 8, 16, 16)
    for detached in (False, True):
        network = build_network(replace(spec, restoration=True), restoration_detached=detached)
        torch.nn.init.normal_(network.restoration.correct.weight)
        network(x, restore=True)[1].square().sum().backward()
        taught = [n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
        assert any(n.startswith("restoration.mix") for n in taught)
        assert detached == all(n.startswith("restoration.") for n in taught)


def test_a_network_that_does_not_restore_says_so(spec):
    with pytest.raises(ModelError, match="no head that restores"):
        build_network(spec)(torch.rand(1, 2, 8, 16, 16), restore=True)


def test_a_wrapper_that_shows_nothing_but_forward_hides_nothing_from_the_training(spec):
    class Wrapped(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *inputs, **options):
            return self.module(*inputs, **options)

    network = build_network(replace(spec, restoration=True))
    wrapped = Wrapped(network)
    assert restoration_parameters(wrapped) == list(network.restoration.parameters())
    assert attention_blocks(wrapped) == attention_blocks(network)
    parts = [[p for group in o.param_groups for p in group["params"]] for o in build_optimizers(wrapped, Recipe()).values()]
    known = [[p for group in o.param_groups for p in group["params"]] for o in build_optimizers(network, Recipe()).values()]
    assert [[id(p) for p in part] for part in parts] == [[id(p) for p in part] for part in known]
    prepare_for(torch.device("cpu"), wrapped, spec, [(8, 16, 16)], precision="fp32")
    assert wrapped(torch.rand(1, 2, 8, 16, 16), restore=True)[1].shape == (1, 2, 8, 16, 16)


def test_thick_slices_are_restored_alike_along_whichever_axis_they_lie(spec):
    head = build_network(replace(spec, restoration=True)).restoration.eval()
    for part in (head.correct, *(block.second for block in head.body)):
        torch.nn.init.normal_(part.weight, std=0.05)
    image, features = torch.rand(3, 2, 8, 9, 10), torch.rand(3, spec.features[0], 8, 9, 10)
    thick = torch.tensor([[1.0, 1.0, 3.0], [1.0, 1.0, 1.0], [1.0, 1.0, 2.0]])
    restored = head(image, features, thick)
    assert not torch.equal(restored, head(image, features))
    torch.testing.assert_close(head(image[1:2], features[1:2]), restored[1:2])
    for axis in (0, 1):
        turned = [tensor.transpose(axis + 2, -1) for tensor in (image, features)]
        along = thick.clone()
        along[:, [axis, 2]] = thick[:, [2, axis]]
        both = head(*turned, along).transpose(axis + 2, -1)
        torch.testing.assert_close(both[[0, 2]], restored[[0, 2]])  # the one of thin slices is not turned


def test_restoration_works_on_flat_patches_and_a_single_stage(spec):
    flat = build_network(replace(SPEC_2D, name=spec.name, restoration=True))
    assert flat.restoration.mix.weight.shape[2:] == (1, 3, 3)
    assert flat(torch.rand(1, 2, 1, 16, 24), restore=True)[1].shape == (1, 2, 1, 16, 24)
    one = {"features": (4,), "strides": ((1, 1, 1),), "kernels": ((3, 3, 3),), "encoder_blocks": (2,), "decoder_blocks": ()}
    short = build_network(replace(spec, restoration=True, attention=(), **one))
    assert short(torch.rand(1, 2, 3, 5, 7), restore=True)[1].shape == (1, 2, 3, 5, 7)
